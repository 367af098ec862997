"""Covariates as columns."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.contracts.covariates import Column, read_covariates
from pipeline.linear.design import fit_design

CASES = [f"c{i}" for i in range(6)]
TABLE = {
    "case_id": CASES,
    "age": [50, 60, 70, None, 80, 90],
    "stage": ["I", "II", None, "II", "I", "III"],
}
TRAIN = CASES[:5]


@pytest.fixture
def columns() -> list[Column]:
    return read_covariates(TABLE, {"age": "auto", "stage": "auto"})


def test_columns_are_those_that_training_cases_tell_apart(columns: list[Column]) -> None:
    design = fit_design(columns, TRAIN)
    assert design.names == ("age", "age: missing", "stage: I", "stage: II", "stage: missing")


def test_a_number_is_standardised_and_a_missing_one_is_the_median(columns: list[Column]) -> None:
    design = fit_design(columns, TRAIN)
    x = design(columns, CASES)
    given = np.array([50, 60, 70, 65, 80])
    np.testing.assert_allclose(x[:5, 0], (given - given.mean()) / given.std())
    np.testing.assert_allclose(x[:5, 1], np.array([0, 0, 0, 1, 0]) - 0.2)
    assert x[5, 0] == pytest.approx((90 - given.mean()) / given.std())


def test_a_level_that_no_training_case_has_says_nothing(columns: list[Column]) -> None:
    design = fit_design(columns, TRAIN)
    x = design(columns, CASES)
    np.testing.assert_allclose(x[5, 2:], -np.array([0.4, 0.4, 0.2]))
    np.testing.assert_allclose(x[:5].mean(0), 0, atol=1e-12)


def test_test_cases_decide_nothing(columns: list[Column]) -> None:
    other = {**TABLE, "age": [*TABLE["age"][:5], 1000]}
    changed = read_covariates(other, {"age": "auto", "stage": "auto"})
    np.testing.assert_array_equal(
        fit_design(columns, TRAIN)(columns, TRAIN), fit_design(changed, TRAIN)(changed, TRAIN)
    )


def test_a_covariate_that_is_constant_in_training_is_left_out(columns: list[Column]) -> None:
    design = fit_design(columns, ["c1", "c3"])  # both of stage II, one without an age
    assert design.names == ("age: missing",)
    assert design(columns, CASES).shape == (6, 1)
