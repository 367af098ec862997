"""A model that comes with its own code: a stand-in for that code, with the same parts."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.config.extraction import TeacherConfig
from pipeline.encoders import remote
from pipeline.encoders.registry import resolve
from pipeline.encoders.remote import RotaryVit
from pipeline.encoders.taps import find_taps, forward_levels
from pipeline.encoders.teachers import check_teacher
from pipeline.errors import ConfigError

ROW = resolve("rudolfv_2")
SETTINGS = TeacherConfig(acknowledge_licence=True)


class Patches(nn.Module):
    patch_size = (8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, 12, 8, 8)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Says where it is: adds the positions it is given to the patch tokens."""

    def forward(self, tokens: Tensor, rope: Tensor) -> Tensor:
        prefix = tokens.shape[1] - len(rope)
        return torch.cat([tokens[:, :prefix], tokens[:, prefix:] + rope[:, None]], dim=1)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(12), nn.LayerNorm(12)
        self.attn, self.mlp = Attention(), nn.Linear(12, 12)
        self.ls1, self.ls2 = nn.Identity(), nn.Identity()

    def rope(self, rows: int, columns: int, device: torch.device) -> Tensor:
        return torch.arange(rows * columns, device=device) / (rows * columns)


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = Patches()
        self.cls_token = nn.Parameter(torch.randn(1, 1, 12))
        self.register_tokens = nn.Parameter(torch.randn(1, 8, 12))
        self.blocks = nn.ModuleList([Block() for _ in range(6)])
        self.norm = nn.LayerNorm(12)


@torch.inference_mode()
def test_levels_of_a_foreign_network() -> None:
    torch.manual_seed(0)
    backbone = Backbone().eval()
    network = RotaryVit(backbone)
    images = torch.rand(2, 3, 16, 24)
    seen: list[Tensor] = []
    tokens = torch.cat(
        [
            backbone.cls_token.expand(2, -1, -1),
            backbone.register_tokens.expand(2, -1, -1),
            backbone.patch_embed(images),
        ],
        dim=1,
    )
    for block in backbone.blocks:
        tokens = tokens + block.attn(block.norm1(tokens), rope=block.rope(2, 3, tokens.device))
        tokens = tokens + block.mlp(block.norm2(tokens))
        seen.append(tokens)
    taps = find_taps(network, "cls_mean", (1, 3))
    assert (taps.prefix, network.feature_info[-1]["module"]) == (9, "blocks.5")
    levels = forward_levels(network, images, taps, ("low", "mid", "high"))
    for level, values in (("low", seen[1]), ("mid", seen[3]), ("high", backbone.norm(seen[5]))):
        expected = torch.cat([values[:, 0], values[:, 9:].mean(1)], dim=1)
        torch.testing.assert_close(levels[level], expected)


def test_without_the_package_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    last = list(check_teacher("rudolfv_2", SETTINGS))[-1]
    assert last.ok is False
    assert "--sdm conda" in last.detail and "envs/rudolfv_2.yaml" in last.detail


def test_code_runs_only_from_a_commit_and_the_commit_is_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, Any] = {}

    def fetch(repository: str, **options: Any) -> Any:
        asked.update(repository=repository, **options)
        return types.SimpleNamespace(model=Backbone())

    library = types.SimpleNamespace(AutoModel=types.SimpleNamespace(from_pretrained=fetch))
    monkeypatch.setitem(sys.modules, "transformers", library)
    with pytest.raises(ConfigError, match=r"must be a commit.*not `main`"):
        remote.load(ROW, "main")
    steps = {c.name: c for c in check_teacher("rudolfv_2", SETTINGS)}
    assert asked["repository"] == "Aignostics/RudolfV-2"
    assert asked["revision"] == ROW.revision
    # The stand-in is told from the real one.
    assert steps["parameters"].ok is False

    with pytest.raises(ConfigError, match="set weights: hub"):
        from pipeline.encoders import registry

        registry.check("rudolfv_2", SETTINGS.model_copy(update={"weights": "random"}))
