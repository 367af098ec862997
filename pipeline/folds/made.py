"""Making folds: grouped, stratified, seeded, and the same for any order of the rows.

Cases that stand for themselves are dealt out by scikit-learn's `StratifiedKFold`. For sites it has
`StratifiedGroupKFold`, which balances classes alone and leaves the folds of unequal sites small,
poor in events or empty; here whole sites are dealt many times and the most even deal is kept.
"""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.model_selection import StratifiedKFold

from pipeline.config.folds import FoldsConfig
from pipeline.contracts.folds import Fold
from pipeline.errors import UserError
from pipeline.folds.units import Units

_DRAWS = 200


def make_folds(units: Units, cfg: FoldsConfig) -> list[Fold]:
    """`cfg.k` folds whose test parts partition the cases.

    Raises:
        UserError: there are fewer cases, sites, events or members of a class than folds, or fewer
            than three sites to be train, validation and test.
    """
    least = cfg.k if units.labels.label is not None else cfg.k + 1
    _check_counts(units, cfg, "folds.k", cfg.k, max(cfg.k, 3), least)
    grouped = cfg.group_by == "site"
    deal = _grouped_tests if grouped else _tests
    tests = deal(units, cfg.k, cfg.seed)
    folds = []
    for k, test in enumerate(tests):
        rest = np.setdiff1d(np.arange(len(units.cases)), test)
        seed = [cfg.seed, k]
        if grouped:
            val = _grouped_validation(units, rest, cfg.validation_fraction, seed)
        else:
            val = _validation(units, rest, cfg.validation_fraction, seed)
        train = np.setdiff1d(rest, val)
        train_ids, val_ids, test_ids = (
            tuple(str(case) for case in units.cases[np.sort(rows)]) for rows in (train, val, test)
        )
        folds.append(Fold(k, train_ids, val_ids, test_ids))
    return folds


def make_inner(units: Units, fold: Fold, cfg: FoldsConfig) -> tuple[tuple[str, ...], ...]:
    """`cfg.inner` parts of what a fold may learn from (train and validation), for nested
    cross-validation: stratified and grouped as the folds are, and without its test cases.

    Args:
        units: the cases, grouped as the folds are.
        fold: the fold whose training and validation cases are divided.
        cfg: the folds section.

    Raises:
        UserError: there are too few cases, sites, events or members of a class for so many parts.
    """
    assert cfg.inner is not None
    shared = set(fold.test) & {*fold.train, *fold.val}
    if shared:
        raise UserError(
            f"folds.inner: fold {fold.index} of the task {units.name} tests {len(shared)} cases "
            "that it also learns from; nested cross-validation needs folds that are disjoint"
        )
    learned = units.take([*fold.train, *fold.val])
    _check_counts(learned, cfg, "folds.inner", cfg.inner, cfg.inner, cfg.inner)
    deal = _grouped_tests if cfg.group_by == "site" else _tests
    parts = deal(learned, cfg.inner, cfg.seed + 1 + fold.index)
    for part in parts:
        if any(not (learned.strata[part] == stratum).any() for stratum in units.must):
            raise UserError(
                f"folds.inner is {cfg.inner}, but a part of fold {fold.index} of the task "
                f"{units.name} would have no event. Lower folds.inner"
            )
    return tuple(tuple(str(case) for case in learned.cases[np.sort(part)]) for part in parts)


def _check_counts(
    units: Units, cfg: FoldsConfig, key: str, k: int, least_groups: int, least_members: int
) -> None:
    n_groups = len(np.unique(units.groups))
    what = "cases" if cfg.group_by == "case" else "sites"
    if n_groups < least_groups:
        raise UserError(
            f"{key} is {k}, but the task {units.name} has only {n_groups} {what} to split "
            f"(at least {least_groups} are needed). Lower {key}"
            + (", or use folds.group_by: case" if what == "sites" else "")
        )
    needed = range(len(units.strata_names)) if units.labels.label is not None else units.must
    for stratum in needed:
        members = int((units.strata == stratum).sum())
        if members < least_members:
            kind = "class " if units.labels.label is not None else ""
            raise UserError(
                f"{key} is {k}, but the task {units.name} has only {members} case(s) with "
                f"{kind}`{units.strata_names[stratum]}`; at least {least_members} are needed. "
                f"Lower {key}, or leave the {kind or 'task '}out"
            )


def _tests(units: Units, k: int, seed: int) -> list[np.ndarray]:
    splitter = StratifiedKFold(k, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A rare stratum that only balances the folds (a bin, the censored) need not be in each.
        warnings.filterwarnings("ignore", message="The least populated class")
        return [test for _, test in splitter.split(units.cases, _fitting(units, k))]


def _fitting(units: Units, k: int) -> np.ndarray:
    """The strata, of a regression in as few bins as it takes for one to have a case per fold.

    `StratifiedKFold` refuses strata that all have fewer members than there are folds.
    """
    bins = len(units.strata_names)
    if units.labels.targets is None:
        return units.strata
    for fewer in range(bins, 1, -1):
        cut = units.strata * fewer // bins
        if np.bincount(cut).max() >= k:
            return cut
    return np.zeros_like(units.strata)


def _validation(units: Units, rows: np.ndarray, fraction: float, seed: list[int]) -> np.ndarray:
    """A stratified draw of `fraction` of `rows`.

    Shares are rounded by largest remainder; events, and classes of two or more, are in both parts,
    which `train_test_split` does not promise.
    """
    rng = np.random.default_rng(seed)
    strata = units.strata[rows]
    values, counts = np.unique(strata, return_counts=True)
    share = counts * fraction
    take = np.floor(share).astype(int)
    short = max(1, round(len(rows) * fraction)) - int(take.sum())
    take[np.argsort(take - share, kind="stable")[: max(0, short)]] += 1
    needed = np.isin(values, units.must) | (units.labels.label is not None)
    take = np.clip(take, needed & (counts > 1), np.maximum(counts - 1, 0))
    chosen = [
        rng.permutation(rows[strata == value])[:n] for value, n in zip(values, take, strict=True)
    ]
    return np.concatenate(chosen)


def _grouped_tests(units: Units, k: int, seed: int) -> list[np.ndarray]:
    """Whole sites dealt to `k` folds: of many greedy deals the most even one.

    A deal takes the sites from big to small, in an order that is jittered again each time, and
    gives each to the fold that is poorest in what the site brings.
    """
    rng = np.random.default_rng(seed)
    everything = np.arange(len(units.cases))
    names, site = np.unique(units.groups.astype(str), return_inverse=True)
    brings = np.zeros((len(names), len(units.strata_names)))
    np.add.at(brings, (site, units.strata), 1)
    weighted = brings / np.maximum(brings.sum(axis=0), 1)
    best, least = [everything[:0]] * k, np.inf
    for _ in range(_DRAWS):
        order = np.argsort(-brings.sum(axis=1) * rng.lognormal(sigma=0.2, size=len(names)))
        fold_of = np.zeros(len(names), dtype=int)
        totals = np.zeros((k, brings.shape[1]))
        for group in order:
            fold_of[group] = np.argmin(totals @ weighted[group] + 1e-9 * totals.sum(axis=1))
            totals[fold_of[group]] += brings[group]
        tests = [everything[fold_of[site] == i] for i in range(k)]
        if all(len(test) for test in tests):
            score = max(_unevenness(units, test, everything, 1 / k) for test in tests)
            if score < least:
                best, least = tests, score
    return best


def _grouped_validation(
    units: Units, rest: np.ndarray, fraction: float, seed: list[int]
) -> np.ndarray:
    """Whole sites of about `fraction` of `rest`: of many random draws the most even one."""
    rng = np.random.default_rng(seed)
    names, site = np.unique(units.groups[rest].astype(str), return_inverse=True)
    sizes = np.bincount(site)
    best, least = rest[:0], np.inf
    for _ in range(_DRAWS):
        order = rng.permutation(len(names))
        taken = np.cumsum(sizes[order])[:-1]
        if not len(taken):
            break
        n = int(np.argmin(np.abs(taken - fraction * len(rest)))) + 1
        rows = rest[np.isin(site, order[:n])]
        score = _unevenness(units, rows, rest, fraction)
        if score < least:
            best, least = rows, score
    return best


def _unevenness(units: Units, rows: np.ndarray, pool: np.ndarray, fraction: float) -> float:
    """How far a part is from its share of a pool's cases and strata; much more when one lacks."""
    n = len(units.strata_names)
    counts = np.bincount(units.strata[rows], minlength=n)
    available = np.bincount(units.strata[pool], minlength=n)
    wanted = available * fraction
    score = abs(len(rows) / (fraction * len(pool)) - 1)
    score += float(np.max(np.abs(counts - wanted) / np.maximum(wanted, 1)))
    lacks = sum(counts[stratum] == 0 for stratum in units.must)
    lacks += int(((available > 0) & (available == counts)).sum())
    return score + 100.0 * float(lacks)
