"""A validated model of a results folder as one file that turns a raw slide into a prediction."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from torch import Tensor

from pipeline.bags.files import open_features, read_level
from pipeline.bags.sampling import spread
from pipeline.config.extraction import TeacherConfig
from pipeline.config.tasks import ClassificationTask, SurvivalTask
from pipeline.config.tiling import TilingConfig
from pipeline.config.whole import Config
from pipeline.contracts import ledger
from pipeline.contracts.columns import spelled_out
from pipeline.contracts.evaluation_summary import EvaluationSummary, read_evaluation_summary
from pipeline.contracts.folds import PARTS, Fold, read_folds
from pipeline.contracts.labels import Labels, Task
from pipeline.contracts.model_card import (
    LAYOUT,
    Calibration,
    EncoderCard,
    Familiar,
    ModelCard,
    Range,
    Row,
)
from pipeline.contracts.model_meta import ModelMeta
from pipeline.contracts.teacher_check import read_teacher_check
from pipeline.encoders import build, weights
from pipeline.encoders.tile_scales import folder, scale_of, scales
from pipeline.encoders.weights import count_parameters
from pipeline.errors import UserError
from pipeline.evaluation.load_inputs import known_labels
from pipeline.evaluation.metrics import PRIMARY
from pipeline.evaluation.pooling import Pool, pooled, prepare
from pipeline.evaluation.predictions import read_predictions
from pipeline.evaluation.survival_curves import QUANTILES
from pipeline.extraction.check import pinned
from pipeline.files.identity import MISSING, file_identity
from pipeline.files.parquet import read_table
from pipeline.prediction import calibration, familiarity
from pipeline.prediction.export_members import (
    Source,
    covariate_cards,
    read_trainings,
    trained,
)
from pipeline.prediction.model_file import encoder_prefix, write_model
from pipeline.runtime import progress
from pipeline.runtime.libraries import installed

PACKAGE = "shazam-pathology"
Embed = Literal["auto", "all", "none"]
TILES_PER_SLIDE = 512  # of a slide's mean feature
STAINS = ("haematoxylin", "eosin")


def export(source: Source, out: Path, embed: Embed) -> ModelCard:
    """Write the file.

    Args:
        source: the model.
        out: the file to write.
        embed: which encoders' weights go into the file: `auto`, those whose licence lets them be
            handed on; `all`; or `none`. Others are named with their checksum.

    Returns:
        the card that was written.

    Raises:
        UserError: there is no such model, it was not evaluated, or it reads imported features.
        ArtifactError: a file is missing or damaged.
    """
    source = _with_made(source)
    root, config = source.root, source.config
    metas = read_trainings(source)
    first = metas[0]
    _check_encoders(first, config)
    table = read_table(root / "cases.parquet")
    task = spelled_out(config.tasks[source.task_name], table.columns)
    folds = read_folds(root, source.task_name)
    labels = known_labels(table, source.task_name, task, folds)
    found = read_predictions(root, source.task_name, task, source.model_name, labels, folds)
    evaluated = read_evaluation_summary(root / "evaluation" / source.task_name)
    models = trained(source, metas)
    tensors = models.tensors
    encoders = []
    for at, name in enumerate(progress.counted(first.teachers, "encoders")):
        encoder, state = _encoder(source, name, first.dims[at], embed)
        encoders.append(encoder)
        tensors |= {f"{encoder_prefix(encoder)}.{key}": v for key, v in state.items()}
    known = {case for fold in folds for part in PARTS for case in fold.part(part)}
    familiar, clouds = _familiar(source, encoders, known)
    tensors |= clouds
    slides = read_table(root / "slides.parquet")
    own = slides[slides["case_id"].astype(str).isin(known)]
    card = ModelCard(
        layout=LAYOUT,
        name=f"{config.cohort.name}/{source.task_name}/{source.model_name}",
        package=installed((PACKAGE,)).get(PACKAGE, ""),
        task_name=source.task_name,
        task=task.model_dump(mode="json"),
        model_name=source.model_name,
        model=first.model,
        teachers=first.teachers,
        dims=first.dims,
        outputs=first.outputs,
        classes=list(labels.classes),
        encoders=encoders,
        levels=_levels(first.dims),
        precision=config.extraction.precision,
        head_precision=config.training.precision,
        on_bad_tile=config.extraction.on_bad_tile,
        max_tiles=models.max_tiles,
        members=models.members,
        stacked=models.stacked,
        covariates=covariate_cards(source, first),
        calibration=_calibration(config, task, prepare(found), labels, folds, evaluated),
        familiar=familiar,
        cohort=_cohort(config, labels, own, evaluated),
        seen=sorted(
            {_seen(_content(*both)) for both in zip(own["path"], own["identity"], strict=True)}
        ),
        primary_metric=PRIMARY[task.type],
        labelled=evaluated.labelled,
        metrics=_metrics(source),
        restrictions=[
            f"{one.name}: {one.licence} restricts models that are trained on its outputs, which "
            "this one is; who uses this file must keep to that licence"
            for one in encoders
            if one.restricted
        ],
    )
    return write_model(out, card, tensors)


def _with_made(source: Source) -> Source:
    """With the encoders that the workflow made among the teachers, where this results folder has
    them."""
    config = source.config.with_made()
    own = {one.name for one in source.config.made()}
    teachers = {
        name: facts.model_copy(update={"path": str(source.root / "teachers" / name)})
        if name in own
        else facts
        for name, facts in config.extraction.teachers.items()
    }
    extraction = config.extraction.model_copy(update={"teachers": teachers})
    config = config.model_copy(update={"extraction": extraction})
    return dataclasses.replace(source, config=config)


def _content(path: str, identity: str) -> str:
    """A slide's identity; as the slide table has it where the file is gone."""
    now = file_identity(path) if path else MISSING
    return identity.partition("+")[0] if now == MISSING else now


def _seen(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def was_seen(card: ModelCard, identity: str) -> bool:
    """Whether a slide with this content was in the training cohort."""
    return _seen(identity) in card.seen


def _check_encoders(meta: ModelMeta, config: Config) -> None:
    teachers = config.extraction.teachers
    own = [name for name in meta.teachers if name not in teachers]
    if own:
        raise UserError(
            f"`{meta.model_name}` reads `{own[0]}`, which is another encoder in every fold "
            "(`pool: training`), and a model file holds one; export a model whose encoder serves "
            "all folds"
        )
    whole = [name for name in meta.teachers if teachers[name].source == "slide"]
    if whole:
        raise UserError(
            f"`{meta.model_name}` reads slide encoders ({', '.join(whole)}), which a model file "
            "cannot hold yet; choose a model of tile teachers"
        )
    imported = [name for name in meta.teachers if teachers[name].source == "import"]
    if imported:
        raise UserError(
            f"`{meta.model_name}` reads imported features ({', '.join(imported)}), and nobody here "
            "knows how to make them from a slide; export a model of teachers that the workflow runs"
        )


def _levels(dims: Sequence[Mapping[str, int]]) -> list[str]:
    """What the encoders are asked for; `high` is in every feature file."""
    read = {level for own in dims for level in own} | {"high"}
    depths = [level for level in ("low", "mid", "high") if level in read]
    return [*depths, *sorted(read - set(depths))]


def _encoder(
    source: Source, name: str, dims: dict[str, int], embed: Embed
) -> tuple[EncoderCard, dict[str, Tensor]]:
    """An encoder's card, and its weights where they go into the file."""
    config = source.config
    found = read_teacher_check(source.root, name)
    settings = pinned(config.extraction.teachers[name], found)
    network = build.make_network(name, settings, source.weights_dir)
    where = weights.find(network.module, name, settings, network.row, source.weights_dir)
    network = build.load_weights(network, name, settings, where)
    row = network.row
    remote = row is not None and row.loader == "remote"
    goes_in = not remote and (embed == "all" or (embed == "auto" and _may_embed(settings, row)))
    scale = scale_of(config, name)
    tiling = scales(config)[scale] if scale else config.tiling
    sha256 = ""
    if where.path is not None:
        with where.path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    card = EncoderCard(
        name=name,
        settings=settings.model_dump(mode="json"),
        facts=row.facts() if row else {},
        row=dataclasses.asdict(row) if row and settings.source == "folder" else {},
        tiles=folder(scale),
        tiling=_standing_alone(tiling).model_dump(mode="json"),
        dims=dims,
        weights="embedded" if goes_in else "referenced",
        sha256=sha256,
        licence=row.licence if row else "",
        restricted=bool(row and row.derivative_restricted),
        parameters=count_parameters(network.module),
        gflop_per_tile=(found and found.gflop_per_tile) or 0.0,
    )
    return card, dict(network.module.state_dict()) if goes_in else {}


def _may_embed(settings: TeacherConfig, row: Any) -> bool:
    """Whether weights may be handed on as far as is known: one's own, random ones, and those that
    everybody may fetch under a licence that does not restrict their use."""
    if settings.source == "open_clip":  # whose architecture may lie beside its weights
        return False
    if settings.weights not in ("hub", "package"):
        return row is None or not (row.derivative_restricted or row.gated is not False)
    if row is None:
        return False
    return row.gated is False and not row.derivative_restricted


def _standing_alone(tiling: TilingConfig) -> TilingConfig:
    """With the path of a segmentation's weights from the root."""
    if not tiling.tissue.weights:
        return tiling
    path = str(Path(tiling.tissue.weights).absolute())
    tissue = tiling.tissue.model_copy(update={"weights": path})
    return tiling.model_copy(update={"tissue": tissue})


def _calibration(
    config: Config,
    task: Task,
    pool: Pool,
    labels: Labels,
    folds: Sequence[Fold],
    evaluated: EvaluationSummary,
) -> Calibration:
    said = pooled(pool, labels.cases)
    share = float(np.mean([len(fold.test) / len(fold.train) for fold in folds]))
    if isinstance(task, SurvivalTask):
        quantiles = QUANTILES[config.evaluation.cutoff]
        train = pool.table[pool.table["split"] == "train"]
        scores = train.groupby(["fold", "case_id"])["score"].mean().reset_index()
        cutoffs = {
            str(fold): [float(v) for v in np.quantile(part["score"], quantiles)]
            for fold, part in scores.groupby("fold")
        }
        return calibration.fit_survival(
            said.values[:, 0], labels, evaluated.horizons, cutoffs, share
        )
    if isinstance(task, ClassificationTask):
        return calibration.fit_classes(said.values, labels, share)
    return calibration.fit_values(said.values, labels, share)


def _familiar(
    source: Source, encoders: Sequence[EncoderCard], cases: set[str]
) -> tuple[Familiar, dict[str, Tensor]]:
    """What the training cohort's slides are like."""
    root = source.root
    if not encoders:
        return Familiar(None, Range(None, 0), {}), {}
    coverage = read_table(root / "coverage.parquet")
    coverage = coverage[coverage["case_id"].astype(str).isin(cases) & (coverage["status"] == "ok")]
    case_of = dict(zip(coverage["slide_id"], coverage["case_id"].astype(str), strict=True))
    records = [
        record
        for record in ledger.read_manifests(
            sorted((root / encoders[0].tiles / "manifest").glob("*.json"))
        )
        if record.slide_id in case_of and record.status == "ok"
    ]
    stain = [r for r in records if r.facts.get("stain")]
    x = np.array([[r.facts["stain"][name] for name in STAINS] for r in stain]).reshape(-1, 2)
    mpp = [float(r.facts["mpp"]) for r in records]
    tensors: dict[str, Tensor] = {}
    stains = _range(tensors, "stain", x, [case_of[r.slide_id] for r in stain])
    features = {}
    for one in encoders:
        rows = coverage[coverage["teacher"] == one.name].sort_values("slide_id")
        means = [
            mean_feature(root / path)
            for path in progress.counted(rows["path"].tolist(), f"slides of {one.name}")
        ]
        cases_of = rows["case_id"].astype(str).tolist()
        features[one.name] = _range(tensors, f"features.{one.name}", np.array(means), cases_of)
    return Familiar((min(mpp), max(mpp)), stains, features), tensors


def _range(tensors: dict[str, Tensor], what: str, x: np.ndarray, cases: Sequence[str]) -> Range:
    """The range of some slides' vectors, whose cloud goes into `tensors`."""
    if len(x) < familiarity.LEAST_SLIDES:
        return Range(None, len(x))
    parts = familiarity.describe(x).tensors()
    tensors |= {f"familiar.{what}.{name}": value for name, value in parts.items()}
    return Range(familiarity.limit(x, cases), len(x))


def mean_feature(path: Path) -> np.ndarray:
    """The mean of a slide's tiles at the last level: float64 (d,)."""
    file = open_features(path)
    rows = spread(file.n_tiles, TILES_PER_SLIDE)
    found: np.ndarray = read_level(file, "high", rows).astype(np.float64).mean(axis=0)
    return found


def _cohort(
    config: Config, labels: Labels, slides: pd.DataFrame, evaluated: EvaluationSummary
) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": config.cohort.name,
        "synthetic": config.cohort.source == "synthetic",
        "cases": len(labels.cases),
        "slides": len(slides),
        "sites": len({s for s in slides["site"] if s}),
        "folds": evaluated.k,
        "seeds": evaluated.seeds,
    }
    if labels.event is not None:
        facts["events"] = int(labels.event.sum())
    if labels.label is not None:
        facts["classes"] = {
            name: int((labels.label == i).sum()) for i, name in enumerate(labels.classes)
        }
    return facts


def _metrics(source: Source) -> list[Row]:
    """The model's rows of metrics.csv: metric, value, low, high, n; numbers that are not finite are
    None."""
    table = read_table(source.root / "evaluation" / source.task_name / "metrics.parquet")
    own = table[table["model"] == source.model_name]
    rows: list[Row] = []
    for row in own.to_dict("records"):
        numbers = {
            key: float(row[key]) if np.isfinite(row[key]) else None
            for key in ("value", "low", "high")
        }
        rows.append({"metric": str(row["metric"]), **numbers, "n": int(row["n"])})
    return rows
