"""What is read from the files that register a class, and that dropping a file in is enough."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

import pipeline.aggregators
from pipeline.aggregators.build import build
from pipeline.config.models import aggregators
from pipeline.config.registry import Entry, entries

REPOSITORY = Path(__file__).resolve().parents[2]
GOOD = '''
    @register("gem", published=("power",))
    class GeM(Aggregator):
        """Generalised mean of each feature
        over the tiles.

        Source: Radenović, Tolias, Chum 2019,
        "Fine-tuning CNN image retrieval".

        Args:
            dim, out: of features and outputs.
            power: where training starts;
                1 is the mean.
            norm: which.
        """

        def __init__(
            self,
            dim: int,
            out: int,
            *,
            power: Positive = 3.0,
            norm: Literal["l1", "l2"] | None = None,
        ) -> None:
'''


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty package that is called `room`, and a scan that has seen nothing yet."""
    folder = tmp_path / "room"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "room", raising=False)
    entries.cache_clear()
    return folder


def written(folder: Path, text: str, name: str = "gem") -> dict[str, Entry]:
    body = textwrap.dedent(text) + "        raise NotImplementedError\n"
    (folder / f"{name}.py").write_text(body)
    entries.cache_clear()
    return entries("room")


def test_an_entry_is_read_without_running_the_file(room: Path) -> None:
    """`register` and the base class are not even imported there."""
    entry = written(room, GOOD)["gem"]
    assert (entry.module, entry.attribute, entry.published) == ("room.gem", "GeM", ("power",))
    assert entry.summary == "Generalised mean of each feature over the tiles."
    assert entry.source == 'Radenović, Tolias, Chum 2019, "Fine-tuning CNN image retrieval".'
    power, norm = entry.keys
    assert (power.name, power.default) == ("power", 3.0)
    assert power.meaning == "where training starts; 1 is the mean."
    assert (norm.default, norm.meaning) == (None, "which.")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("Source: Rad", "From: Rad"), "where from"),
        ((": Positive = 3.0", " = 3.0"), "needs a type, a default and a line"),
        ((" = 3.0", ""), "needs a type, a default and a line"),
        (("            power: where", "            other: where"), "`power` is a key"),
        (("Positive", "Positiv"), "`power`: a type must be plain"),
        (("3.0", "three()"), "`power`: a type must be plain or one of"),
        (('"gem", ', "NAME, "), "a written name"),
        (('("power",)', '("exponent",)'), "no argument `exponent`"),
        (("__init__", "make"), "a constructor of its own"),
    ],
)
def test_what_cannot_be_used_is_said_with_the_file(
    room: Path, change: tuple[str, str], expected: str
) -> None:
    assert change[0] in GOOD
    with pytest.raises(TypeError, match=r"room/gem\.py:") as error:
        written(room, GOOD.replace(*change))
    assert expected in str(error.value)


def test_a_name_is_registered_once(room: Path) -> None:
    written(room, GOOD)
    with pytest.raises(TypeError, match=r"`gem` is registered in room\.gem already"):
        written(room, GOOD, name="other")


DROPPED = '''
"""Generalised mean pooling."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.aggregators.base import Aggregator, Bag, full_mask, masked_mean
from pipeline.config.registry import register
from pipeline.config.section import Positive


@register("gem")
class GeM(Aggregator):
    """Generalised mean of each feature over the tiles, then a linear layer.

    Source: Radenović, Tolias, Chum 2019, "Fine-tuning CNN image retrieval".

    Args:
        power: where training starts; 1 is the mean, a large one nearly the maximum.
    """

    def __init__(self, dim: int, out: int, *, power: Positive = 3.0) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.tensor(power))
        self.head = nn.Linear(dim, out)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Bag:
        raised = x.clamp(min=1e-4) ** self.power
        return Bag(self.head(masked_mean(raised, full_mask(x, mask)) ** (1 / self.power)))
'''
DROPPED_LOSSES = {
    "training/losses/absolute_error.py": '''
"""Absolute error."""

from __future__ import annotations

from torch import Tensor

from pipeline.config.registry import register
from pipeline.config.section import Positive


@register("absolute_error", task="regression")
def absolute_error(out: Tensor, target: Tensor, *, scale: Positive = 1.0) -> Tensor:
    """Mean of the absolute differences.

    Source: Boscovich 1757.

    Args:
        out, target: (B, T).
        scale: what they are divided by.
    """
    return ((out - target) / scale).abs().mean()
''',
    "distillation/losses/squared.py": '''
"""Squared differences."""

from __future__ import annotations

from torch import Tensor

from pipeline.config.registry import register
from pipeline.config.section import Positive


@register("squared")
def squared(student: Tensor, target: Tensor, used: Tensor, *, power: Positive = 2.0) -> Tensor:
    """Powers of the differences.

    Source: none.

    Args:
        student, target: (B, P, K).
        used: (P,).
        power: of each.
    """
    return (student - target).abs().pow(power).mean(-1)
''',
}
ASK = """
import sys
from pipeline.config.reading import parse
from pipeline.errors import ConfigError

def read(**keys):
    single = {"kind": "single", "teacher": "a", "aggregator": "gem"}
    model = keys if "kind" in keys else {**single, **keys}
    data = {"extraction": {"teachers": ["a"]}, "training": {"models": {"m": model}}}
    return parse(data | {"evaluation": {"student": "m"}}).training.models["m"]

model = read(power=2)
assert model.arguments() == {"power": 2.0}, model
wrongs = ({"power": 0}, "greater than 0"), ({"d_model": 8}, "levels, teacher, power")
for wrong, said in wrongs:
    try:
        read(**wrong)
        sys.exit(f"{wrong} was accepted")
    except ConfigError as error:
        assert said in str(error), error

def task(**keys):
    tasks = {"t": {"type": "regression", "targets": ["a"], "loss": "absolute_error", **keys}}
    return parse({"tasks": tasks, "extraction": {"teachers": ["a"]}}).tasks["t"]

assert task(scale=2).arguments() == {"scale": 2.0}
model = read(kind="shazam_v1", distillation={"loss": "squared", "power": 3}).distillation
assert model.arguments() == {"power": 3.0}, model
wrongs = (
    (lambda: task(scale=0), "greater than 0"),
    (lambda: task(bins=3), "its keys: type, loss, auxiliary, targets, scale"),
    (lambda: read(kind="shazam_v1", distillation={"loss": "squared", "hubr": 1}), "its keys"),
)
for wrong, said in wrongs:
    try:
        wrong()
        sys.exit(f"not refused: {said}")
    except ConfigError as error:
        assert said in str(error), error
assert "torch" not in sys.modules
"""


def test_the_config_knows_an_aggregator_and_a_loss_by_its_file(tmp_path: Path) -> None:
    """In a copy of the package, its errors and its limits too, without torch."""
    shutil.copytree(
        REPOSITORY / "pipeline", tmp_path / "pipeline", ignore=shutil.ignore_patterns("__pycache__")
    )
    (tmp_path / "pipeline" / "aggregators" / "gem.py").write_text(DROPPED)
    for name, text in DROPPED_LOSSES.items():
        (tmp_path / "pipeline" / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_network_is_built_of_an_aggregator_by_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gem_dropped.py").write_text(DROPPED)
    monkeypatch.setattr(
        pipeline.aggregators, "__path__", [*pipeline.aggregators.__path__, str(tmp_path)]
    )
    entries.cache_clear()
    network = build("gem", 6, 2, power=2.0)
    assert network(torch.randn(3, 5, 6)).out.shape == (3, 2)
    assert "gem" in aggregators()
    monkeypatch.undo()
    entries.cache_clear()
    assert "gem" not in aggregators()
