"""What the ensemble weighed in each tile, and what each tile does to its prediction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from pipeline.bags.store import gather, whole
from pipeline.contracts.model_card import ModelCard
from pipeline.prediction.model_file import Model
from pipeline.prediction.stacks import OpenStore, Reader
from pipeline.training.attention import places
from pipeline.training.influence import influences
from pipeline.training.multitask import MultiHead


def tile_table(
    card: ModelCard,
    reader: Reader,
    open_store: OpenStore,
    best: int,
    slides: Mapping[tuple[str, str], str],
    limit: int | None,
) -> pd.DataFrame:
    """One row a tile, teacher and level of the one case in the store, means over the models.

    Args:
        card: of the file.
        reader: the ensemble, or those of its models that read the same teachers.
        open_store: teachers and dims -> the features of one case.
        best: number of the class that the ensemble predicts; influence is on its log odds.
        slides: (teacher, feature file) -> slide.
        limit: most tiles of the case.

    Returns:
        columns slide_id, teacher, level, x, y, score (NaN where the models weigh no tiles) and
        influence (NaN where they say none). The influence on a risk is in deviations of the
        training cases.
    """
    models, store = reader.models, open_store(reader.teachers, reader.dims)
    batch = gather(store, whole(store, [0], limit))
    weights: dict[tuple[int, str], np.ndarray] = {}
    felt: dict[tuple[int, str], np.ndarray] = {}
    for model in models:
        attention, slopes = influences(model.network, _lead(card, model, best), batch)
        for key, values in attention.items():
            part = values[0].float().cpu().numpy() / len(models)
            weights[key] = weights.get(key, 0.0) + part
        for key, values in slopes.items():
            scale = len(models) * model.member.score_deviation
            felt[key] = felt.get(key, 0.0) + values[0].cpu().numpy() / scale
    tables = []
    for (t, level), influence in felt.items():
        index = store.teachers[t]
        if not index.sizes[0]:
            continue
        names, xy = places(store, t, 0, slides)
        used = batch.rows[t][0].numpy()
        table = pd.DataFrame(
            {
                "slide_id": names[used],
                "teacher": index.name,
                "level": level,
                "x": xy[used, 0],
                "y": xy[used, 1],
                "score": weights.get((t, level), np.full(len(used), np.nan)),
                "influence": influence,
            }
        )
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The tables of models that read different teachers: what several say of a tile is added.

    Args:
        tables: as `tile_table` makes them, at least one.
    """
    if len(tables) == 1:
        return tables[0]
    keys = ["slide_id", "teacher", "level", "x", "y"]
    whole = pd.concat(tables, ignore_index=True)
    return whole.groupby(keys, sort=False, observed=True).sum(min_count=1).reset_index()


def one_scale(card: ModelCard, rows: pd.DataFrame) -> tuple[str, pd.DataFrame, list[str]]:
    """The rows of the teachers that see the same tiles as most, since a map has one tile size.

    Returns:
        the folder of those tiles, the rows, and the teachers left out.
    """
    of = {one.name: one.tiles for one in card.encoders if one.name in set(rows["teacher"])}
    counts = Counter(of.values())
    chosen = min(counts, key=lambda folder: (-counts[folder], folder))
    left = [teacher for teacher in of if of[teacher] != chosen]
    return chosen, rows[~rows["teacher"].isin(left)], left


def _lead(card: ModelCard, model: Model, best: int) -> Callable[[Tensor], Tensor]:
    """What influence is measured on: as the head says, but of the class of the whole ensemble."""
    if card.type != "classification":
        return model.head.lead
    count = model.head.main.outputs if isinstance(model.head, MultiHead) else model.head.outputs

    def log_odds(out: Tensor) -> Tensor:
        own = out[:, :count]
        others = [i for i in range(count) if i != best]
        return own[:, best] - own[:, others].logsumexp(dim=1)

    return log_odds
