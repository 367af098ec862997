"""The attention of any case after the training: by the network that had not seen it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.bags.store import open_store
from pipeline.contracts.case_map import read_case_map
from pipeline.contracts.folds import PARTS, Fold, read_folds
from pipeline.errors import UserError, nearest
from pipeline.runtime import progress
from pipeline.training.attention import attention_table, slide_names
from pipeline.training.checkpoint import load_checkpoint
from pipeline.training.job import device_of

UNKNOWN = "none"  # the part of a case that no fold knows, as one without a label


@dataclasses.dataclass(frozen=True)
class Looked:
    """One case.

    Attributes:
        case: its id.
        fold: of the network.
        part: of the case in that fold: `test`, or `train` or `val` where no fold tests it (the
            network has then learned from it), or `none` where the folds do not know it.
        table: as `attention_table` makes it.
    """

    case: str
    fold: int
    part: str
    table: dict[str, np.ndarray]


def look(
    root: Path,
    task: str,
    model: str,
    cases: Sequence[str] | None,
    seed: int | None,
    limit: int | None,
    device: str,
) -> Iterator[Looked]:
    """The attention of cases, one after another, by the network of the fold that tests each.

    Args:
        root: the results folder.
        task, model: names.
        cases: case ids; None: all that have features.
        seed: of the training; None: the first there is.
        limit: most tiles a bag, spread evenly; None: all.
        device: `auto`, `cpu`, `cuda`, ….

    Raises:
        UserError: there is no such model, case or seed, or the model weighs no tiles.
        ArtifactError: a file is missing or damaged.
    """
    place = device_of(device)
    folder = root / "models" / task / model
    mapping = read_case_map(root)
    unknown = [case for case in cases or () if case not in mapping.cases]
    if unknown:
        raise UserError(
            f"case `{unknown[0]}` has no features{nearest(unknown[0], list(mapping.cases))}"
        )
    folds = read_folds(root, task)
    slides = slide_names(root)
    for fold, chosen in _dealt(folds, list(cases or sorted(mapping.cases))).items():
        network, head, meta = load_checkpoint(_trained(folder, fold, seed))
        network.to(place)
        levels = list(dict.fromkeys(level for dims in meta.dims for level in dims))
        named = [case for case, _ in chosen]
        store = open_store(mapping, root, meta.teachers, levels, named, place)
        for number, (case, part) in enumerate(progress.counted(chosen, f"cases of fold {fold}")):
            table = attention_table(network, head, store, np.array([number]), limit, slides)
            if not len(table["score"]):
                raise UserError(f"`{model}` gives no attention for case {case}: {_why(meta.model)}")
            yield Looked(case, fold, part, table)


def _why(model: Mapping[str, Any]) -> str:
    kind = model.get("aggregator", "")
    pooled = f"its aggregator `{kind}` weighs all tiles alike, or " if kind else ""
    return f"{pooled}the features carry no coordinates"


def _dealt(folds: Sequence[Fold], cases: Sequence[str]) -> dict[int, list[tuple[str, str]]]:
    """Fold -> (case, its part there); a case goes to the fold that tests it, else to the first."""
    tested = {case: fold.index for fold in reversed(folds) for case in fold.test}
    parts = {case: part for part in PARTS for case in folds[0].part(part)}
    dealt: dict[int, list[tuple[str, str]]] = {}
    for case in cases:
        fold = tested.get(case, folds[0].index)
        part = "test" if case in tested else parts.get(case, UNKNOWN)
        dealt.setdefault(fold, []).append((case, part))
    return dict(sorted(dealt.items()))


def _trained(folder: Path, fold: int, seed: int | None) -> Path:
    """The folder of a fold's training."""
    finished = [path.parent for path in (folder / f"fold_{fold}").glob("seed_*/meta.json")]
    there = sorted(finished, key=lambda path: int(path.name.removeprefix("seed_")))
    wanted = [path for path in there if seed is None or path.name == f"seed_{seed}"]
    if not wanted:
        of_seed = "" if seed is None else f" of seed {seed}"
        raise UserError(
            f"{folder}/fold_{fold}: no finished training{of_seed}; run the workflow first, or name "
            "another --task, --model or --seed"
        )
    return wanted[0]
