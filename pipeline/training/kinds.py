"""Every kind of model in two lines: what it is, where it was published, its size and its cost."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator
from typing import Any

import torch
from pydantic import TypeAdapter
from torch.utils.flop_counter import FlopCounterMode

from pipeline.aggregators.network import Network, Shape, fitted_count, parameter_count
from pipeline.bags.batch import Batch
from pipeline.config.models import (
    CovariatesModel,
    EnsembleModel,
    FinetunedModel,
    LinearModel,
    ModelConfig,
    ShazamV1Model,
    ShazamV2Model,
    SingleModel,
    aggregators,
)
from pipeline.training.models import build_network

LEVELS = ("low", "mid", "high")
MEAN = "All teachers: the mean of one head per teacher, each with its own aggregator."
SOURCES = {
    "concat": "feature concatenation, the usual fusion of encoders",
    "mean": "averaging of models, e.g. Breiman 1996",
    "linear": "Hoerl & Kennard 1970 (ridge); Cox 1972, Verweij & van Houwelingen 1994 (survival)",
    "finetuned": "Xu et al. 2024 (Prov-GigaPath)",
    "ensemble": "Wolpert 1992; Breiman 1996, stacked regressions",
    "covariates": "Hoerl & Kennard 1970 (ridge); Cox 1972 (survival)",
    "shazam_v1": "Shazam, the published student of tiles",
    "shazam_v2": "Shazam, the published student of slides",
}
# GigaPath's own, whose size is that of any run; an example of what fine-tuning costs.
FINETUNED: dict[str, Any] = {
    "kind": "finetuned",
    "teacher": "t0",
    "encoder": {
        "teacher": "gigapath_slide",
        "row": "gigapath_slide",
        "settings": {"source": "slide", "weights": "random"},
    },
}
STACKED_KINDS = (
    ("ensemble", EnsembleModel, "parameters and cost of its members, and a weight each"),
    ("covariates", CovariatesModel, "a coefficient a column, no slide is read"),
)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of model.

    Attributes:
        name: its `kind`, with the aggregator of a single model.
        what: what it is.
        source: where it was published.
        learned: parameters that are trained, and those of a linear model.
        fitted: numbers that are fitted without gradients: means, deviations.
        gflop: of one prediction.
        cost: in words, of kinds whose numbers are those of others.
    """

    name: str
    what: str
    source: str
    learned: int
    fitted: int
    gflop: float
    cost: str = ""


def kinds(teachers: int, width: int, tiles: int) -> list[Kind]:
    """All kinds, with default settings, for a task with one output.

    Args:
        teachers: how many teachers there are; a single model reads one of them.
        width: of each teacher's features, at each of three levels.
        tiles: of the case whose prediction is counted.
    """
    return [
        *(
            _kind(name, what, source, config, teachers, width, tiles)
            for name, what, source, config in _known()
        ),
        *(
            Kind(kind, _summary(cls), SOURCES[kind], 0, 0, 0.0, cost)
            for kind, cls, cost in STACKED_KINDS
        ),
    ]


def table(found: list[Kind]) -> str:
    """The kinds as text, two lines of what each is and one of what it costs."""
    blocks = []
    for kind in found:
        numbers = kind.cost or (
            f"{kind.learned:,} parameters, {kind.fitted:,} fitted numbers, "
            f"{kind.gflop:.3g} GFLOP a prediction"
        )
        lines = textwrap.wrap(f"{kind.what} Source: {kind.source}.", 98)
        blocks.append(
            "\n".join([f"{kind.name}: {numbers}"]
                      + [f"  {line}" for line in lines])
        )  # fmt: skip
    return "\n".join(blocks)


def _known() -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Name, meaning, source and config of each kind."""
    one = _summary(SingleModel)
    for name, entry in aggregators().items():
        config = {"kind": "single", "teacher": "t0", "aggregator": name}
        what = f"{one} {entry.summary}" if name == "abmil" else entry.summary
        yield f"single, {name}", what, entry.source, config
    yield (
        "concat",
        "All teachers: pooled vectors side by side, one head.",
        SOURCES["concat"],
        {"kind": "concat"},
    )
    yield "mean", MEAN, SOURCES["mean"], {"kind": "mean"}
    yield "finetuned", _summary(FinetunedModel), SOURCES["finetuned"], FINETUNED
    for cls in (LinearModel, ShazamV1Model, ShazamV2Model):
        (name,) = cls.model_fields["kind"].annotation.__args__  # type: ignore[union-attr]
        yield name, _summary(cls), SOURCES[name], {"kind": name}


def _summary(cls: type) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((cls.__doc__ or "").split("\n\n")[0].split())


def _kind(
    name: str,
    what: str,
    source: str,
    config: dict[str, Any],
    teachers: int,
    width: int,
    tiles: int,
) -> Kind:
    model = TypeAdapter(ModelConfig).validate_python(config)
    levels = LEVELS if isinstance(model, ShazamV2Model) else ("high",)
    count = 1 if isinstance(model, SingleModel | FinetunedModel) else teachers
    names = tuple(f"t{t}" for t in range(count))
    network = build_network(model, Shape(names, ({level: width for level in levels},) * count, 1))
    return Kind(
        name,
        what,
        source.rstrip("."),
        parameter_count(network),
        fitted_count(network),
        _gflop(network, tiles),
    )


@torch.no_grad()
def _gflop(network: Network, tiles: int) -> float:
    """Of one case, as PyTorch counts matrix products: 2 a multiplication and addition."""
    dims = network.shape.dims
    batch = Batch(
        cases=torch.zeros(1, dtype=torch.int64),
        features=tuple({k: torch.zeros(1, tiles, d) for k, d in own.items()} for own in dims),
        masks=tuple(torch.zeros(1, tiles, dtype=torch.bool) for _ in dims),
        rows=tuple(torch.arange(tiles)[None] for _ in dims),
        present=torch.ones(1, len(dims), dtype=torch.bool),
    )
    with FlopCounterMode(display=False) as counter:
        network.eval()(batch)
    return counter.get_total_flops() / 1e9
