"""Stages of a tiny cohort as the workflow runs them, each with faults at will."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.config.models import STACKS
from pipeline.config.pairs import PairsConfig
from pipeline.config.reading import parse
from pipeline.config.whole import Config
from pipeline.encoders.slide_level.inputs import slide_teachers, tile_teachers
from pipeline.encoders.speaking import speaking
from pipeline.plan import cohort_plan, encoder_jobs, stage_params

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
ORDERS = struct.Struct("iiiill4096s")

OPEN_WRITE, WRITE, RENAME, REMOVE, SYNC, MKDIR, READ, LOOK, LOCK = (1 << i for i in range(9))
CHANGES = OPEN_WRITE | WRITE | RENAME | REMOVE | SYNC | MKDIR
COUNT, KILL, KILL_GROUP = 0, -1, -2

NAME = "tiny"
TASK = "survival"
CONFIG: dict[str, Any] = {
    "cohort": {
        "name": NAME,
        "chunks": 4,
        "synthetic": {
            "cases": 12,
            "slide_px": [512, 600],
            "censoring": 0.2,
            "broken_slides": False,
            "two_slide_fraction": 0,
            "pen_fraction": 0,
        },
    },
    "tiling": {"tile_px": 112, "target_mpp": 1.0, "min_tissue_fraction": 0.2},
    "extraction": {
        "teachers": {
            "tiny": {
                "source": "timm",
                "model": "resnet10t",
                "weights": "random",
                "input_px": 32,
            },
            "slides": {
                "source": "slide",
                "model": "hipt_vit4k",
                "weights": "random",
                "input": "tiny",
            },
        }
    },
    "mapping": {"max_failed_fraction": 0.5},
    "pretraining": {
        "teachers": {
            "own": {
                "method": "clusiam",
                "encoder": {
                    "source": "timm",
                    "model": "resnet10t",
                    "weights": "random",
                    "input_px": 32,
                },
                "control": False,
                "projection": 8,
                "hidden": 8,
                "clusters": 4,
                "maps": 1,
                "alarms": {"then": "go_on"},
                "course": {
                    "steps": 4,
                    "batch_size": 8,
                    "tiles_per_visit": 4,
                    "validate_every": 2,
                    "held_out_tiles": 8,
                },
            }
        }
    },
    "encoder_distillation": {
        "students": {
            "small": {
                "encoder": {
                    "source": "timm",
                    "model": "resnet10t",
                    "weights": "random",
                    "input_px": 32,
                },
                "pool": "all",
                "control": False,
                "head_width": 8,
                "course": {
                    "steps": 4,
                    "batch_size": 8,
                    "tiles_per_visit": 4,
                    "validate_every": 2,
                    "held_out_tiles": 8,
                },
            }
        }
    },
    "tasks": {TASK: {"type": "survival", "time": "time", "event": "event", "loss": "cox"}},
    "folds": {"k": 2, "validation_fraction": 0.4},
    "training": {
        "models": {
            "single": {"kind": "single", "teacher": "tiny", "d_model": 8},
            "linear": {"kind": "linear", "teacher": "tiny"},
        },
        "epochs": 2,
    },
    "evaluation": {"student": "single", "bootstraps": 50},
    "report": {"thumbnails": 2},
}

# What the cohort above lacks: words, a model that learned them, and an ensemble.
MODEL = "words.json"
SMALL_CLIP = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 8, "patch_size": 8, "head_width": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
}
CLIP = {"source": "open_clip", "model": MODEL, "weights": "random"}
FURTHER: dict[str, Any] = {
    "cohort": {
        **CONFIG["cohort"],
        "chunks": 1,
        "synthetic": {**CONFIG["cohort"]["synthetic"], "cases": 36},
    },
    "extraction": {"teachers": {"clip": CLIP}},
    "pretraining": None,
    "encoder_distillation": None,
    "pairs": {
        "name": "lab",
        "start": CLIP,
        "course": {
            "steps": 4,
            "batch_size": 8,
            "tiles_per_visit": 4,
            "validate_every": 2,
            "held_out_tiles": 8,
        },
    },
    "vision_language": {
        "prompts": {
            "subtype": {"glandular": "glands", "nested": "solid nests", "trabecular": "cords"}
        },
        "templates": ["{}", "tissue with {}"],
        "draws": 3,
        "shots": [1],
        "episodes": 2,
        "maps": 1,
        "tissue": {"tumour": "glands", "stroma": "stroma"},
        "captions": "embedded",
    },
    "tasks": {"subtype": {"type": "classification", "label": "subtype"}},
    "folds": {"k": 2, "validation_fraction": 0.2},
    "training": {
        "models": {
            "single": {"kind": "single", "teacher": "clip", "d_model": 8},
            "linear": {"kind": "linear", "teacher": "clip"},
            "together": {"kind": "ensemble", "of": ["single", "linear"]},
        },
        "epochs": 2,
    },
}


@dataclasses.dataclass(frozen=True)
class Fault:
    """What goes wrong, and where.

    Attributes:
        calls: the kinds of system calls that count.
        below: the folder whose files they touch.
        action: COUNT, KILL, KILL_GROUP or an error number.
        at: the call that it happens at, from 1.
        lasting: whether every later call fails too.
    """

    calls: int
    below: Path
    action: int = COUNT
    at: int = 0
    lasting: bool = False


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a stage ended: its exit code (negative: a signal), what it said, the calls it made, and
    whether a worker outlived it."""

    code: int
    said: str
    calls: int
    lingering: bool


class Warm:
    """A process with everything imported that forks a child for each stage."""

    def __init__(self, folder: Path, library: Path) -> None:
        self._orders = folder / "orders"
        self._orders.write_bytes(bytes(ORDERS.size))
        self._log = folder / "log"
        environment = os.environ | {
            "LD_PRELOAD": str(library),
            "FAULTS": str(self._orders),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(REPOSITORY),
            "MPLCONFIGDIR": str(folder),
        }
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "warm.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=folder,
        )
        assert self._read() == {"ready": True}

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process that runs the stages died"
        return dict(json.loads(line))

    def run(self, argv: list[str], cwd: Path, fault: Fault | None = None) -> Ended:
        """Run one stage to its end."""
        self._order(fault)
        assert self._process.stdin is not None
        order = {"argv": argv, "cwd": str(cwd), "log": str(self._log)}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        calls = ORDERS.unpack(self._orders.read_bytes())[5]
        self._order(None)
        said = self._log.read_text(errors="replace") if self._log.exists() else ""
        return Ended(answer["code"], said, calls, answer["lingering"])

    def _order(self, fault: Fault | None) -> None:
        packed = bytes(ORDERS.size)
        if fault is not None:
            below = str(fault.below.resolve()).encode()
            packed = ORDERS.pack(
                fault.calls, fault.action, int(fault.lasting), 0, fault.at, 0, below
            )
        with self._orders.open("r+b") as file:
            file.write(packed)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


def everything(folder: Path, changes: dict[str, Any] | None = None) -> dict[str, list[str]]:
    """All jobs in an order that works; those of further chunks are called `<name>#<chunk>`, of
    further models `<name>#<model>`."""
    with contextlib.chdir(folder):
        config = parse({**CONFIG, **(changes or {})})
        cohort = cohort_plan.cohort_plan(config, Path.cwd())
    return dict(_jobs(config, cohort))


def _jobs(config: Config, cohort: cohort_plan.CohortPlan) -> Iterator[tuple[str, list[str]]]:
    root = ["--root", f"results/{config.cohort.name}"]
    results = Path(root[1])

    def each(name: str) -> Iterator[tuple[str, int, list[str]]]:
        for number, chunk in enumerate(cohort.chunks):
            yield (f"{name}#{chunk}" if number else name), chunk, ["--chunk", str(chunk)]

    for name, chunk, part in each("cohort_chunk"):
        drawn = config.cohort.source == "synthetic"
        cfg = stage_params.chunk(
            config, cohort.table(chunk), cohort.cases_until(chunk) if drawn else 12
        )
        out = ["--out", str(results / f"slides/{chunk}.parquet")]
        yield name, ["cohort", "chunk", "--cfg", cfg.canonical(), *part, *out]
    cfg = stage_params.of("cohort", config, sheet=cohort.sheet())
    yield "cohort", ["cohort", "check", "--cfg", cfg.canonical(), *root]
    for name, chunk, part in each("tiling"):
        cfg = stage_params.tiling(config, cohort.digest(chunk))
        out = ["--out", str(results / f"tiles/manifest/{chunk}.json")]
        yield name, ["tiling", "--cfg", cfg.canonical(), *root, *part, *out]
    yield "tiling_overview", ["tiling-overview", *root]
    for teacher, facts in tile_teachers(config).items():
        if facts.source != "import":
            out = ["--out", str(results / f"features/{teacher}/check.json")]
            cfg = stage_params.check(config, teacher)
            yield "extraction_check", ["extraction-check", "--cfg", cfg.canonical(), *out]
        for name, chunk, part in each("extraction" if facts.source != "import" else "import"):
            imported = facts.source == "import"
            digest = cohort.imported(teacher, chunk) if imported else cohort.digest(chunk)
            cfg = stage_params.extraction(config, teacher, digest)
            out = ["--out", str(results / f"features/{teacher}/manifest/{chunk}.json")]
            yield name, ["extraction", "--cfg", cfg.canonical(), *root, *part, *out]
    for teacher in slide_teachers(config):
        out = ["--out", str(results / f"features/{teacher}/check.json")]
        cfg = stage_params.check(config, teacher).canonical()
        yield "slide_encoders_check", ["extraction-check", "--cfg", cfg, *out]
        for name, chunk, part in each("slide_encoders"):
            cfg = stage_params.slide_encoders(config, teacher).canonical()
            out = ["--out", str(results / f"features/{teacher}/manifest/{chunk}.json")]
            named = ["--teacher", teacher]
            yield name, ["slide-encoders", "--cfg", cfg, *root, *named, *part, *out]
    for name in ("mapping", "mapping-check"):
        argv = [name, "--cfg", stage_params.mapping(config).canonical(), *root]
        yield name.replace("-", "_"), argv
    task = next(iter(config.tasks))
    cfg = stage_params.folds(config, task, cohort.folds())
    yield "folds", ["folds", "--cfg", cfg.canonical(), *root, "--task", task]
    if config.section(PairsConfig) is not None:
        cfg = stage_params.pairs(config, "", cohort.digest(0))
        yield "pairs", ["pairs", "--cfg", cfg.canonical(), *root]
    for teacher in speaking(config):
        cfg = stage_params.vision_language(config, teacher)
        argv = ["vision-language", "--cfg", cfg.canonical(), *root, "--teacher", teacher]
        yield "vision_language", argv
    for made in config.made():
        named = ["--teacher", made.name]
        if made.stage == "pretraining":
            cfg = encoder_jobs.pretraining(config, made.name).canonical()
        else:
            cfg = encoder_jobs.told(config, made.name).canonical()
        yield made.stage, [made.stage.replace("_", "-"), "--cfg", cfg, *root, *named]
        folder = results / "features" / made.name
        cfg = stage_params.check(config.with_made(), made.name).canonical()
        out = ["--out", str(folder / "check.json")]
        yield f"extraction_check#{made.name}", ["extraction-check", "--cfg", cfg, *out]
        for name, chunk, part in each("extraction"):
            of = stage_params.extraction(config.with_made(), made.name, cohort.digest(chunk))
            out = ["--out", str(folder / "manifest" / f"{chunk}.json")]
            argv = ["extraction", "--cfg", of.canonical(), *root, *part, *out]
            yield f"{name}#{made.name}", argv
    specs = config.model_specs()
    ensembles = [model for model, spec in specs.items() if spec.kind in STACKS]
    together = config.linear_models()
    if together:
        cfg = stage_params.linear_models(config, task).canonical()
        yield "training_linear", ["training-linear", "--cfg", cfg, *root, "--task", task]
    for number, model in enumerate(model for model in specs if model not in ensembles):
        suffix = f"#{model}" if number else ""
        told = ["--task", task, "--model", model]
        cfg = stage_params.training(config, task, model).canonical()
        if model not in together:
            yield f"training{suffix}", ["training", "--cfg", cfg, *root, *told]
        if ensembles:
            yield f"out_of_fold{suffix}", ["out-of-fold", "--cfg", cfg, *root, *told]
    for model in ensembles:
        cfg = stage_params.stacking(config, task, model).canonical()
        told = ["--task", task, "--model", model]
        yield "stacking", ["stacking", "--cfg", cfg, *root, *told]
    cfg = stage_params.evaluation(config, task)
    yield "evaluation", ["evaluation", "--cfg", cfg.canonical(), *root, "--task", task]
    yield "report", ["report", "--cfg", stage_params.report(config).canonical(), *root]


@dataclasses.dataclass(frozen=True)
class Cohort:
    """A cohort that ran to its end.

    Attributes:
        path: its working folder.
        made: job -> the files that it wrote, below the folder.
        attempts: names of the records of its jobs' attempts, of which the report tells.
    """

    path: Path
    made: dict[str, tuple[str, ...]]
    attempts: frozenset[str]

    @property
    def results(self) -> Path:
        return self.path / "results" / NAME

    def copy(self, target: Path) -> Cohort:
        return dataclasses.replace(self, path=copy(self.path, target))

    def undo(self, job: str) -> None:
        """Take away what a job made, and what a killed one left."""
        for name in self.made[job]:
            (self.path / name).unlink(missing_ok=True)
        self.forget_attempts()

    def forget_attempts(self) -> None:
        """Take away the records of attempts that came later."""
        for path in (self.results / "jobs").rglob("*.json"):
            if path.name not in self.attempts:
                path.unlink()


def build(warm: Warm, folder: Path, changes: dict[str, Any] | None = None) -> Cohort:
    """Run every stage, undisturbed."""
    folder.mkdir(parents=True)
    (folder / MODEL).write_text(json.dumps({"model_cfg": SMALL_CLIP}))
    made: dict[str, tuple[str, ...]] = {}
    before = _times(folder)
    for name, argv in everything(folder, changes).items():
        ended = warm.run(argv, folder)
        assert ended.code == 0, f"{name}: {ended.said[-3000:]}"
        after = _times(folder)
        made[name] = tuple(path for path, time in after.items() if before.get(path) != time)
        before = after
    records = (folder / "results" / NAME / "jobs").rglob("*.json")
    return Cohort(folder, made, frozenset(path.name for path in records))


def _times(folder: Path) -> dict[str, int]:
    files = (path for path in folder.rglob("*") if path.is_file() and "jobs" not in path.parts)
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


def copy(source: Path, target: Path) -> Path:
    """A copy with the same file times."""
    shutil.copytree(source, target, copy_function=shutil.copy2, symlinks=True)
    return target


ERRORS = {name: getattr(errno, name) for name in ("ENOSPC", "EIO", "ESTALE", "EROFS", "EDQUOT")}
