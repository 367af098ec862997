"""The extraction stage: features of a chunk of slides, for one teacher or several together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from pipeline.config.extraction import ExtractionConfig, TeacherConfig
from pipeline.contracts import ledger
from pipeline.contracts.ledger import Record
from pipeline.contracts.teacher_check import read_teacher_check
from pipeline.encoders import registry
from pipeline.encoders.build import Encoder, build
from pipeline.encoders.weight_files import local_identity, wanted_revision
from pipeline.extraction.check import pinned
from pipeline.extraction.devices import choose_batch_size, choose_devices, decodes_on_gpu
from pipeline.extraction.engine.messages import Settings, SlideToRead
from pipeline.extraction.engine.run import extract
from pipeline.extraction.engine.writing import finished
from pipeline.extraction.writer import is_finished
from pipeline.files.artifacts import sweep
from pipeline.files.digests import digest
from pipeline.files.parquet import read_table
from pipeline.runtime.cpu_budget import cpu_budget
from pipeline.tile_reading.grid import read_grid

# Raised when every teacher's features change (reading, transforms, pooling). 1: the first.
VERSION = 1

# Keys of a teacher that decide whether it may run or which file it is, not what it computes.
NOT_NUMBERS = {"acknowledge_licence", "revision", "sha256", "path"}


def run(
    *,
    cfg: ExtractionConfig,
    teachers: Sequence[str],
    versions: Mapping[str, str],
    root: Path,
    chunk: int,
    out: Path,
    workers: int,
    device: str = "auto",
    tiles: str = "tiles",
) -> None:
    """Make the feature files of a chunk, and their manifest.

    Slides that are finished are recognised by their own file and left alone. A slide that tiling
    found empty or could not read keeps that status here.

    Args:
        cfg: the extraction section.
        teachers: keys of `cfg.teachers`; several share one decoding of the slides.
        versions: teacher -> those of the code that makes its features.
        root: the cohort's results folder.
        chunk: which slides.
        out: the manifest to write; it holds the records of all these teachers.
        workers: threads to use, as far as this process may; 0 for all that it may.
        device: auto (all GPUs, else the CPU), cpu, cuda, cuda:1, or several with commas.
        tiles: the folder below `root` whose tiles these teachers see.

    Raises:
        ConfigError: a teacher cannot be built.
        ArtifactError: tiles or weights are missing or damaged.
    """
    workers = cpu_budget(workers)
    slides = read_table(root / "slides" / f"{chunk}.parquet")
    here = slides[slides["chunk"] == chunk]
    paths = {str(s): str(p) for s, p in zip(here["slide_id"], here["path"], strict=True)}
    tiled = {r.slide_id: r for r in ledger.read_manifest(root / tiles / f"manifest/{chunk}.json")}

    sweep(*(output(root, name, "").parent for name in teachers), out.parent)
    found = {name: read_teacher_check(root, name) for name in teachers}
    pinned_teachers = {name: pinned(cfg.teachers[name], found[name]) for name in teachers}
    cfg = cfg.model_copy(update={"teachers": pinned_teachers})
    identities = {name: None if one is None else one.identity for name, one in found.items()}
    prints = {t: teacher_fingerprint(cfg, t, versions[t], identities[t]) for t in teachers}
    records: dict[tuple[str, str], Record] = {}
    jobs: list[SlideToRead] = []
    for slide_id, record in sorted(tiled.items()):
        if record.status != "ok":
            for name in teachers:
                stage = f"extraction/{name}"
                records[slide_id, name] = Record(
                    slide_id, stage, record.status, record.kind, record.reason
                )
                output(root, name, slide_id).unlink(missing_ok=True)
            continue
        grid = read_grid(root / record.path)
        outputs = {t: output(root, t, slide_id) for t in teachers}
        marks = {t: digest(prints[t], grid.fingerprint) for t in teachers}
        for name in teachers:
            levels = registry.levels_of(name, cfg.teachers[name], cfg.levels)
            if is_finished(outputs[name], marks[name], grid, levels):
                path = outputs.pop(name)
                records[slide_id, name] = finished(slide_id, name, path)
        if outputs:
            jobs.append(SlideToRead(slide_id, Path(paths[slide_id]), grid, outputs, marks))

    if jobs:
        records |= _extract(cfg, teachers, jobs, workers, device, identities)
    ordered = [_relative(record, root) for _, record in sorted(records.items())]
    ledger.write_manifest(out, f"extraction/{'+'.join(teachers)}", digest(prints), ordered)


def output(root: Path, teacher: str, slide_id: str) -> Path:
    """A slide's feature file.

    Args:
        root: the cohort's results folder.
        teacher: the teacher's name.
        slide_id: the slide.
    """
    return root / "features" / teacher / f"{slide_id}.h5"


def teacher_fingerprint(
    cfg: ExtractionConfig, teacher: str, versions: str, identity: str | None = None
) -> str:
    """What decides a teacher's numbers besides the tiles: config, row, weights and versions.

    Args:
        cfg: the extraction section.
        teacher: one of its teachers.
        versions: of the code that makes its features.
        identity: of the weights file that the preflight checked. It stands for the revision: a
            revision that is written into the config later, for the same file, changes nothing.
    """
    spec = cfg.teachers[teacher]
    row = registry.row_of(teacher, spec)
    if identity is None:
        identity = local_identity(teacher, spec, row, cfg.weights_dir)
    facts = {
        "teacher": spec.canonical(NOT_NUMBERS),
        "row": row.facts(registry.WORDS | registry.PLACES) if row else None,
        "weights": identity or _wanted(spec, row),
        "levels": registry.levels_of(teacher, spec, cfg.levels),
        "precision": cfg.precision,
        "on_bad_tile": cfg.on_bad_tile,
    }
    return digest(facts, versions)


def _wanted(spec: TeacherConfig, row: registry.Model | None) -> str:
    """Which weights are asked for, where no file is known."""
    if spec.weights != "hub":
        return ""
    return f"{row.hf_id if row else spec.model}@{wanted_revision(spec, row)}"


def _extract(
    cfg: ExtractionConfig,
    teachers: Sequence[str],
    jobs: Sequence[SlideToRead],
    workers: int,
    device: str,
    identities: Mapping[str, str | None],
) -> dict[tuple[str, str], Record]:
    needed = [t for t in teachers if any(t in job.outputs for job in jobs)]
    devices = choose_devices(device)
    if devices[0].type == "cpu":
        torch.set_num_threads(1)  # the engine's threads share each batch, one part each
    encoders: dict[torch.device, list[Encoder]] = {
        place: [
            build(
                name,
                cfg.teachers[name],
                levels=registry.levels_of(name, cfg.teachers[name], cfg.levels),
                precision=cfg.precision,
                compiled=cfg.compile,
                weights_dir=cfg.weights_dir,
                identity=identities[name],
                device=place,
            )
            for name in needed
        ]
        for place in devices
    }
    side = max(job.grid.side for job in jobs)
    each = max(1, workers // len(devices))
    first = encoders[devices[0]]
    settings = Settings(
        batch_size=choose_batch_size(cfg.batch_size, first, side, devices[0]),
        workers=each,
        on_bad_tile=cfg.on_bad_tile,
        decode_on_gpu=decodes_on_gpu(cfg.decode, first, side, each, devices[0]),
    )
    return extract(jobs, encoders, settings)


def _relative(record: Record, root: Path) -> Record:
    if not record.path:
        return record
    return dataclasses.replace(record, path=Path(record.path).relative_to(root).as_posix())
