"""The commands of `pipeline.cli`, as plain functions. Heavy imports happen inside them."""
