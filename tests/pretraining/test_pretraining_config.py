"""The section `pretraining` among the others: names of encoders, pools, and no other teacher."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.config.whole import Config
from pipeline.plan import encoder_jobs, stage_params

TASKS = {"os": {"type": "survival", "time": "t", "event": "e"},
         "grade": {"type": "classification", "label": "grade"}}  # fmt: skip


def config(**keys: Any) -> Config:
    pools = keys.pop("pools", ("training",))
    teachers = {f"own{i}": {"method": "simsiam", "pool": pool} for i, pool in enumerate(pools)}
    return Config.model_validate(
        {
            "pretraining": {"teachers": teachers},
            "extraction": {"teachers": {"other": {"source": "timm", "model": "x"}}},
            "tasks": TASKS,
            "folds": {"k": 2},
            "evaluation": {"attribution": False},
            **keys,
        }
    )


def test_names_say_which_encoders_have_seen_the_test_slides() -> None:
    found = {one.name: one.teacher for one in config(pools=("training", "all", "separate")).made()}
    per_fold = {f"own0.{task}.{fold}": "own0" for task in TASKS for fold in (0, 1)}
    assert {n: t for n, t in found.items() if n.startswith("own0.")} == per_fold
    assert set(found) - set(per_fold) == {
        "own0_untrained", "own1_transductive", "own1_untrained", "own2", "own2_untrained",
    }  # fmt: skip


def test_an_encoder_of_a_fold_is_told_which() -> None:
    found = config()
    job = encoder_jobs.pretraining(found, "own0.grade.1")
    assert (job.task, job.fold, job.control) == ("grade", 1, False)
    control = encoder_jobs.pretraining(found, "own0_untrained")
    assert (control.task, control.control) == ("", True)
    single = {"m": {"kind": "single", "teacher": "own0"}}
    found = config(training={"models": single}, evaluation={"student": "m", "attribution": False})
    assert encoder_jobs.read_by(found, "grade", "m") == {"own0": "own0.grade.{fold}"}


def test_an_encoder_for_each_fold_needs_folds() -> None:
    with pytest.raises(ValidationError, match=r"own0.pool: `training` makes an encoder for each"):
        config(tasks={})
    assert config().pooled_by_fold() == ["pretraining.teachers.own0"]


def test_without_other_teachers_ones_own_are_the_cohorts() -> None:
    own = config(extraction={}, pools=("all", "separate"))
    assert own.mapped() == ["own0_transductive", "own1"]
    job = stage_params.mapping(own)
    assert job.teachers == job.manifests == ["own0_transductive", "own1"] and job.tiled
    other = stage_params.mapping(config())
    assert other.teachers == ["other"]
    with pytest.raises(ValidationError, match="let pretraining make one that serves every fold"):
        config(extraction={})
