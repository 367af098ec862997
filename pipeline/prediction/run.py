"""Slides in, predictions out: case by case, so that memory is that of one case."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pipeline.bags.store import Store, open_store
from pipeline.contracts import slide_warnings
from pipeline.contracts.case_map import CaseMap, TeacherLevels
from pipeline.contracts.covariates import Column
from pipeline.contracts.ledger import Record
from pipeline.contracts.model_card import ModelCard
from pipeline.errors import UserError
from pipeline.files.identity import file_identity
from pipeline.files.parquet import write_table
from pipeline.prediction import familiarity, page
from pipeline.prediction.encoders import open_encoder
from pipeline.prediction.ensemble import Verdict, judge
from pipeline.prediction.export import STAINS, mean_feature, was_seen
from pipeline.prediction.familiarity import Cloud, Doubt
from pipeline.prediction.model_file import ModelFile
from pipeline.prediction.outcome import Outcome
from pipeline.prediction.slides import (
    FEATURES,
    Machine,
    SlideGiven,
    encode,
    feature_path,
    tile,
)
from pipeline.prediction.stacks import Ensemble, open_ensemble
from pipeline.prediction.weighing import joined, tile_table
from pipeline.runtime import progress
from pipeline.training.job import device_of

TABLE = "predictions.parquet"
MEMBERS = "members.parquet"
NO_SCALE = "no_mpp"  # the kind of failure of a slide without a scale


@dataclasses.dataclass(frozen=True)
class Options:
    """How to predict.

    Attributes:
        out: the folder of all that is written.
        device: `auto`, `cpu`, `cuda`, ….
        workers: threads that may work at once.
        weights_dir: folder of weights that are not in the model file.
        fold: only the models of this fold; None: all.
        all_tiles: encode every tile, for a map without gaps.
        maps: write the heat map, the GeoJSON and the page of each slide.
        mpp: µm per pixel of level 0 of slides that state none.
    """

    out: Path
    device: str = "auto"
    workers: int = 1
    weights_dir: str | None = None
    fold: int | None = None
    all_tiles: bool = False
    maps: bool = True
    mpp: float | None = None


def run(
    file: ModelFile,
    slides: Sequence[SlideGiven],
    options: Options,
    covariates: Sequence[Column] = (),
) -> pd.DataFrame:
    """Predict every case, and write what there is to see of it.

    Writes below `options.out`: predictions.csv (a row a slide, also of those that failed) and
    members.csv (a row a case and model), both also as Parquet; `tiles/`; and for each slide
    `<slide>.png`, `<slide>.geojson` and `<slide>.html`.

    Args:
        file: the model.
        slides: the slides, at least one.
        options: how.
        covariates: of all cases, where the model reads some.

    Returns:
        the table of predictions.csv.

    Raises:
        UserError: two slides have one name.
        ConfigError: an encoder's weights are not to be found.
    """
    _check_names(slides)
    device = device_of(options.device)
    ensemble = open_ensemble(file, options.fold, device, covariates)
    machine = Machine(
        tuple(open_encoder(file, card, options.weights_dir, device) for card in file.card.encoders),
        device,
        options.workers,
    )
    by_case: dict[str, list[SlideGiven]] = {}
    for slide in slides:
        by_case.setdefault(slide.case_id, []).append(slide)
    rows: list[dict[str, object]] = []
    members: list[dict[str, object]] = []
    with progress.part("slides", len(slides)) as part:
        for case, own in by_case.items():
            part.note = case
            outcomes, verdict = _case(file, ensemble, machine, own, options)
            rows += [_row(outcome, verdict, options) for outcome in outcomes]
            if verdict is not None:
                members += [{"case_id": case, **said} for said in verdict.members]
            part.step(len(own))
    table = pd.DataFrame(rows)
    write_table(options.out / TABLE, table, csv=True)
    write_table(options.out / MEMBERS, pd.DataFrame(members), csv=True)
    return table


def run_cases(file: ModelFile, covariates: Sequence[Column], options: Options) -> pd.DataFrame:
    """Predict the cases of a table by a model that reads no slides.

    Writes below `options.out`: predictions.csv (a row a case) and members.csv, also as Parquet.

    Args:
        file: the model.
        covariates: of the cases.
        options: how.

    Returns:
        the table of predictions.csv.
    """
    ensemble = open_ensemble(file, options.fold, torch.device("cpu"), covariates)

    def store(teachers: Sequence[str], dims: Sequence[dict[str, int]]) -> Store:
        raise AssertionError("the model reads no teacher")

    rows: list[dict[str, object]] = []
    members: list[dict[str, object]] = []
    for case in covariates[0].texts:
        verdict = judge(file.card, ensemble.judges, ensemble.outputs(case, store))
        rows.append({"case_id": case, "status": "ok", "reason": "", **_said(verdict)})
        members += [{"case_id": case, **said} for said in verdict.members]
    table = pd.DataFrame(rows)
    write_table(options.out / TABLE, table, csv=True)
    write_table(options.out / MEMBERS, pd.DataFrame(members), csv=True)
    return table


def _said(verdict: Verdict | None) -> dict[str, object]:
    """The columns of predictions.csv that say what is predicted."""
    row: dict[str, object] = {"prediction": verdict.headline if verdict else ""}
    for one in verdict.statements if verdict else ():
        row |= {one.name: one.value, f"{one.name}_low": one.low, f"{one.name}_high": one.high}
    return row


def _check_names(slides: Sequence[SlideGiven]) -> None:
    seen: dict[str, Path] = {}
    for slide in slides:
        if slide.slide_id in seen:
            raise UserError(
                f"two slides are called `{slide.slide_id}`: {seen[slide.slide_id]} and "
                f"{slide.path}; give them names of their own in a sheet (--sheet, column slide_id)"
            )
        seen[slide.slide_id] = slide.path


def _case(
    file: ModelFile,
    ensemble: Ensemble,
    machine: Machine,
    slides: Sequence[SlideGiven],
    options: Options,
) -> tuple[list[Outcome], Verdict | None]:
    """Tile, encode and judge one case; its features are removed again."""
    out = options.out
    started = time.perf_counter()
    records: dict[str, Record] = {}
    for slide in slides:
        records[slide.slide_id] = list(tile(file, slide, out, options.mpp).values())[-1]
    tiled = [slide for slide in slides if records[slide.slide_id].status == "ok"]
    try:
        encoded = encode(file, machine, tiled, out, options.all_tiles)
        for slide_id, record in encoded.items():
            if record.status != "ok":
                records[slide_id] = record
        used = [
            slide
            for slide in tiled
            if slide.slide_id in encoded and encoded[slide.slide_id].status == "ok"
        ]
        seconds = time.perf_counter() - started
        if not used:
            return [Outcome(s, records[s.slide_id], seconds=seconds) for s in slides], None
        opened: dict[str, Store] = {}

        def store(teachers: Sequence[str], dims: Sequence[dict[str, int]]) -> Store:
            key = repr((teachers, dims))
            if key not in opened:
                opened[key] = _store(file.card, teachers, dims, used, out, machine.device)
            return opened[key]

        outputs = ensemble.outputs(used[0].case_id, store)
        verdict = judge(file.card, ensemble.judges, outputs)
        outcomes = [
            Outcome(
                slide,
                records[slide.slide_id],
                _doubts(file, slide, records[slide.slide_id], out) if slide in used else (),
                was_seen(file.card, file_identity(slide.path)),
                seconds,
            )
            for slide in slides
        ]
        if options.maps:
            names = {
                (one.name, str(feature_path(out, one.name, s.slide_id))): s.slide_id
                for one in file.card.encoders
                for s in used
            }
            shown = None if options.all_tiles else file.card.max_tiles
            tables = [
                tile_table(file.card, reader, store, verdict.best, names, shown)
                for reader in ensemble.weighed()
            ]
            tiles = joined(tables)
            page.write(file, outcomes, verdict, tiles, out)
        return outcomes, verdict
    finally:
        shutil.rmtree(out / FEATURES, ignore_errors=True)


def _store(
    card: ModelCard,
    teachers: Sequence[str],
    dims: Sequence[dict[str, int]],
    used: Sequence[SlideGiven],
    out: Path,
    device: torch.device,
) -> Store:
    """The features of one case, as models of some teachers read them."""
    mapping = CaseMap(
        {name: TeacherLevels(own) for name, own in zip(teachers, dims, strict=True)},
        {
            used[0].case_id: {
                name: [str(feature_path(out, name, s.slide_id).absolute()) for s in used]
                for name in teachers
            }
        },
    )
    levels = [name for name in card.levels if any(name in own for own in dims)]
    return open_store(mapping, out, teachers, levels, [used[0].case_id], device)


def _doubts(file: ModelFile, slide: SlideGiven, record: Record, out: Path) -> tuple[Doubt, ...]:
    """The comparisons of a slide with the training cohort."""
    familiar = file.card.familiar
    assert familiar.mpp is not None  # the model reads slides
    found = [familiarity.compare_mpp(float(record.facts["mpp"]), familiar.mpp)]
    stain = record.facts.get("stain")
    if stain:
        x = np.array([stain[name] for name in STAINS], dtype=np.float64)
        found.append(_compare(file, "stain", "stain", familiar.stain.limit, x))
    for teacher, known in familiar.features.items():
        x = mean_feature(feature_path(out, teacher, slide.slide_id))
        found.append(
            _compare(file, f"features.{teacher}", f"features of {teacher}", known.limit, x)
        )
    return tuple(found)


def _compare(file: ModelFile, what: str, told: str, limit: float | None, x: np.ndarray) -> Doubt:
    parts = file.below(f"familiar.{what}")
    if not parts:
        return Doubt(told, float("nan"), None, f"{told}: too few training slides to judge", False)
    return familiarity.compare(told, Cloud.of(parts), limit, x)


def _row(outcome: Outcome, verdict: Verdict | None, options: Options) -> dict[str, object]:
    """One line of predictions.csv."""
    slide, record = outcome.slide, outcome.record
    used = record.status == "ok"
    row: dict[str, object] = {
        "case_id": slide.case_id,
        "slide_id": slide.slide_id,
        "path": str(slide.path),
        "status": record.status,
        "reason": _reason(record),
    } | _said(verdict)
    there = used and verdict is not None
    row |= {
        "unfamiliar": outcome.unfamiliar if there else None,
        "why_unfamiliar": "; ".join(d.text for d in outcome.doubts if d.outside),
        "in_training_cohort": outcome.seen,
        "tiles": record.facts.get("n_tiles"),
        "tissue_mm2": record.facts.get("tissue_mm2"),
        "mpp": record.facts.get("mpp"),
        "warnings": "; ".join(w.text for w in _warnings(record.facts)),
        "seconds_of_case": round(outcome.seconds, 1),
        "page": f"{slide.slide_id}.html" if there and options.maps else "",
    }
    return row


def _reason(record: Record) -> str:
    """Why there is no prediction, in words that fit a command without a config."""
    if record.kind == NO_SCALE:
        return "the file states no microns per pixel; give it with --mpp, or in the sheet's `mpp`"
    return record.reason


def _warnings(facts: Mapping[str, object]) -> list[slide_warnings.SlideWarning]:
    return slide_warnings.of(dict(facts))
