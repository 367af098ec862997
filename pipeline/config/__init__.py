"""The typed config: one small model per section of `config/config.yaml`, in a file of its name.

A stage imports its own section's file, so that a new key of one stage leaves the code fingerprints
of the others as they are; hence nothing is imported here. `whole` puts the sections together and
`reading` reads a file: those are for the workflow, the command line and the report.

`config/config.yaml` says in comments what every key means; these files say what it may be. Nothing
here imports torch, so that reading the config costs a dry-run nothing.
"""
