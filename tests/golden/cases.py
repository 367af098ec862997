"""Tiny inputs of each stage, of each aggregator and of each loss, and the numbers that they give.

Each entry makes numbers in an empty folder; `versions` are those that decide them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file

from pipeline.aggregators.build import build as build_aggregator
from pipeline.bags.files import open_features, read_level
from pipeline.cohort.synthetic.hidden_states import hidden_cases
from pipeline.cohort.synthetic.painting import Picture, paint
from pipeline.config.extraction import ExtractionConfig, TeacherConfig
from pipeline.config.folds import FoldsConfig, FoldsJob
from pipeline.config.models import EnsembleModel, ModelConfig, aggregators, distillation_losses
from pipeline.config.registry import Entry, entries
from pipeline.config.tasks import LOSSES, SurvivalTask, TaskConfig
from pipeline.config.tiling import TilingConfig
from pipeline.config.training import TrainingConfig
from pipeline.contracts.folds import read_folds
from pipeline.contracts.labels import read_labels
from pipeline.contracts.versions import Versions, version_of, versions_in
from pipeline.encoders.build import build as build_teacher
from pipeline.encoders.build import encode
from pipeline.files.artifacts import read_json
from pipeline.folds import stage as folds_stage
from pipeline.pairs import stage as pairs_stage
from pipeline.plan import stage_versions
from pipeline.tiling.stage import run_slide
from pipeline.training import stage as training_stage
from pipeline.training.tasks import fit_head
from tests.encoder_distillation import made as small
from tests.evaluation.conftest import TASKS as MEASURED
from tests.evaluation.conftest import Results
from tests.extraction.made import TINY, tissue
from tests.folds.test_folds_stage import write_cases
from tests.mapping.test_mapping_stage import House, _missing, _ok
from tests.pairs import made as captioned
from tests.pretraining import test_pretraining_stage as pretraining
from tests.probing import test_probing_stage as probing
from tests.probing import test_robustness as shifts
from tests.slide_encoders import test_slide_encoders_stage as slide_house
from tests.slides import files
from tests.training import test_stacking as stacking
from tests.training.conftest import results_folder
from tests.vision_language import made as asked

Numbers = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Golden:
    """Numbers of one thing.

    Attributes:
        versions: what decides them.
        make: makes them in an empty folder.
        tolerance: how far they may be off, relative to their size (at least 0.1): other processors
            and libraries add up in another order.
    """

    versions: Versions
    make: Callable[[Path], Numbers]
    tolerance: float = 1e-3


def painting(folder: Path) -> Numbers:
    picture = Picture(500, 400, 0.5, "north", 0.4, 0.4, 0.3, 0.5, True, "", 3)
    pixels = np.asarray(paint(picture), dtype=float)
    cases = hidden_cases(20, 0.3, 5)
    times = [case.time for case in cases]
    return {"mean": pixels.mean(), "spread": pixels.std(), "time": float(np.mean(times))}


def tiling(folder: Path) -> Numbers:
    slide = files.write_aperio(folder / "a.svs", files.tissue_image(1300, 1700))
    record = run_slide(cfg=TilingConfig(), versions="", slide=slide, out_dir=folder / "tiles")
    with h5py.File(folder / "tiles" / "a.h5") as file:
        coords, fraction = file["coords"][()], file["tissue_fraction"][()]
    found = {"tiles": len(coords), "x": coords[:, 0].mean(), "fraction": fraction.mean()}
    return {k: float(v) for k, v in (found | {"mm2": record.facts["tissue_mm2"]}).items()}


def extraction(folder: Path) -> Numbers:
    cfg = ExtractionConfig.model_validate({"teachers": {"tiny": TINY}})
    tiles = torch.from_numpy(np.stack([tissue(64, 64, seed) for seed in range(3)]))
    found = encode(build_teacher("tiny", cfg.teachers["tiny"]), tiles)
    return {f"{k} {s}": _of(v.float(), s) for k, v in found.items() for s in ("mean", "std")}


PRETRAINED = pretraining.config()
SLIDES: dict[str, Any] = {"source": "slide", "weights": "random", "acknowledge_licence": True}
# Slide encoders: tiles along the slide, and their features.
ENCODED = {
    "gigapath_flash_slide": (18, 6),
    "hipt_vit4k": (18, 6),
    "longvit_1024": (4, 24576),
    "chief": (18, 6),
    "madeleine": (18, 6),
}


def slide_encoders(name: str) -> Callable[[Path], Numbers]:
    side, dim = ENCODED[name]

    def make(folder: Path) -> Numbers:
        house = slide_house.House(folder, **SLIDES, model=name)
        house.slide("a", slide_house.square(side), dim)
        found = read_level(open_features(folder / house.run()["a"].path)).astype(float)
        return {"mean": found.mean(), "std": found.std(), "first": found[0, 0]}

    return make


def mapping(folder: Path) -> Numbers:
    slides = {"s1": "c1", "s2": "c1", "s3": "c2", "s4": "c3"}
    house = House(folder, slides, time=[3.0, 3.0, 4.0, 5.0])
    house.run([*(_ok(s, "a") for s in slides), *(_ok(s, "b") for s in ("s1", "s3"))]
              + [_missing(s, "b") for s in ("s2", "s4")], max_failed_fraction=0.9)  # fmt: skip
    cases = pd.read_parquet(folder / "cases.parquet")
    mapped = read_json(folder / "case_to_features.json")["cases"]
    return {
        "files": float(sum(len(f) for teachers in mapped.values() for f in teachers.values())),
        "usable": float(cases["n_usable_slides"].sum()),
        "complete": float(cases["complete"].sum()),
        "lost": float(len(pd.read_parquet(folder / "ledger.parquet"))),
    }


def folds(folder: Path) -> Numbers:
    write_cases(folder)
    task = SurvivalTask(type="survival", time="time", event="event")
    job = FoldsJob(folds=FoldsConfig(k=3), cases="intersection", task=task.model_dump())
    folds_stage.run(job=job, root=folder, task="t")
    return {
        f"{fold.index} {part}": float(sum(int(case[1:]) ** 2 for case in fold.part(part)))
        for fold in read_folds(folder, "t")
        for part in ("train", "val", "test")
    }


def robust(folder: Path) -> Numbers:
    found = shifts.run(shifts.results_folder(folder))
    rows = {f"{row.shift} {row.strength}": row for row in found.rows}
    return {f"{n} {k}": getattr(row, k) for n, row in rows.items() for k in ("cosine", "found")}


def probes(folder: Path) -> Numbers:
    probing.build(folder, labels=True)
    rows = probing.run(folder)["rows"]
    return {" ".join(map(str, (r["probe"], r["training"], r["metric"]))): r["value"] for r in rows}


def pretrained(folder: Path) -> Numbers:
    """What six steps of CluSiam on small slides come to: the curve, and the encoder's weights."""
    made = pretraining.run(pretraining.six_slides(folder), PRETRAINED)
    # Not what counts tiles: one that stands between two would decide.
    curve = pd.read_csv(made / "curve.csv")[["loss", "invariance", "clusters", "spread", "rank"]]
    weights = load_file(made / "model.safetensors")
    size = sum(float(v.double().square().sum()) for v in weights.values() if v.is_floating_point())
    return {"weights": size**0.5} | {k: float(v) for k, v in curve.mean().items()}


def words(folder: Path) -> Numbers:
    weights = asked.weights_folder(folder)
    root = asked.results_folder(folder, weights)
    asked.run(root, weights)
    found: Numbers = {}
    for name in ("spread", "few_shot", "retrieved"):
        means = pd.read_csv(root / f"vision_language/words/{name}.csv").mean(numeric_only=True)
        found |= {f"{name} {key}": float(v) for key, v in means.items()}
    table = pd.read_parquet(root / "models/task/zero_shot_words/predictions.parquet")
    return found | {"a": float(table["prob_a"].mean()), "b": float(table["prob_b"].mean())}


def small_encoder(folder: Path) -> Numbers:
    learned = small.run(small.results_folder(folder))
    curve = pd.read_csv(learned / "curve.csv").iloc[-1]
    agreement = read_json(learned / "facts.json")["agreement"]
    found = {f"{t} {k}": float(v) for t, all_of in agreement.items() for k, v in all_of.items()}
    return found | {str(k): float(v) for k, v in curve.items()}


def pairs(folder: Path) -> Numbers:
    root = captioned.results_folder(folder)
    job = captioned.job(root, folder, captioned.COCA, name="lab", steps=4, held_out=0.5)
    pairs_stage.run(job=job, root=root, base=root, device="cpu")
    curve = pd.read_csv(root / "teachers/lab/curve.csv").iloc[-1]
    return {str(k): float(v) for k, v in curve.items()}


def measures(kind: str) -> Callable[[Path], Numbers]:
    def make(folder: Path) -> Numbers:
        results = Results(folder, MEASURED[kind])
        results.add("student", 0.3)
        results.add("other", 1.0)
        results.evaluate()
        found: Numbers = {}
        for name in ("metrics", "comparisons"):
            table = pd.read_csv(folder / "evaluation" / "task" / f"{name}.csv")
            means = table.select_dtypes("number").mean()
            found |= {f"{name} {key}": float(v) for key, v in means.items() if np.isfinite(v)}
        return found

    return make


def model(kind: Mapping[str, Any], task: Mapping[str, Any], name: str) -> Golden:
    """A model trained for two epochs on cases of random features."""
    spec = TypeAdapter(ModelConfig).validate_python(
        kind if kind["kind"] == "linear" or "faithful" in kind else {"d_model": 8, **kind}
    )
    target = TypeAdapter(TaskConfig).validate_python(task)
    cfg = TrainingConfig.model_validate({"epochs": 2, "batch_size": 6, "precision": "fp32"})

    def make(folder: Path) -> Numbers:
        results_folder(folder)
        training_stage.run(
            cfg=cfg,
            model_name="model",
            model=spec,
            task_name=name,
            task=target,
            root=folder,
            versions="",
            workers=1,
            device="cpu",
        )
        table = pd.read_parquet(folder / "models" / name / "model" / "predictions.parquet")
        numbers = table.select_dtypes("number").drop(columns=["seed", "fold"])
        return {
            f"{column} {of}": float(getattr(values, of)())
            for column, values in numbers.items()
            for of in ("mean", "std")
        }

    return Golden(stage_versions.training(cfg, spec, target, []), make, 2e-2)


def aggregator(name: str) -> Callable[[Path], Numbers]:
    """Outputs of fixed weights for fixed bags, and what its weights learn from them."""

    def make(folder: Path) -> Numbers:
        torch.manual_seed(0)
        network = build_aggregator(name, 8, 3).eval()
        x = torch.randn(2, 30, 8)
        mask = torch.arange(30).expand(2, 30) >= torch.tensor([[30], [20]])
        out = network(x, mask).out
        out.square().sum().backward()
        learned = [p.grad.square().sum() for p in network.parameters() if p.grad is not None]
        return {
            **{f"{i}": float(value) for i, value in enumerate(out.detach().flatten())},
            "gradient": float(torch.stack(learned).sum().sqrt()),
        }

    return make


def loss(name: str, kind: str) -> Callable[[Path], Numbers]:
    """The loss of fixed outputs, and its gradient."""

    def make(folder: Path) -> Numbers:
        cases = write_cases(folder, n=20)
        task = TypeAdapter(TaskConfig).validate_python({**TASK_OF[kind], "loss": name})
        labels = read_labels(cases, "t", task)
        head = fit_head(task, labels, np.arange(20))
        torch.manual_seed(0)
        out = torch.randn(20, head.outputs, requires_grad=True)
        value = head.loss(out, torch.from_numpy(head.targets(labels)))
        value.backward()
        assert out.grad is not None
        return {"loss": value.item(), "gradient": float(out.grad.norm())}

    return make


def distillation(entry: Entry) -> Callable[[Path], Numbers]:
    """What fixed features cost, and the gradient."""

    def make(folder: Path) -> Numbers:
        torch.manual_seed(0)
        student, target = torch.randn(2, 5, 3, 4)
        student.requires_grad_()
        cost = entry.load()(student, target, torch.tensor([4, 4, 4]))
        cost.sum().backward()
        assert student.grad is not None
        return {"loss": cost.sum().item(), "gradient": student.grad.norm().item()}

    return make


def _of(values: torch.Tensor, what: str) -> float:
    return float(getattr(values, what)())


TASK_OF = {
    "survival": {"type": "survival", "time": "time", "event": "event"},
    "classification": {"type": "classification", "label": "subtype"},
    "regression": {"type": "regression", "targets": ["score"]},
}
COX = {"type": "survival", "time": "time", "event": "event", "loss": "cox"}
NLL = {"type": "survival", "time": "time", "event": "event", "loss": "nll"}
KIND = {"type": "classification", "label": "kind"}
SCORE = {"type": "regression", "targets": ["score"]}
LINEAR = TypeAdapter(ModelConfig).validate_python({"kind": "linear"})
STACKED = EnsembleModel(kind="ensemble", of=("good", "fair"), covariates=("age",))


def stacked(kind: str) -> Callable[[Path], Numbers]:
    """An ensemble of two models with a covariate."""

    def make(folder: Path) -> Numbers:
        made = stacking.house(folder, kind, age=60 + 5 * np.sin(np.arange(150)))
        table = stacking.stack(made, STACKED, age="auto")
        numbers = table.select_dtypes("number").drop(columns=["seed", "fold"])
        return {f"{name} {of}": _number(v, of) for name, v in numbers.items() for of in ENDS}

    return make


def _number(values: pd.Series, of: str) -> float:
    return float(getattr(values, of)())


ENDS = ("mean", "std")


def unseen(folder: Path) -> Numbers:
    """What a linear model says of cases that it has not seen."""
    results_folder(folder)
    table = stacking.predicted(folder, {"kind": "linear"}, "time")
    return {f"risk {of}": _number(table["risk"], of) for of in ENDS}


MODELS: dict[str, Golden] = {
    "model single": model({"kind": "single", "teacher": "deep"}, COX, "time"),
    "model concat": model({"kind": "concat"}, COX, "time"),
    "model mean": model({"kind": "mean"}, COX, "time"),
    "model linear": model({"kind": "linear"}, COX, "time"),
    "model shazam_v1": model({"kind": "shazam_v1"}, COX, "time"),
    "model shazam_v2": model({"kind": "shazam_v2"}, SCORE, "score"),
    "model shazam_v1 faithful": model({"kind": "shazam_v1", "faithful": True}, KIND, "kind"),
    "model shazam_v2 faithful": model({"kind": "shazam_v2", "faithful": True}, NLL, "time"),
    "task classification": model({"kind": "single", "teacher": "deep"}, KIND, "kind"),
    "task regression": model({"kind": "single", "teacher": "deep"}, SCORE, "score"),
}
GOLDEN: dict[str, Golden] = {
    "painting": Golden({"painting": version_of("pipeline.cohort.synthetic.painting")}, painting),
    "tiling": Golden(stage_versions.stage("tiling"), tiling, 1e-2),
    "extraction": Golden(
        {"extraction": version_of("pipeline.extraction.stage")}, extraction, 1e-2
    ),
    **{
        f"slide_encoders {name}": Golden(
            stage_versions.slide_encoders(name, TeacherConfig.model_validate(SLIDES)),
            slide_encoders(name),
            1e-2,
        )
        for name in ENCODED
    },
    "mapping": Golden(stage_versions.stage("mapping"), mapping, 0),
    "folds": Golden(stage_versions.stage("folds"), folds, 0),
    "probing": Golden(stage_versions.stage("probing"), probes, 1e-2),
    "robustness": Golden(
        stage_versions.robustness("t", TeacherConfig.model_validate(TINY)), robust, 1e-2
    ),
    "pretraining": Golden(stage_versions.pretraining(PRETRAINED), pretrained, 2e-2),
    "vision_language": Golden(stage_versions.stage("vision_language"), words, 1e-2),
    "encoder_distillation": Golden(
        stage_versions.stage("encoder_distillation"), small_encoder, 2e-2
    ),
    "pairs": Golden(stage_versions.stage("pairs"), pairs, 2e-2),
    **MODELS,
    "out of fold": Golden(
        stage_versions.out_of_fold(
            TrainingConfig(), LINEAR, TypeAdapter(TaskConfig).validate_python(COX), []
        ),
        unseen,
        2e-2,
    ),
    **{
        f"stacking {kind}": Golden(stage_versions.stacking(task), stacked(kind), 1e-2)
        for kind, task in MEASURED.items()
    },
    **{
        f"aggregator {name}": Golden(
            {name: versions_in(entry.module).get("", 1)}, aggregator(name)
        )
        for name, entry in aggregators().items()
    },
    **{
        f"loss {name}": Golden({name: versions_in(entry.module).get("", 1)}, loss(name, entry.task))
        for name, entry in entries(LOSSES).items()
    },
    **{
        f"distillation {name}": Golden(
            {name: versions_in(entry.module).get("", 1)}, distillation(entry)
        )
        for name, entry in distillation_losses().items()
    },
    **{
        f"evaluation {kind}": Golden(stage_versions.evaluation(task), measures(kind))
        for kind, task in MEASURED.items()
    },
}  # fmt: skip
