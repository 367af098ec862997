"""Plan the workflow in the current folder and print, as JSON, which jobs would run and why."""

from __future__ import annotations

import json
import logging
import re
import sys
from pathlib import Path

from snakemake.api import SnakemakeApi
from snakemake.logging import logger
from snakemake.settings.types import (
    ConfigSettings,
    DAGSettings,
    OutputSettings,
    Quietness,
    ResourceSettings,
)
from snakemake_interface_logger_plugins.common import LogEvent

# Snakemake's reasons carry file names; the tests want the kind.
KINDS = {
    "Missing output files": "missing output",
    "Updated input files": "updated input",
    "Input files updated by another job": "upstream",
    "Set of input files has changed": "input set",
    "Params have changed": "params",
    "Code has changed": "code",
    "Software environment": "environment",
}


class Capture(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[str, list[str]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "event", None) != LogEvent.JOB_INFO:
            return
        wildcards = ",".join(f"{k}={v}" for k, v in sorted(dict(record.wildcards or {}).items()))
        name = f"{record.rule_name}[{wildcards}]" if wildcards else record.rule_name
        reason = str(record.reason)
        found = [kind for text, kind in KINDS.items() if re.search(re.escape(text), reason, re.I)]
        self.jobs[name] = found or [reason]


def main() -> None:
    capture = Capture()
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            snakefile=Path("workflow/Snakefile"),
            workdir=Path.cwd(),
            resource_settings=ResourceSettings(cores=2),
            config_settings=ConfigSettings(configfiles=[Path(a) for a in sys.argv[1:]]),
        )
        logger.addHandler(capture)
        workflow.dag(DAGSettings()).execute_workflow(executor="dryrun")
    print("\n" + json.dumps(capture.jobs))


if __name__ == "__main__":
    main()
