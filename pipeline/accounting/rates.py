"""How fast jobs are: measured by earlier ones, from the records that they left, or assumed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from pipeline.accounting.costs import Pace, gflop_per_tile, preflight
from pipeline.accounting.job_records import JobRecord, read_records
from pipeline.config.whole import Config
from pipeline.contracts.ledger import Record, read_manifest
from pipeline.encoders.slide_level.inputs import tile_teachers
from pipeline.errors import ArtifactError

GPU_TFLOPS = 100.0
CORE_TFLOPS = 0.03  # of one core, on networks of a teacher's size
# A job on a cluster starts Snakemake twice, then torch, then puts a model on the device.
CLUSTER_START_HOURS = 1.5 / 60
LOCAL_START_HOURS = 10 / 3600
SHORTEST_SECONDS = 20.0  # a shorter job tells of its start-up only


def assumed(gpu: bool, cluster: bool = True, cores: int = 1) -> Pace:
    """What is reckoned with where nothing was measured.

    Args:
        gpu: whether the networks run on a GPU.
        cluster: whether a job waits for a node's Snakemake to start.
        cores: of a job, where there is no GPU.
    """
    start = CLUSTER_START_HOURS if cluster else LOCAL_START_HOURS
    return Pace(gpu, GPU_TFLOPS if gpu else CORE_TFLOPS * cores, start)


def pace(config: Config, roots: Sequence[Path], otherwise: Pace) -> Pace:
    """What earlier jobs measured, as far as they did.

    Args:
        config: the config.
        roots: results folders, the ones to be asked first.
        otherwise: what is assumed where nothing was measured; says whether a GPU counts or a CPU.
    """
    rate = next((r for root in roots if (r := measured(config, root, otherwise.gpu))), None)
    tiling = next((h for root in roots if (h := tiling_slide_hours(root))), None)
    said = []
    if rate:
        otherwise = dataclasses.replace(otherwise, tflops=rate.tflops)
        said.append(f"networks on {rate.device} in {_jobs(rate.jobs)}")
    if tiling:
        otherwise = dataclasses.replace(otherwise, tiling_slide_hours=tiling)
        said.append("tiling")
    return dataclasses.replace(otherwise, measured=" and ".join(said))


def earlier(root: Path) -> list[Path]:
    """The results folder itself, then those of other cohorts next to it, the latest first."""
    others = [folder for folder in root.parent.glob("*") if folder != root and folder.is_dir()]
    return [root, *sorted(others, key=lambda folder: -folder.stat().st_mtime)]


def tiling_slide_hours(root: Path) -> float | None:
    """Hours per slide, the median over a cohort's tiling jobs; None where there are none."""
    found = []
    for record in _first(root, "tiling"):
        chunk = _parts(record).get("chunk", "")
        slides = _manifest(root / "tiles" / "manifest" / f"{chunk}.json")
        if slides and record.seconds:
            found.append(record.seconds / len(slides) / 3600)
    return median(found) if found else None


@dataclasses.dataclass(frozen=True)
class Rate:
    """TFLOP/s of the device named, start-up and reading included; the median of `jobs` jobs."""

    tflops: float
    device: str
    jobs: int


def measured(config: Config, root: Path, gpu: bool = True) -> Rate | None:
    """The rate of the extraction jobs that ended well on a GPU, or without one; None where there
    was none.

    Args:
        config: the config.
        root: the cohort's results folder.
        gpu: whether jobs on a GPU are meant.
    """
    done = [r for r in _first(root, "extraction") if bool(r.device_name) == gpu]
    done = [r for r in done if (r.seconds or 0.0) >= SHORTEST_SECONDS]
    found = [
        (_tflops(config, root, record), record.device_name or f"the CPU of {record.host}")
        for record in done
    ]
    rates = [(rate, device) for rate, device in found if rate]
    if not rates:
        return None
    devices = sorted({device for _, device in rates})
    return Rate(median(rate for rate, _ in rates), ", ".join(devices), len(rates))


def _tflops(config: Config, root: Path, record: JobRecord) -> float | None:
    parts = _parts(record)
    group, seconds = parts.get("teacher", ""), record.seconds
    slides = _manifest(root / "features" / group / "manifest" / f"{parts.get('chunk', '')}.json")
    gflop = 0.0
    for teacher in group.split("+"):
        facts = tile_teachers(config).get(teacher)
        found = preflight(root, teacher)
        per_tile = None if found is None else found.gflop_per_tile
        if per_tile is None and facts is not None:
            per_tile = gflop_per_tile(teacher, facts, root)
        if per_tile is None:
            return None
        stage = f"extraction/{teacher}"
        gflop += per_tile * sum(s.n_tiles for s in slides if s.stage == stage and s.status == "ok")
    return gflop / seconds / 1e3 if seconds else None


def _first(root: Path, stage: str) -> list[JobRecord]:
    """The jobs that ended well at once.

    One that found a part of its slides finished would seem faster than it was.
    """
    first: dict[str, JobRecord] = {}
    for record in read_records(root, stage):
        first.setdefault(record.name, record)
    return [record for record in first.values() if record.outcome == "ok"]


def _parts(record: JobRecord) -> dict[str, str]:
    """`chunk=3,teacher=uni2_h` as a mapping."""
    return dict(part.split("=", 1) for part in record.name.split(",") if "=" in part)


def _manifest(path: Path) -> list[Record]:
    try:
        return read_manifest(path)
    except ArtifactError:
        return []


def _jobs(count: int) -> str:
    return f"{count} earlier job{'s' * (count != 1)}"
