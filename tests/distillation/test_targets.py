"""Whitened targets."""

from __future__ import annotations

import numpy as np

from pipeline.distillation.targets import fit_whitening


def test_components_are_uncorrelated_with_unit_variance() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 12)) @ rng.normal(size=(12, 12)) * 50 + 7
    whitening = fit_whitening(x, explained=0.99)
    assert whitening is not None
    z = whitening(x)
    np.testing.assert_allclose(np.cov(z.T, bias=True), np.eye(z.shape[1]), atol=1e-8)


def test_a_large_unit_is_not_an_important_feature() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(80, 1))
    x = np.concatenate([shared + rng.normal(size=(80, 6)) * 0.1, rng.normal(size=(80, 1))], 1)
    plain = fit_whitening(x, explained=0.5)
    x[:, 6] *= 1e4
    scaled = fit_whitening(x, explained=0.5)
    assert plain is not None
    assert scaled is not None
    first = np.corrcoef(scaled(x)[:, 0], shared[:, 0])[0, 1]
    assert abs(first) > 0.98


def test_few_cases_give_few_components_and_too_few_give_none() -> None:
    rng = np.random.default_rng(0)
    whitening = fit_whitening(rng.normal(size=(12, 40)))
    assert whitening is not None
    assert whitening.basis.shape[1] <= 4
    assert fit_whitening(rng.normal(size=(3, 40))) is None
    assert fit_whitening(np.ones((20, 5))) is None
