"""What the student leans on: what each teacher alone proved to know, and the weight it got."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.report.results import Results
from pipeline.report.tables.cells import DASH, Cell, Column, Table, number, text

BESIDE = {
    "apart": "the teachers' own have",
    "together": "those that read all teachers together",
    "prototypes": "one that reads how much of a case is of which kind of tissue",
}


def table(results: Results, task: str, student: str) -> Table | None:
    """A row a teacher, means over folds and seeds; None for a student without fallback."""
    found = [
        network
        for path in sorted(
            (results.root / "models" / task / student).glob("fold_*/seed_*/meta.json")
        )
        if "anchor" in (network := _network(path))
    ]
    if not found:
        return None
    probes = [network["anchor"]["teachers"] for network in found]
    spreads = {name: [_of(p, name, "spread") for p in probes] for name in results.teachers}
    total = sum(float(np.mean(values)) for values in spreads.values())
    rows = [
        [
            text(teacher),
            _mean([_of(p, teacher, "evidence") for p in probes], 1),
            number(float(np.mean(spreads[teacher])) / total if total > 0 else None, 2),
            text(f"{sum(v > 0 for v in spreads[teacher])} of {len(probes)}"),
        ]
        for teacher in sorted(results.teachers, key=lambda name: -float(np.mean(spreads[name])))
    ]
    beside = sorted({name for n in found for name, w in _beside(n).items() if w > 0})
    lent = f" It also leans on what probes say of {', '.join(beside)}." if beside else ""
    share = float(np.mean([network["share"] for network in found]))
    return Table(
        caption="What the student leans on",
        columns=[
            Column("teacher"),
            Column("evidence", True, "gain in log-likelihood over a constant, of predictions by "
                   "probes that had not seen the case; mean ± standard deviation"),
            Column("part", True, "of what the weighted probes say"),
            Column("used in", True, "trainings that give its probe any weight"),
        ],
        rows=rows,
        read=f"Before it learns, the student fits a linear probe to each teacher and weighs the "
        f"probes by what they predict of training cases that they have not seen; a teacher that "
        f"proves nothing gets nothing.{_others(found)} The network then has {share:.0%} of the "
        f"prediction and the probes the rest, as the validation cases decide.{lent}",
        source=(f"models/{task}/{student}/fold_*/seed_*/meta.json",),
    )  # fmt: skip


def _network(path: Path) -> Mapping[str, Any]:
    try:
        return dict(json.loads(path.read_text()).get("network", {}))
    except (OSError, ValueError):
        return {}


def _others(networks: Sequence[Mapping[str, Any]]) -> str:
    """What stands beside the teachers' own probes, in a sentence."""
    parts = [network["anchor"].get("parts", {}) for network in networks]
    spreads = {name: float(np.mean([part.get(name, 0.0) for part in parts])) for name in BESIDE}
    total = sum(spreads.values())
    if not total or spreads["apart"] == total:
        return ""
    said = [f"{what} {spreads[name] / total:.0%}" for name, what in BESIDE.items() if spreads[name]]
    return f" Of what all probes say {', '.join(said)}."


def _beside(network: Mapping[str, Any]) -> Mapping[str, float]:
    """The weight of each other endpoint."""
    return dict(network["anchor"].get("beside", {}))


def _of(probes: Mapping[str, Mapping[str, float]], teacher: str, key: str) -> float:
    """A fact of a teacher's probe; 0 where too few cases had the teacher for one."""
    return float(probes.get(teacher, {}).get(key, 0.0))


def _mean(values: Sequence[float], digits: int) -> Cell:
    mean, deviation = float(np.mean(values)), float(np.std(values))
    shown = number(mean, digits)
    if shown.html == DASH:
        return shown
    return Cell(text(f"{shown.html} ± {deviation:.{digits}f}").html, mean)
