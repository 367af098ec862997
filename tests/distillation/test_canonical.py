"""Canonical variates: what tells cases apart, whatever their tiles happen to show."""

from __future__ import annotations

import numpy as np

from pipeline.aggregators.network import Lesson, Shape
from pipeline.bags.scale import Scaler
from pipeline.bags.store import Store, gather, whole
from pipeline.distillation.anchor import Anchor
from pipeline.distillation.canonical import canonical_views
from pipeline.distillation.ground import Kind, View
from pipeline.distillation.probe import center, standardised
from pipeline.distillation.tiles import tile_groups
from tests.distillation.kinds import CASES, DIMS, REGRESSION, WIDTHS, store_of

READS = [(0, "high"), (1, "high")]
LEARNED = np.arange(40)
WIDTH = sum(WIDTHS)


def cohort(every: int = 1) -> tuple[Store, np.ndarray]:
    """A hidden state that is faint in every tile, where loud directions change from tile to tile.

    Args:
        every: the second teacher has seen every so manieth tile alone.

    Returns:
        the store and the state, (CASES,).
    """
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    loud = np.r_[0.05, 0.05, np.full(WIDTH - 2, 3.0)]
    state = rng.normal(size=(CASES, 2))
    made = []
    for own in state:
        tiles = rng.normal(size=(int(rng.integers(15, 40)), WIDTH)) * loud
        tiles[:, :2] += 0.3 * own
        made.append((tiles @ turn).astype(np.float32))
    features = [[np.split(x, [WIDTHS[0]], axis=1)[t] for x in made] for t in range(2)]
    features[1] = [tiles[::every] for tiles in features[1]]
    return store_of(features), state[:, 0]


def views(store: Store, absent: tuple[int, ...] = ()) -> list[View]:
    scaler = Scaler(DIMS)
    scaler.fit(store, LEARNED)
    z, has, deviations = {}, {}, {}
    for t in range(len(WIDTHS)):
        x = scaler.means(store, t, "high")[LEARNED]
        mean, deviations[t] = center(x)
        z[t], has[t] = standardised(x, mean, deviations[t]), np.ones(len(x), dtype=bool)
        if t == 1:
            has[t][list(absent)] = False
            z[t][list(absent)] = 0
    return canonical_views(z, has, deviations, tile_groups(store, LEARNED, scaler, READS, 0))


def told(view: View, state: np.ndarray) -> float:
    """How the best linear reading of a view agrees with the state."""
    weights = np.linalg.lstsq(view.leading, state[LEARNED], rcond=None)[0]
    return float(np.corrcoef(view.leading @ weights, state[LEARNED])[0, 1])


def test_the_states_of_the_cases_are_found_without_labels() -> None:
    store, state = cohort()
    (view,) = views(store)  # fewer features than the smallest of SIZES
    assert view.leading.shape[1] == 2  # as many as there are states
    assert told(view, state) > 0.95
    np.testing.assert_allclose(np.var(view.leading, axis=0, ddof=1), 1, rtol=1e-6)
    assert ((view.trust > 0.5) & (view.trust < 1)).all()


def test_where_cases_do_not_differ_nothing_stands_out() -> None:
    rng = np.random.default_rng(0)
    noise = [[rng.normal(size=(30, w)).astype(np.float32) for _ in range(CASES)] for w in WIDTHS]
    assert views(store_of(noise)) == []


def test_teachers_of_different_tiles_are_read_together_and_each_alone() -> None:
    store, state = cohort(every=2)
    found = views(store)
    assert [set(view.maps) for view in found] == [{0, 1}, {0}, {1}]
    assert told(found[0], state) > 0.7  # the loud directions hide more where tiles are not shared
    assert told(found[1], state) < 0.3  # as they do it in the first teacher


def test_a_teacher_of_one_feature_a_case_takes_no_part() -> None:
    assert [set(view.maps) for view in views(cohort(every=1000)[0])] == [{0}]


def test_a_case_without_a_teacher_neither_decides_nor_breaks_the_variates() -> None:
    store, _ = cohort()
    (whole_view,), (view,) = views(store), views(store, absent=(0, 1, 2))
    assert np.isfinite(view.leading).all()
    same = np.abs(np.corrcoef(whole_view.leading[3:].T, view.leading[3:].T)[:2, 2:])
    assert same.max(axis=1).min() > 0.9


def test_the_student_reads_the_variates() -> None:
    store, state = cohort()
    y = state[:, None].astype(np.float32)
    strata = np.zeros(len(LEARNED), np.int64)
    lesson = Lesson(store, LEARNED, y, strata, REGRESSION, True, 0)
    batch = gather(store, whole(store, list(range(CASES)), None))
    agreed = {}
    kinds: tuple[Kind, ...] = ("both", "all")
    for kind in kinds:
        scaler, anchor = Scaler(DIMS), Anchor(Shape(("t0", "t1"), DIMS, 1), ("high",), kind)
        scaler.fit(store, LEARNED)
        anchor.fit(lesson, scaler)
        said = anchor(scaler(batch), batch)[:, 0].numpy()
        unseen = np.arange(len(LEARNED), CASES)
        agreed[kind] = float(np.corrcoef(said[unseen], state[unseen])[0, 1])
    assert agreed["all"] > agreed["both"] + 0.05
    assert anchor.facts()["parts"]["together"] > anchor.facts()["parts"]["apart"]
