"""The slide-encoder stage: a vector for each slide, or for each of its regions, from the features
of a tile teacher.

What it writes are feature files like any other's, with one row or one for each region, so that
every model takes a slide encoder beside tile teachers.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.aggregators.slide_grid import coords_of, step_of
from pipeline.bags.files import FeatureFile, open_features, read_level
from pipeline.config.slide_encoders import SlideEncodersJob
from pipeline.contracts import ledger
from pipeline.contracts.ledger import Record
from pipeline.contracts.teacher_check import TeacherCheck, read_teacher_check
from pipeline.encoders import registry
from pipeline.encoders.slide_level import build as building
from pipeline.encoders.slide_level import chief, hipt, longnet, longvit, madeleine, remote
from pipeline.encoders.slide_level.build import SlideEncoder, SlideVectors, build, encode
from pipeline.encoders.slide_level.registry import configured
from pipeline.errors import ArtifactError, SlideError
from pipeline.files.artifacts import FINGERPRINT, is_complete, new_hdf5, sweep
from pipeline.files.checksums import checksum, is_intact, seal
from pipeline.files.digests import digest
from pipeline.files.hdf5 import read_hdf5
from pipeline.files.identity import file_identity
from pipeline.runtime import progress
from pipeline.runtime.machine_errors import is_machines

# Raised when every slide encoder's vectors change. 1: the first.
VERSION = 1

ARCHITECTURES = {
    "longnet": longnet.VERSION,
    "longvit": longvit.VERSION,
    "hipt": hipt.VERSION,
    "chief": chief.VERSION,
    "madeleine": madeleine.VERSION,
}
# Settings that decide whether it may run or which file it is, not what it computes.
NOT_NUMBERS = {"acknowledge_licence", "revision", "sha256"}


def run(
    *, job: SlideEncodersJob, root: Path, teacher: str, chunk: int, out: Path, device: str
) -> None:
    """Encode the slides of a chunk.

    A slide that its tile teacher has no features of keeps that teacher's status and reason. One
    whose tiles do not lie on a grid is `failed`, kind `bad_grid`. Finished slides are recognised
    by their files and left alone.

    Args:
        job: what it is told.
        root: the results folder.
        teacher: the slide encoder's name.
        chunk: which slides.
        out: the manifest to write.
        device: auto (a GPU, else the CPU), cpu or cuda:<n>.

    Raises:
        ConfigError: the encoder cannot be built, or takes features of another width.
        ArtifactError: its weights are missing or damaged, or features of tiles.
    """
    sweep(out.parent, out.parent.parent)
    stage = f"extraction/{teacher}"
    source = root / "features" / job.manifests / "manifest" / f"{chunk}.json"
    wanted = f"extraction/{job.input}"
    given = [r for r in ledger.read_manifest(source) if r.stage == wanted]
    checked = read_teacher_check(root, teacher)
    mark = _fingerprint(job, teacher, checked)
    records: list[Record] = []
    encoder: SlideEncoder | None = None
    for record in progress.counted(sorted(given, key=lambda r: r.slide_id), "slides"):
        path = root / "features" / teacher / f"{record.slide_id}.h5"
        if record.status != "ok":
            path.unlink(missing_ok=True)
            records.append(
                Record(record.slide_id, stage, record.status, record.kind, record.reason)
            )
            continue
        tiles = root / record.path
        own = digest(mark, _origin(tiles))
        try:
            if not _is_finished(path, own):
                file = open_features(tiles)
                if encoder is None:
                    encoder = _build(job, teacher, file.dims["high"], checked, device)
                _write(path, own, encoder, _encode(file, encoder, job, teacher, record.slide_id))
            records.append(_ok(record.slide_id, stage, path, root))
        except SlideError as error:
            path.unlink(missing_ok=True)
            records.append(ledger.failed(record.slide_id, stage, error))
    ledger.write_manifest(out, stage, mark, records)


def _fingerprint(job: SlideEncodersJob, teacher: str, checked: TeacherCheck | None) -> str:
    """What decides the vectors besides the features."""
    settings = job.extraction.teachers[teacher]
    row = configured(teacher, settings)
    versions = {
        "stage": VERSION,
        "build": building.VERSION,
        row.arch: ARCHITECTURES.get(row.arch, remote.VERSION),
    }
    facts = {
        "teacher": settings.canonical(NOT_NUMBERS),
        "row": row.facts(registry.WORDS | registry.PLACES),
        "weights": (checked.identity if checked else "") or job.facts.get("identity", ""),
        "precision": job.extraction.precision,
        "input": job.input,
    }
    return digest(facts, versions)


def _origin(path: Path) -> str:
    """What tells features of a slide from others: what they were made of, or the file itself."""
    if path.suffix == ".h5":
        with read_hdf5(path) as file:
            if FINGERPRINT in file.attrs:
                return str(file.attrs[FINGERPRINT])
    return file_identity(path)


def _build(
    job: SlideEncodersJob, teacher: str, dim: int, checked: TeacherCheck | None, device: str
) -> SlideEncoder:
    settings = job.extraction.teachers[teacher]
    if settings.weights == "hub" and checked:
        settings = settings.model_copy(update={"revision": checked.revision})
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    return build(
        teacher,
        settings,
        dim,
        precision=job.extraction.precision,
        weights_dir=job.extraction.weights_dir,
        identity=checked.identity if checked else None,
        device=chosen,
    )


def _encode(
    file: FeatureFile, encoder: SlideEncoder, job: SlideEncodersJob, teacher: str, slide_id: str
) -> SlideVectors:
    coords = coords_of(file)
    if file.dims["high"] != encoder.dim:
        raise ArtifactError(
            f"{file.path}: has {file.dims['high']} features a tile, other files {encoder.dim}"
        )
    order = np.lexsort((coords[:, 0], coords[:, 1]))
    settings = job.extraction.teachers[teacher]
    if settings.max_tiles is not None and len(order) > settings.max_tiles:
        order = order[_sample(len(order), settings.max_tiles, settings.seed, slide_id)]
    return encode(encoder, _Tiles(file, order), coords[order], step_of(file))


@dataclasses.dataclass(frozen=True)
class _Tiles:
    """A slide's tiles in an order, of which only those that are asked for are read."""

    file: FeatureFile
    order: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return read_level(self.file, "high", self.order[rows])


def _sample(tiles: int, most: int, seed: int, slide_id: str) -> np.ndarray:
    """Ascending places of tiles drawn evenly: the first ones would be one side of the slide."""
    own = int.from_bytes(hashlib.sha256(slide_id.encode()).digest()[:8], "big")
    rng = np.random.default_rng([seed, own])
    return np.sort(rng.choice(tiles, most, replace=False))


def _write(path: Path, fingerprint: str, encoder: SlideEncoder, found: SlideVectors) -> None:
    """`regions` and `region_tiles` say where a row's region is and how many of its `places` for
    tiles have tissue; a vector of a whole slide has neither."""
    attributes = {
        **encoder.facts,
        "precision": encoder.precision,
        "teacher": encoder.name,
        FINGERPRINT: fingerprint,
    }
    with new_hdf5(path, attributes) as file:
        data = file.create_dataset("features", data=found.values)
        seal(data, checksum(found.values))
        if found.corners is not None and found.patches is not None:
            file.create_dataset("regions", data=found.corners.astype(np.int32))
            counts = file.create_dataset("region_tiles", data=found.patches.astype(np.int32))
            counts.attrs["places"] = found.places


def _is_finished(path: Path, fingerprint: str) -> bool:
    """Whether a file is whole, was made of the same, and its numbers are sound."""
    if not is_complete(path, fingerprint):
        return False
    try:
        with read_hdf5(path) as file:
            values = np.asarray(file["features"][()])
            whole = is_intact(file["features"], checksum(values))
    except (OSError, KeyError) as error:
        if is_machines(error):
            raise
        return False
    return bool(whole and np.isfinite(values).all())


def _ok(slide_id: str, stage: str, path: Path, root: Path) -> Record:
    with read_hdf5(path) as file:
        rows, width = (int(n) for n in file["features"].shape)
        facts: dict[str, Any] = {"n_tiles": rows, "dims": {"high": width}, "format": "pipeline"}
        if "region_tiles" in file:
            counts = file["region_tiles"]
            partial = counts[()] < counts.attrs.get("places", hipt.SIDE**2)
            facts["partial_regions"] = int(partial.sum())
    return Record(slide_id, stage, "ok", path=path.relative_to(root).as_posix(), facts=facts)
