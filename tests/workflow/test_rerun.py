"""The rerun contract: exactly what becomes stale, and why."""

from __future__ import annotations

import copy
import json
import os
import re
import time

import pytest
from house import REPOSITORY, House

TEACHERS = ("resnet10t", "vit_tiny")
MODELS = ("single_resnet10t", "single_vit_tiny", "shazam_v2")
TILING = {f"tiling[chunk={c}]" for c in (0, 1)}
EXTRACTION = {t: {f"extraction[chunk={c},teacher={t}]" for c in (0, 1)} for t in TEACHERS}
CHECKS = {t: {f"extraction_check[teacher={t}]"} for t in TEACHERS}
PROBING = {t: {f"probing[probed={t}]"} for t in TEACHERS}
TRAINING = {f"training[model={m},task=survival]" for m in MODELS}
EVALUATION = {"evaluation[task=survival]", "report"}
AFTER_FEATURES = {"mapping", "mapping_check", "folds[task=survival]"} | TRAINING | EVALUATION
AFTER_TILES = set().union(*EXTRACTION.values(), *PROBING.values())
AFTER_TILES |= AFTER_FEATURES | {"tiling_overview"}


def changed(house: House, path: str, value: object) -> None:
    config = copy.deepcopy(house.config())
    node = config
    *parents, last = path.split(".")
    for part in parents:
        node = node.setdefault(part, {})
    node[last] = value
    house.write_config(config)


def test_nothing_reruns_after_a_full_run(finished: House) -> None:
    assert finished.planned() == {}


def test_comments_docs_profiles_and_the_order_of_keys_rerun_nothing(house: House) -> None:
    for file in ("pipeline/tiling/stage.py", "pipeline/training/stage.py"):
        path = house.path / file
        path.write_text(path.read_text() + "\n# a remark\n")
    (house.path / "README.md").write_text("Read me.")
    (house.path / "profiles" / "local" / "profile.yaml").write_text("cores: 1\n")
    config = house.config()
    house.write_config({key: config[key] for key in reversed(list(config))})
    assert house.planned() == {}


def test_another_profile_reruns_nothing(finished: House) -> None:
    """It changes threads and GPUs in the commands, and no result."""
    done = finished.run("-n", "--workflow-profile", "profiles/local-gpu")
    assert "Nothing to be done" in done.stdout + done.stderr


def test_a_clone_reruns_nothing(house: House) -> None:
    """A checkout gives every source file a new time; only their content counts."""
    now = time.time()
    for folder in ("pipeline", "workflow", "envs", "config"):
        for path in (house.path / folder).rglob("*"):
            os.utime(path, (now, now))
    assert house.planned() == {}


CASES = {
    "tiling config": ("tiling.min_tissue_fraction", 0.5, TILING | AFTER_TILES, TILING),
    "one teacher": (
        "extraction.teachers.vit_tiny.seed",
        9,
        CHECKS["vit_tiny"] | EXTRACTION["vit_tiny"] | PROBING["vit_tiny"] | AFTER_FEATURES,
        CHECKS["vit_tiny"],  # what follows from a job is not asked for its own params
    ),
    "probing": (
        "probing.seed",
        5,
        set().union(*PROBING.values()) | {"report"},
        set().union(*PROBING.values()),
    ),
    "fold seed": (
        "folds.seed",
        5,
        {"folds[task=survival]"} | TRAINING | EVALUATION,
        {"folds[task=survival]"},
    ),
    "training": ("training.epochs", 4, TRAINING | EVALUATION, TRAINING),
    "one model": (
        "training.models.shazam_v2.layers",
        2,
        {"training[model=shazam_v2,task=survival]"} | EVALUATION,
        {"training[model=shazam_v2,task=survival]"},
    ),
    "evaluation": ("evaluation.bootstraps", 60, EVALUATION, {"evaluation[task=survival]"}),
    "report": ("report.title", "Other", {"report"}, {"report"}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_config_change_reruns_its_stage_and_what_follows(house: House, name: str) -> None:
    key, value, expected, because_of_params = CASES[name]
    changed(house, key, value)
    planned = house.planned()
    planned_without_report = {job for job in planned if job != "report"}
    assert planned_without_report == expected - {"report"}
    assert "report" in planned
    assert {job for job, why in planned.items() if "params" in why} - {"report"} == (
        because_of_params - {"report"}
    )


TEACHER_IN = "pipeline/encoders/registry.yaml"
NEW_TEACHER = """
  a_new_one:
    title: A new one
    loader: timm
    arch: vit_small_patch16_224
    hf_id: owner/new
    pooling: {cls: 384}
    crop: 224
    interp: bicubic
    stats: imagenet
    mpp: [0.5]
    tokens: 1
    patch: 16
    depth: 12
    taps: [3, 7]
    params: 1
    licence: MIT
    gated: false
"""
NEW_AGGREGATOR = """
from torch import Tensor

from pipeline.aggregators.pool import MeanPool
from pipeline.config.registry import register

VERSION = 1


@register("new_pool")
class NewPool(MeanPool):
    '''A new one.

    Source: nobody.
    '''

    def __init__(self, dim: int, out: int) -> None:
        super().__init__(dim, out, dropout=0.0)
"""

# What an upgrade may bring: file -> (old, new) text; nothing is to be replaced in a new file.
HARMLESS = {
    "a reworded message": {
        "pipeline/errors.py": ("; did you mean `", "; do you mean `"),
        "pipeline/runtime/machine_errors.py": ("the disk is full", "no space is left"),
    },
    "another annotation": {
        "pipeline/slides/grid.py": ("import annotations", "import annotations\n\nPlain = object")
    },
    "a new teacher's row": {TEACHER_IN: ("models:\n", f"models:\n{NEW_TEACHER}")},
    "another word in a row": {TEACHER_IN: ("title: UNI\n", "title: UNI (2024)\n")},
    "a new layout": {
        "pipeline/encoders/checkpoint_layouts.py": (
            '    "swin": 1,',
            '    "swin": 1,\n    "new": 1,',
        )
    },
    "a new aggregator": {"pipeline/aggregators/new_pool.py": ("", NEW_AGGREGATOR)},
    "a new key": {
        "pipeline/config/extraction.py": (
            "    seed: int = 0\n",
            "    seed: int = 0\n    new: int = 3\n",
        ),
        "pipeline/config/training.py": (
            "class TrainingConfig(Section):\n",
            "class TrainingConfig(Section):\n    new: int = 3\n",
        ),
        "pipeline/config/tiling.py": (
            "class TilingConfig(Section):\n",
            "class TilingConfig(Section):\n    new: int = 3\n",
        ),
    },
    "another measure's code": {
        "pipeline/evaluation/metrics.py": ("import annotations", "import annotations\n\nADDED = 1")
    },
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_changes_no_number_reruns_nothing(house: House, name: str) -> None:
    for file, (old, new) in HARMLESS[name].items():
        if old:
            house.edit(file, old, new)
        else:
            (house.path / file).write_text(new)
    assert house.planned() == {}


def raised(file: str, name: str = "") -> tuple[str, str, str]:
    """An edit that raises the version of a module, or of one of the things that it holds."""
    path = f"pipeline/{file}.py"
    start = f'"{name}": ' if name else "VERSION = "
    [number] = re.findall(rf"^\s*{re.escape(start)}(\d+)", (REPOSITORY / path).read_text(), re.M)
    return (path, f"{start}{number}", f"{start}{int(number) + 1}")


VERSIONS = {
    "the cohort's slides": (
        raised("cohort/synthetic/painting"),
        {"cohort", "cohort_chunk[chunk=0]", "cohort_chunk[chunk=1]"} | TILING | AFTER_TILES,
    ),
    "tiling": (raised("tiling/stage"), TILING | AFTER_TILES),
    "extraction": (raised("extraction/stage"), AFTER_TILES - {"tiling_overview"}),
    "mapping": (raised("mapping/stage"), AFTER_FEATURES),
    "probing": (raised("probing/stage"), set().union(*PROBING.values()) | {"report"}),
    "folds": (raised("folds/stage"), {"folds[task=survival]"} | TRAINING | EVALUATION),
    "training": (raised("training/stage"), TRAINING | EVALUATION),
    "evaluation": (raised("evaluation/stage"), EVALUATION),
    "report": (raised("report/stage"), {"report"}),
    "one aggregator": (
        raised("aggregators/abmil"),
        {"training[model=single_resnet10t,task=survival]"}
        | {"training[model=single_vit_tiny,task=survival]"}
        | EVALUATION,
    ),
    "one student": (
        raised("distillation/shazam_v2"),
        {"training[model=shazam_v2,task=survival]"} | EVALUATION,
    ),
    "one loss": (raised("training/losses/cox"), TRAINING | EVALUATION),
    "another aggregator": (raised("aggregators/transmil"), set()),
    "another loss": (raised("training/losses/nll"), set()),
    "another type of task": (raised("training/regression"), set()),
    "another layout": (raised("encoders/checkpoint_layouts", "hf_vit"), set()),
    "another loader": (raised("encoders/remote"), set()),
}


@pytest.mark.parametrize("name", VERSIONS)
def test_a_raised_version_reruns_what_it_is_about_and_what_follows(house: House, name: str) -> None:
    edit, expected = VERSIONS[name]
    house.edit(*edit)
    planned = house.planned()
    assert set(planned) == expected
    whys = set().union(*planned.values()) if planned else set()
    assert not planned or "params" in whys


def test_one_new_slide_reruns_its_chunk_and_computes_only_itself(house: House) -> None:
    config = house.config()
    config["cohort"]["synthetic"]["cases"] += 1
    house.write_config(config)
    results = house.path / "results" / "tiny"
    before = {p: p.stat().st_mtime_ns for p in results.glob("tiles/*.h5")}
    before |= {p: p.stat().st_mtime_ns for p in results.glob("features/*/*.h5")}
    planned = set(house.planned())
    tiling = planned & TILING
    assert len(tiling) == 1, "a new slide touches one chunk"
    chunk = next(iter(tiling)).removeprefix("tiling[chunk=").removesuffix("]")
    assert planned == (
        {"cohort", f"cohort_chunk[chunk={chunk}]", f"tiling[chunk={chunk}]", "tiling_overview"}
        | {f"extraction[chunk={chunk},teacher={t}]" for t in TEACHERS}
        | set().union(*PROBING.values())
        | AFTER_FEATURES
    )
    teacher = TEACHERS[0]
    house.run("--cores", "2", f"results/tiny/features/{teacher}/manifest/{chunk}.json")
    again = {p for p, at in before.items() if p.stat().st_mtime_ns != at}
    assert not again, f"finished slides were computed again: {sorted(again)}"
    new = {p.stem for p in results.glob("tiles/*.h5")} - {
        p.stem for p in before if p.parent.name == "tiles"
    }
    assert len(new) == 1
    assert (results / "features" / teacher / f"{next(iter(new))}.h5").is_file()


def test_a_lost_manifest_is_rebuilt_from_the_finished_slides(house: House) -> None:
    results = house.path / "results" / "tiny"
    manifest = results / "tiles" / "manifest" / "0.json"
    content = manifest.read_bytes()
    times = {p: p.stat().st_mtime_ns for p in results.glob("tiles/*.h5")}
    manifest.unlink()
    house.run("--cores", "2", str(manifest.relative_to(house.path)))
    assert manifest.read_bytes() == content
    assert {p: p.stat().st_mtime_ns for p in results.glob("tiles/*.h5")} == times


def test_a_damaged_feature_file_is_made_again(house: House) -> None:
    results = house.path / "results" / "tiny"
    manifest = results / "features" / "resnet10t" / "manifest" / "0.json"
    slides = json.loads(manifest.read_text())["slides"]
    victim = results / next(s["path"] for s in slides if s["status"] == "ok")
    whole = victim.stat().st_size
    victim.write_bytes(victim.read_bytes()[: whole // 2])
    manifest.unlink()
    house.run("--cores", "2", str(manifest.relative_to(house.path)))
    assert victim.stat().st_size == whole


def test_manifests_hold_no_times_or_paths_of_this_machine(finished: House) -> None:
    for manifest in (finished.path / "results" / "tiny").rglob("manifest/*.json"):
        text = manifest.read_text()
        json.loads(text)
        assert str(finished.path) not in text
