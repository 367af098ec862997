"""Two textures: after a short training an encoder separates them better than before it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torch
from pydantic import TypeAdapter
from torch import nn

from pipeline.config.pretraining import AnyTeacher, PretrainedTeacher, methods
from pipeline.encoders.transforms import Transform, normalise
from pipeline.pretraining.backbone import Start
from pipeline.pretraining.learner import SelfSupervised
from pipeline.pretraining.methods.base import Method
from pipeline.pretraining.stage import build_method
from pipeline.tile_training.loader import Batch
from pipeline.tile_training.trainer import Pass
from tests.pretraining.conftest import SMALL

PX = 32
TRANSFORM = Transform(PX, PX, "bilinear", (0.6, 0.5, 0.6), (0.2, 0.2, 0.2))
STEPS = 120


def textures(kind: str, count: int, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    """Tiles of two kinds that differ in nothing but texture: uint8 (N, S, S, 3), int (N,).

    `grain`: coarse or fine noise. `cells`: few large or many small dark discs of the same area.
    All have the same mean colour and contrast, and fine noise over the texture: colours of their
    own would be what tells a tile from the others, and clusters would be of colours.
    """
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, count)
    at = np.stack(np.meshgrid(np.arange(PX), np.arange(PX), indexing="ij"), -1)
    tiles = np.empty((count, PX, PX, 3))
    for i, which in enumerate(y):
        if kind == "grain":
            side = (4, 2)[which]
            field = 1.4 * np.kron(rng.normal(size=(PX // side,) * 2), np.ones((side, side)))
        else:
            number, radius = ((3, 5.0), (12, 2.5))[which]
            apart = np.linalg.norm(at[None] - rng.uniform(0, PX, (number, 1, 1, 2)), axis=-1)
            field = -2.2 * (apart.min(0) < radius)
        field = field + rng.normal(size=(PX, PX))
        field = (field - field.mean()) / field.std()
        tiles[i] = (150, 110, 150) + 30 * field[..., None]
    return torch.from_numpy(tiles.clip(0, 255).astype(np.uint8)), y


def config(method: str) -> PretrainedTeacher:
    entry = methods()[method]
    own: dict[str, Any] = {k: v for k, v in SMALL.items() if k in entry.defaults}
    own |= {k: 64 for k in ("projection", "hidden", "predictor") if k in entry.defaults}
    own |= {k: 64 for k in ("prototypes", "bottleneck", "queue") if k in entry.defaults}
    if method == "pcl":
        own |= {"clusters": (4, 16), "queue": 256, "cluster_every": 20}
    # In one step what two views share grows if it is more of their difference than the targets'
    # temperature is of the predictions'; of so few and noisy tiles that is little.
    if method == "swav":
        own |= {"prototypes": 16, "queue": 256, "epsilon": 0.02, "temperature": 0.2}
    if "student_temperature" in entry.defaults:
        own |= {"student_temperature": 0.2, "teacher_temperature": 0.03}
        own |= {"final_teacher_temperature": 0.03}
    if "momentum" in entry.defaults:
        own |= {"momentum": 0.95, "final_momentum": 0.99}
    views = {"large_scale": (0.4, 1.0), "small_scale": (0.2, 0.5), "small_px": 16,
             "blur": 0.0, "stain": 0.1, "brightness": 0.3}  # fmt: skip
    found: PretrainedTeacher = TypeAdapter(AnyTeacher).validate_python(
        {"method": method, "views": views, "course": {"steps": STEPS}, **own}
    )
    return found


def network(tokens: bool) -> nn.Module:
    torch.manual_seed(3)
    if tokens:
        return timm.create_model(
            "vit_tiny_patch16_224", num_classes=0, img_size=PX, patch_size=4, depth=3,
            embed_dim=48, num_heads=3, dynamic_img_size=True,
        )  # fmt: skip
    return timm.create_model("resnet10t", num_classes=0, channels=(8, 16, 24, 32), stem_width=8)


def separation(method: Method, data: tuple[torch.Tensor, np.ndarray]) -> float:
    """How well a linear probe tells the two apart: AUC on tiles that it did not see."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    tiles, y = data
    with torch.no_grad():
        images = normalise(tiles.permute(0, 3, 1, 2).float(), TRANSFORM)
        x = method.eval().features(images).numpy()
    x = (x - x.mean(0)) / (x.std(0) + 1e-6)
    probe = LogisticRegression(C=0.05, max_iter=300).fit(x[:100], y[:100])
    return float(roc_auc_score(y[100:], probe.predict_proba(x[100:])[:, 1]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["barlow_twins", "clusiam", "dino", "simclr", "simsiam", "swav"])
def test_a_method_separates_better_than_its_initialisation(name: str) -> None:
    before, after = separations(name, "cells", STEPS)
    assert after > before


def test_a_few_steps_are_enough_for_a_contrast() -> None:
    before, after = separations("simclr", "cells", 40)
    assert after > before + 0.05


def separations(name: str, kind: str, steps: int) -> tuple[float, float]:
    """How well a method's encoder separates the textures before and after some steps."""
    torch.set_num_threads(1)
    cfg = config(name)
    entry = methods()[name].load()
    begun = Start(network(entry.tokens), "x", {}, TRANSFORM)
    method = build_method(cfg, begun)
    held = textures(kind, 600, seed=99)
    before = separation(method, held)
    learner = SelfSupervised(method, name, cfg, TRANSFORM, lambda: iter(()))
    tiles, _ = textures(kind, 1024, seed=1)
    optimiser = torch.optim.AdamW(
        [p for p in method.parameters() if p.requires_grad], 2e-3, weight_decay=0.01
    )
    generator = torch.Generator()
    for step in range(steps):
        torch.manual_seed(step)
        generator.manual_seed(step)
        some = torch.randint(len(tiles), (64,))
        method.train()
        optimiser.zero_grad()
        batch = Batch(tiles[some], some, some)
        learner.backward(batch, Pass(step, 1.0, generator, "fp32"))
        nn.utils.clip_grad_norm_(method.parameters(), 1.0)
        optimiser.step()
        learner.stepped(step)
    return before, separation(method, held)
