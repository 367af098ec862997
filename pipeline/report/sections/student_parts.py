"""What the student's prediction is made of: the share of its network and of each of its probes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.contracts.model_meta import read_metas
from pipeline.report.results import Results
from pipeline.report.tables.cells import Cell, Column, Table, number, text

PROBES = {
    "together": "linear probe of all teachers together",
    "prototypes": "linear probe of the composition by kinds of tissue",
}


def table(results: Results, task: str, student: str) -> Table | None:
    """A row for each part, means over folds and seeds; None for a student without probes.

    The network has `share` of the prediction. The probes have the rest, divided by how much the
    predictions of each vary over cases after weighting: a probe that weighs nothing has 0 %.

    Args:
        results: the opened results.
        task: the task's name.
        student: the student's name.
    """
    found = [
        meta.network
        for meta in read_metas(results.root / "models" / task / student)
        if "anchor" in meta.network
    ]
    if not found:
        return None
    shares = [_shares(network, results.teachers) for network in found]
    names = sorted(shares[0], key=lambda name: -float(np.mean([one[name] for one in shares])))
    rows = [_row(name, [one[name] for one in shares], found) for name in names]
    return Table(
        caption="What the student's prediction is made of",
        columns=[
            Column("part"),
            Column("share", True, "of the prediction, mean over folds and seeds"),
            Column("used in", True, "trainings in which the part has any weight"),
            Column("evidence", True, "log-likelihood of a teacher's own probe on training cases "
                   "that it had not seen, less that of a constant"),
        ],
        rows=rows,
        read="The student adds the output of its network and the outputs of linear probes on its "
        "teachers. Predictions for training cases that a probe had not seen decide the probes' "
        "weights; the validation cases decide how much the network adds.",
        source=(f"models/{task}/{student}/fold_*/seed_*/meta.json",),
    )  # fmt: skip


def _shares(network: Mapping[str, Any], teachers: Sequence[str]) -> dict[str, float]:
    """Share of the prediction of each part of one training; they sum to 1."""
    rest = 1.0 - float(network["share"])
    parts = network["anchor"].get("parts", {})
    kinds = _portions({name: float(parts.get(name, 0.0)) for name in ("apart", *PROBES)})
    probes = network["anchor"]["teachers"]
    own = _portions({name: float(probes.get(name, {}).get("spread", 0.0)) for name in teachers})
    return {
        "network": float(network["share"]) if any(kinds.values()) else 1.0,
        **{label: rest * kinds[name] for name, label in PROBES.items()},
        **{name: rest * kinds["apart"] * portion for name, portion in own.items()},
    }


def _portions(sizes: Mapping[str, float]) -> dict[str, float]:
    total = sum(sizes.values())
    return {name: size / total if total > 0 else 0.0 for name, size in sizes.items()}


def _row(name: str, shares: Sequence[float], networks: Sequence[Mapping[str, Any]]) -> list[Cell]:
    probes = [network["anchor"]["teachers"].get(name) for network in networks]
    evidence = [float(probe["evidence"]) for probe in probes if probe]
    return [
        text(f"linear probe of {name}" if evidence else name),
        number(100 * float(np.mean(shares)), 0, "%"),
        text(f"{sum(share > 0 for share in shares)} of {len(shares)}"),
        number(float(np.mean(evidence)) if evidence else None, 1),
    ]
