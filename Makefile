# `make demo` and `make test` need Python >= 3.11 and make; they set up .venv themselves, once.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready
CORES  ?= 2
JOBS   ?= 2
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: setup demo test test-slow test-slurm lint profiles clean

setup: $(STAMP)

# uv resolves and unpacks the whole stack in well under a minute; where it is not to be had, pip does.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python >= 3.11 is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv || true
	if [ -x $(BIN)/uv ]; then $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -e '.[test]'; \
	else $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'; fi
	@touch $@

demo: setup
	snakemake --workflow-profile profiles/local --cores $(CORES)
	@echo "Open results/demo/report.html in a browser."

test: setup lint
	python -m pytest -n $(JOBS) -m "not slow"

test-slow: setup
	python -m pytest -n $(JOBS) -m "slow and not slurm"

# As root, with Debian's munge and Slurm; elsewhere it says what is missing and skips.
test-slurm: setup
	python -m pytest tests/slurm -m slurm -s -rs

lint: setup
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check workflow
	snakemake --lint

# `snakemake --profile slurm` looks in the user's configuration folder: link ours there.
profiles:
	mkdir -p $${XDG_CONFIG_HOME:-$$HOME/.config}/snakemake
	for p in profiles/*/; do ln -sfn "$(CURDIR)/$${p%/}" "$${XDG_CONFIG_HOME:-$$HOME/.config}/snakemake/$$(basename $$p)"; done

# One cohort, and only what can be made again: python -m pipeline clean --root results/<cohort>
clean:
	@du -sch results resources .snakemake 2>/dev/null | tail -1 | sed 's/total/freed/' || true
	rm -rf results resources .snakemake
