"""Feature files that stand apart from the rest of their teacher's."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.contracts.ledger import Record
from pipeline.mapping.likeness import unusual_features

RNG = np.random.default_rng(3)


def record(slide: str, norm: float = 30.0, offset: float = 0.0, negative: float = 0.5) -> Record:
    marks = {"norm": norm, "offset": offset, "negative": negative}
    return Record(slide, "extraction/a", "ok", facts={"marks": marks})


def usual(count: int, spread: float = 0.05) -> list[Record]:
    norms = 30 * np.exp(RNG.normal(0, spread, count))
    return [record(f"u{i:03d}", norm) for i, norm in enumerate(norms)]


def unusual(*records: Record) -> dict[str, str]:
    found = unusual_features({r.slide_id: r for r in records})
    assert {w.kind for w in found.values()} <= {"features_unusual"}
    return {slide: warning.text for slide, warning in found.items()}


@pytest.mark.parametrize("mark", [{"norm": 60.0}, {"norm": 5}, {"offset": 0.4}, {"negative": 0.0}])
@pytest.mark.parametrize("number", [1, 9])
def test_files_of_another_encoder_are_named(mark: dict[str, float], number: int) -> None:
    others = [record(f"x{i}", **mark) for i in range(number)]
    found = unusual(*usual(20), *others)
    assert set(found) == {r.slide_id for r in others}
    assert "in 20 of " in next(iter(found.values()))


def test_of_two_halves_all_marks_name_the_same() -> None:
    one = [record(f"a{i}", 30.0, 0.5, 0.9) for i in range(8)]
    other = [record(f"b{i}", 90.0, 0.0, 0.1) for i in range(8)]
    named = set(unusual(*one, *other))
    assert named in ({r.slide_id for r in one}, {r.slide_id for r in other})


def test_of_two_halves_one_is_named() -> None:
    others = [record(f"x{i}", 200.0 + i) for i in range(15)]
    assert len(unusual(*usual(15), *others)) == 15


@pytest.mark.parametrize("spread", [0.02, 0.3, 0.8])
def test_slides_that_differ_evenly_are_not_named(spread: float) -> None:
    """However wide they lie: few of a wide distribution are far from their neighbours."""
    assert len(unusual(*usual(200, spread))) <= 2


def test_what_cannot_be_compared_is_not_named() -> None:
    failed = Record("f", "extraction/a", "failed", "bad_features", "NaN")
    own = Record("o", "extraction/a", "ok", facts={"n_tiles": 3})
    assert unusual(*usual(3), record("x", 900.0)) == {}
    assert unusual(*usual(9), failed, own) == {}


def pointing(slide: str, direction: np.ndarray) -> Record:
    return Record(slide, "extraction/a", "ok", facts={"sketch": direction.tolist()})


def directions(count: int, common: np.ndarray, noise: float) -> list[np.ndarray]:
    found = [common + RNG.normal(0, noise, 32) / 32**0.5 for _ in range(count)]
    return [each / np.linalg.norm(each) for each in found]


def test_mean_vectors_that_point_elsewhere_are_named() -> None:
    """Two encoders whose vectors have the same length."""
    one, other = directions(2, np.zeros(32), 1.0)
    usual = [pointing(f"u{i}", d) for i, d in enumerate(directions(12, one, 0.4))]
    others = [pointing(f"x{i}", d) for i, d in enumerate(directions(12, other, 0.4))]
    found = unusual(*usual, *others[:3])
    assert set(found) == {"x0", "x1", "x2"} and "12 of 15 files" in found["x0"]
    assert len(unusual(*usual, *others)) == 12, "of two halves one"


def test_features_without_a_common_mean_point_anywhere() -> None:
    assert (
        unusual(*(pointing(f"u{i}", d) for i, d in enumerate(directions(60, np.zeros(32), 1))))
        == {}
    )
