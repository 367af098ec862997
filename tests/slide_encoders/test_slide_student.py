"""A smaller slide encoder: what it learns from, how alike it becomes, and that it is a teacher."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.bags.files import open_features, read_level
from pipeline.config.extraction import TeacherConfig
from pipeline.config.whole import Config
from pipeline.contracts import ledger
from pipeline.contracts.folds_summary import write_folds_summary
from pipeline.encoders import teachers
from pipeline.encoders.slide_level import registry
from pipeline.encoders.slide_level.registry import configured
from pipeline.errors import ConfigError, UserError
from pipeline.files.parquet import write_columns
from pipeline.plan import stage_params
from pipeline.slide_encoders import stage, student
from pipeline.slide_encoders.student import Plan
from tests.slide_encoders.test_slide_encoders_stage import House
from tests.training.conftest import folds_summary

FLASH = "gigapath_flash_slide"
PLAN = Plan(depth=1, width=16, heads=2, epochs=20, learning_rate=4e-3, batch=4, held_out=0.25)
CASES = 16


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    """A run with the vectors of a slide encoder of three blocks, for a slide of each case."""
    row = dataclasses.replace(
        registry.resolve(FLASH),
        kwargs={"width": 32, "depth": 3, "heads": 4},
        poolings={"mean": 32, "cls": 32},
        depth=3,
    )
    monkeypatch.setitem(registry.slide_models(), FLASH, row)
    return House(tmp_path, model=FLASH)


def filled(house: House) -> House:
    rng = np.random.default_rng(0)
    for i in range(CASES):
        side = int(rng.integers(2, 5))
        coords = np.array([(x, y) for y in range(side) for x in range(side)], np.int32) * 300
        house.slide(f"s{i}", coords, 6, shift=float(rng.normal()))
    house.run()
    names = [f"s{i}" for i in range(CASES)]
    write_columns(
        house.root / "slides.parquet",
        {"slide_id": names, "case_id": [f"c{i // 2 * 2}" for i in range(CASES)]},
    )
    return house


def make(house: House, **more: Any) -> dict[str, Any]:
    out = house.root / "teachers" / "small"
    plan = dataclasses.replace(PLAN, **more)
    student.run(root=house.root, teacher="slides", reads="tiles", out=out, plan=plan, device="cpu")
    return dict(json.loads((out / "facts.json").read_text()))


def test_it_comes_nearer_to_its_teacher_on_cases_it_has_not_seen(house: House) -> None:
    facts = make(filled(house))
    before, after = facts["agreement"]["before"], facts["agreement"]["after"]
    assert after["explained"] > max(0.5, before["explained"])
    assert after["cosine"] > before["cosine"]
    assert not set(facts["cases"]["learned"]) & set(facts["cases"]["held_out"])
    assert facts["slides"]["learned"] == 2 * len(facts["cases"]["learned"])
    assert facts["transductive"] and facts["parameters"]["student"] < 10_000


def test_the_same_seed_makes_the_same_encoder(house: House) -> None:
    filled(house)
    assert make(house, epochs=2) == make(house, epochs=2)
    assert make(house, epochs=2, seed=1) != make(house, epochs=2)


def test_it_is_a_slide_encoder_of_any_config(house: House) -> None:
    make(filled(house), epochs=2)
    folder = house.root / "teachers" / "small"
    given = TeacherConfig.model_validate({"source": "slide", "path": str(folder)})
    steps = {step.name: step for step in teachers.check_teacher("small", given)}
    assert all(step.ok is not False for step in steps.values()), steps
    row = configured("small", given)
    assert (row.input, row.dim, row.depth) == ("tiles", 16, 1)
    config = Config.model_validate(
        {
            "extraction": {
                "teachers": {
                    "tiles": {"source": "timm", "model": "resnet10t", "weights": "random"},
                    "small": given.model_dump(exclude_defaults=True),
                }
            }
        }
    )
    out = house.root / "features/small/manifest/0.json"
    job = stage_params.slide_encoders(config, "small")
    stage.run(job=job, root=house.root, teacher="small", chunk=0, out=out, device="cpu")
    records = ledger.read_manifest(out)
    assert len(records) == CASES and {r.status for r in records} == {"ok"}
    vector = read_level(open_features(house.root / records[0].path))
    assert vector.shape == (1, 16) and np.isfinite(vector).all()


def test_states_of_several_layers_are_learned_each_by_its_own(house: House) -> None:
    house.config.extraction.teachers["slides"].__dict__["layers"] = (1, 3)
    facts = make(filled(house), depth=2, epochs=2)
    assert facts["layers"] == {"teacher": [1, 3], "student": [1, 2]}


def test_with_a_fold_it_sees_that_folds_training_cases_alone(house: House) -> None:
    filled(house)
    folder = house.root / "folds" / "os"
    folder.mkdir(parents=True)
    cases = [f"c{i}" for i in range(0, CASES, 2)]
    for k in range(2):
        lines = [f"{c},{'test' if i % 2 == k else 'val' if i == 1 - k else 'train'}"
                 for i, c in enumerate(cases)]  # fmt: skip
        (folder / f"fold_{k}.csv").write_text("\n".join(["case_id,split", *lines]) + "\n")
    write_folds_summary(house.root, folds_summary("os"))
    with pytest.raises(UserError, match="too few cases"):  # three training cases
        make(house, task="os", fold=0)
    with pytest.raises(UserError, match=r"has folds \[0, 1\]"):
        make(house, task="os", fold=7)


@pytest.mark.parametrize(
    ("teacher", "says"),
    [
        ({"source": "slide", "path": "nowhere"}, "is no row of a slide encoder"),
        ({"source": "slide", "path": "x", "weights": "hub"}, "weights in that folder"),
    ],
)
def test_a_folder_that_is_none_is_refused(teacher: dict[str, Any], says: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=says):
        configured("small", TeacherConfig.model_validate(teacher))


def test_vectors_of_regions_are_refused(tmp_path: Path) -> None:
    house = filled(House(tmp_path))  # HIPT's, a vector for each region
    with pytest.raises(UserError, match="vectors of regions"):
        make(house)
