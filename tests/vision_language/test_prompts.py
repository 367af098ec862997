"""Class weights against plain arithmetic, and draws of words."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.vision_language import prompts

CLASSES = {"glandular": ("glands", "ducts"), "nested": ("nests",)}
TEMPLATES = ("{}", "a slide of {}.", "{} are seen")


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def test_prompts_are_every_synonym_in_every_template() -> None:
    found = prompts.prompts(CLASSES, TEMPLATES)
    assert found[:3] == ["glands", "a slide of glands.", "glands are seen"]
    assert found[3] == "ducts" and found[-1] == "nests are seen"
    assert len(found) == 9


def test_weights_are_means_scaled_to_length_one() -> None:
    vectors = unit(np.random.default_rng(0).normal(size=(9, 5))).astype(np.float32)
    parts = prompts.by_class(CLASSES, TEMPLATES, vectors)
    found = prompts.ensemble(parts, list(CLASSES))
    wanted = unit(np.stack([vectors[:6].astype(float).mean(0), vectors[6:].astype(float).mean(0)]))
    np.testing.assert_allclose(found, wanted, atol=1e-7)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_a_draw_uses_its_words_alone() -> None:
    vectors = unit(np.random.default_rng(0).normal(size=(9, 5))).astype(np.float32)
    parts = prompts.by_class(CLASSES, TEMPLATES, vectors)
    found = prompts.drawn(parts, prompts.Draw((1, 0), (0, 2)), list(CLASSES))
    wanted = unit(np.stack([vectors[[3, 5]].mean(0), vectors[[6, 8]].mean(0)]))
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_draws_are_seeded_and_vary() -> None:
    one = prompts.draws((3, 2), 5, 40, seed=7)
    assert one == prompts.draws((3, 2), 5, 40, seed=7)
    assert one != prompts.draws((3, 2), 5, 40, seed=8)
    assert {len(draw.templates) for draw in one} == {1, 2, 3, 4, 5}
    assert {draw.synonyms[0] for draw in one} == {0, 1, 2}
    assert all(len(set(d.templates)) == len(d.templates) for d in one)


def test_words_that_cancel_are_refused() -> None:
    opposite = np.array([[[1.0, 0.0]], [[-1.0, 0.0]]])
    with pytest.raises(UserError, match="class `a` cancel"):
        prompts.ensemble([opposite, np.ones((1, 1, 2))], ["a", "b"])
