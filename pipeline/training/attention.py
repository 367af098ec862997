"""Where the model looked, and what that did: attention and influence of tiles, of a few cases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.aggregators.network import Network
from pipeline.bags.files import read_coords
from pipeline.bags.store import Store, gather, whole
from pipeline.files.parquet import read_columns
from pipeline.training.head import Head
from pipeline.training.influence import influences

COLUMNS = ("case_id", "slide_id", "teacher", "level", "x", "y", "score", "influence")


def extremes(score: np.ndarray, count: int) -> np.ndarray:
    """Rows of the highest and the lowest scores, half and half, highest first: int64."""
    order = np.argsort(-score, kind="stable")
    if len(order) <= count:
        return order
    top = (count + 1) // 2
    return np.concatenate([order[:top], order[len(order) - (count - top) :]])


def slide_names(root: Path) -> dict[tuple[str, str], str]:
    """(teacher, file as in the mapping) -> slide id, from coverage.parquet."""
    table = read_columns(root / "coverage.parquet", ("slide_id", "teacher", "path"))
    rows = zip(table["teacher"], table["path"], table["slide_id"], strict=True)
    return {(teacher, str(root / path)): slide for teacher, path, slide in rows if path}


def attention_table(
    network: Network,
    head: Head,
    store: Store,
    cases: np.ndarray,
    limit: int | None,
    slides: Mapping[tuple[str, str], str],
) -> dict[str, np.ndarray]:
    """One row per tile, teacher and level of the given cases, where coordinates are known.

    Args:
        network: a trained network.
        head: of its task.
        store: the bags.
        cases: case numbers.
        limit: most tiles per bag.
        slides: as `slide_names` makes it.

    Returns:
        columns COLUMNS. Scores of one case, teacher and level sum to 1 over its tiles. What
        `influences` says of a tile is the sum over its teachers and levels.
    """
    network.eval()
    rows: list[dict[str, np.ndarray]] = []
    for case in cases.tolist():
        batch = gather(store, whole(store, [case], limit))
        attention, influence = influences(network, head.lead, batch)
        for t in sorted({t for t, _ in attention}):
            index = store.teachers[t]
            if not index.sizes[case]:
                continue
            name, xy = places(store, t, case, slides)
            used = batch.rows[t][0].numpy()
            known = xy[used, 0] >= 0
            for level in (level for s, level in attention if s == t):
                score = attention[t, level][0].float().cpu().numpy()
                felt = influence[t, level][0].cpu().numpy()
                n = int(known.sum())
                rows.append(
                    {
                        "case_id": np.full(n, store.cases[case], dtype=object),
                        "slide_id": name[used][known],
                        "teacher": np.full(n, index.name, dtype=object),
                        "level": np.full(n, level, dtype=object),
                        "x": xy[used, 0][known],
                        "y": xy[used, 1][known],
                        "score": score[known].astype(np.float32),
                        "influence": felt[known].astype(np.float32),
                    }
                )
    empty: dict[str, np.ndarray] = {
        **{k: np.zeros(0, dtype=object) for k in COLUMNS[:4]},
        "x": np.zeros(0, np.int32),
        "y": np.zeros(0, np.int32),
        "score": np.zeros(0, np.float32),
        "influence": np.zeros(0, np.float32),
    }
    return {name: np.concatenate([part[name] for part in [empty, *rows]]) for name in COLUMNS}


def places(
    store: Store, teacher: int, case: int, slides: Mapping[tuple[str, str], str]
) -> tuple[np.ndarray, np.ndarray]:
    """Where the tiles of a bag are.

    Args:
        store: the bags.
        teacher: number of the teacher.
        case: number of the case.
        slides: as `slide_names` makes it.

    Returns:
        slide names (N,), and level-0 coordinates int32 (N, 2); -1 where unknown.
    """
    index = store.teachers[teacher]
    names, places = [], []
    for file in index.files[case]:
        slide = slides.get((index.name, str(file.path)), Path(file.path).stem)
        names.append(np.full(file.n_tiles, slide, dtype=object))
        coords = read_coords(file)
        unknown = np.full((file.n_tiles, 2), -1, dtype=np.int32)
        places.append(unknown if coords is None else coords.astype(np.int32))
    return np.concatenate(names), np.concatenate(places)
