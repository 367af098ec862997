"""What the GPUs of earlier jobs sustained, from the records that the jobs left."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from statistics import median

from pipeline.accounting.costs import gflop_per_tile
from pipeline.accounting.job_records import JobRecord, read_records
from pipeline.config.whole import Config
from pipeline.contracts.ledger import read_manifest
from pipeline.errors import ArtifactError


@dataclasses.dataclass(frozen=True)
class Rate:
    """TFLOP/s of the device named, start-up and reading included; the median of `jobs` jobs."""

    tflops: float
    device: str
    jobs: int


def measured(config: Config, root: Path) -> Rate | None:
    """The rate of the extraction jobs that ended well on a GPU; None where there was none.

    A job that found a part of its slides finished would seem faster than it was, so only first
    attempts count.
    """
    first: dict[str, JobRecord] = {}
    for record in read_records(root):
        if record.stage == "extraction":
            first.setdefault(record.name, record)
    done = [r for r in first.values() if r.outcome == "ok" and r.device_name]
    found = [(_tflops(config, root, record), record.device_name) for record in done]
    rates = [(rate, device) for rate, device in found if rate]
    if not rates:
        return None
    devices = sorted({device for _, device in rates})
    return Rate(median(rate for rate, _ in rates), ", ".join(devices), len(rates))


def _tflops(config: Config, root: Path, record: JobRecord) -> float | None:
    parts = dict(part.split("=", 1) for part in record.name.split(","))
    group, seconds = parts.get("teacher", ""), record.seconds
    try:
        slides = read_manifest(root / "features" / group / "manifest" / f"{parts['chunk']}.json")
    except (ArtifactError, KeyError):
        return None
    gflop = 0.0
    for teacher in group.split("+"):
        facts = config.extraction.teachers.get(teacher)
        per_tile = gflop_per_tile(teacher, facts, root) if facts else None
        if per_tile is None:
            return None
        stage = f"extraction/{teacher}"
        gflop += per_tile * sum(
            int(s.facts.get("n_tiles", 0)) for s in slides if s.stage == stage and s.status == "ok"
        )
    return gflop / seconds / 1e3 if seconds else None
