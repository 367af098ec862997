"""From the models that a config names to those that are trained."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config.reading import parse
from pipeline.config.whole import Config
from pipeline.errors import ConfigError

TEACHERS = {t: {"source": "import", "path": f"/features/{t}"} for t in "ab"}


def config(models: dict[str, Any], student: str = "v2", **cohort: Any) -> Config:
    return parse(
        {
            "cohort": cohort,
            "extraction": {"teachers": TEACHERS},
            "tasks": {"t": {"type": "survival", "time": "time", "event": "event"}},
            "training": {"models": {"v2": {"kind": "shazam_v2"}, **models}},
            "evaluation": {"student": student},
        }
    )


def test_an_ensemble_is_of_all_that_a_name_stands_for() -> None:
    models = {"linear": {"kind": "linear", "teacher": "each"},
              "both": {"kind": "ensemble", "of": ["v2", "linear"]}}  # fmt: skip
    assert config(models).model_specs()["both"].of == ("v2", "linear_a", "linear_b")


def test_a_model_with_covariates_is_an_ensemble_of_the_same_without() -> None:
    clinical = {"kind": "linear", "covariates": ["age"]}
    alone = config({"clinical": clinical}, covariates=["age"]).model_specs()
    assert alone["clinical"].of == ("clinical_alone",)
    assert alone["clinical"].covariates == ("age",)
    assert alone["clinical_alone"].kind == "linear"
    both = config({"plain": {"kind": "linear"}, "clinical": clinical}, covariates=["age"])
    assert both.model_specs()["clinical"].of == ("plain",)
    assert "clinical_alone" not in both.model_specs()


def test_covariates_of_the_cohort_bring_their_model_and_the_student_with_them() -> None:
    made = config({}, covariates={"age": "number", "sex": "category"})
    found, specs = made.controls(), made.model_specs(ablations=False)
    assert (found.covariates, found.with_covariates) == ("covariates", "v2_with_covariates")
    assert specs["covariates"].covariates == ("age", "sex")
    assert specs["v2_with_covariates"].of == ("v2",)
    assert config({}).controls().covariates == ""


def test_an_ensemble_is_taken_apart_member_by_member() -> None:
    models = {"linear": {"kind": "linear", "teacher": "each"},
              "both": {"kind": "ensemble", "of": ["v2", "linear"]}}  # fmt: skip
    made = config(models, "both")
    specs, found = made.model_specs(), made.controls()
    assert found.alone == {"a": "both_on_a", "b": "both_on_b"}
    assert specs["both_on_a"].of == ("v2_on_a", "linear_a")
    assert specs["v2_on_a"].drop_teachers == ("b",)
    assert found.without_distillation == ""


@pytest.mark.parametrize(
    ("models", "says"),
    [
        ({"e": {"kind": "ensemble", "of": ["v3"]}}, "ensemble of `v3`, which is no model"),
        ({"e": {"kind": "ensemble", "of": []}}, "of"),
        ({"e": {"kind": "ensemble", "of": ["v2"]}, "f": {"kind": "ensemble", "of": ["e"]}},
         "which is a regression on other models"),
        ({"e": {"kind": "linear", "covariates": ["aeg"]}}, "`aeg`, which is not in"),
        ({"c": {"kind": "linear", "covariates": ["age"]}, "c_alone": {"kind": "concat"}},
         "is called `c_alone`"),
    ],
)  # fmt: skip
def test_names_that_mean_nothing_are_refused(models: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config(models, covariates=["age"])


def test_a_model_of_covariates_needs_some() -> None:
    with pytest.raises(ConfigError, match=r"cohort.covariates names none"):
        config({"c": {"kind": "covariates"}})
