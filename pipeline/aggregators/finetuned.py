"""A slide encoder that goes on learning: its blocks and a head over the states of some of them.

Source: the recipe with which Prov-GigaPath was fine-tuned (Xu et al. 2024): one linear map over
the pooled states of chosen layers, and learning rates that fall from the head down to the
embedding (Clark et al. 2020, ELECTRA).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pipeline.aggregators.network import Lesson, Network, Output, Shape
from pipeline.aggregators.slide_grid import cells_of_case
from pipeline.bags.batch import Batch
from pipeline.bags.files import FeatureFile
from pipeline.config.models import FinetunedModel
from pipeline.encoders import weights
from pipeline.encoders.slide_level.build import seeded
from pipeline.encoders.slide_level.longnet import LongNetViT
from pipeline.encoders.slide_level.registry import configured

# Raised when predictions change. 1: the first.
VERSION = 1

LEVEL = "high"


class Finetuned(Network):
    """LongNet over a case's tiles, slide by slide, and a linear head.

    A case of several slides is the mean of their vectors. The encoder starts with the weights that
    its teacher has in the config; features are not scaled, since it learned from them as they are.

    Args:
        shape: one teacher, its width, outputs.
        cfg: the model's config, with its encoder spelled out.
    """

    def __init__(self, shape: Shape, cfg: FinetunedModel) -> None:
        super().__init__(shape)
        self.cfg = cfg
        self.warm_up = cfg.warm_up
        assert not isinstance(cfg.encoder, str)  # Config.model_specs has replaced the name
        self.row = configured(cfg.encoder.teacher, cfg.encoder.settings)
        self.layers = cfg.layers or (self.row.depth,)
        self.encoder = LongNetViT(
            shape.dims[0][LEVEL],
            **self.row.kwargs,
            dropout=cfg.dropout,
            drop_path=cfg.drop_path,
        )
        self.head = nn.Linear(len(self.layers) * self.encoder.width, shape.outputs)
        # What the head never sees does not learn.
        self.encoder.encoder.layer_norm.requires_grad_(False)
        self.encoder.encoder.layers[max(self.layers) :].requires_grad_(False)
        self._cells: dict[tuple[str, ...], np.ndarray] = {}

    def fit(self, lesson: Lesson) -> None:
        """Give the encoder the weights that it starts with."""
        super().fit(dataclasses.replace(lesson, standardise=False))
        spec = self.cfg.encoder
        assert not isinstance(spec, str)
        dim = self.encoder.dim
        if spec.settings.weights == "random":
            state = seeded(self.row, dim, spec.settings.seed).state_dict()
        else:
            with torch.device("meta"):
                start = seeded(self.row, dim)
            found = weights.find(start, spec.teacher, spec.settings, self.row, spec.weights_dir)
            assert found.path is not None  # local, or of the hub
            weights.fill(start, found.path, self.row.layout)
            state = start.state_dict()
        self.encoder.load_state_dict(state)

    def rates(self) -> dict[str, float]:
        """Parameter -> its share of the learning rate, which falls by `layer_decay` a block from
        the head down to the embedding."""
        top = max(self.layers) + 1
        shares = {}
        for name, _ in self.named_parameters():
            below = top - _height(name, top)
            shares[name] = self.cfg.rate * self.cfg.layer_decay**below
        return shares

    def forward(self, batch: Batch) -> Output:
        x, mask = batch.features[0][LEVEL], batch.masks[0]
        vectors = []
        for i, case in enumerate(batch.cases.tolist()):
            real = ~mask[i]
            rows = batch.rows[0][i][real.cpu()].numpy()
            if not len(rows):
                vectors.append(x.new_zeros(self.head.in_features, dtype=torch.float32))
                continue
            files = None if batch.files is None else batch.files[0][case]
            vectors.append(self._case(x[i, real], self._places(files, rows)))
        return Output(self.head(torch.stack(vectors)))

    def _case(self, x: Tensor, places: np.ndarray) -> Tensor:
        """A case's vector from its tiles (n, d) and int (n, 3): slide, column, row of each."""
        slides = []
        for slide in np.unique(places[:, 0]):
            own = np.flatnonzero(places[:, 0] == slide)
            order = own[np.lexsort((places[own, 1], places[own, 2]))]
            cells = torch.from_numpy(places[order, 1:]).to(x.device)
            tiles = x[torch.from_numpy(order).to(x.device)].float()
            if self.training and torch.is_grad_enabled():
                # The states of one slide at a time are kept for the way back.
                slides.append(checkpoint(self._slide, tiles, cells, use_reentrant=False))
            else:
                slides.append(self._slide(tiles, cells))
        return torch.stack(slides).mean(0)

    def _slide(self, tiles: Tensor, cells: Tensor) -> Tensor:
        return self.encoder(tiles[None], cells[None], layers=self.layers, pooling=self.cfg.pooling)[
            0
        ].float()

    def _places(self, files: Sequence[FeatureFile] | None, rows: np.ndarray) -> np.ndarray:
        if files is None:  # as when the cost of a prediction is counted: one square slide
            side = int(np.ceil(np.sqrt(rows.max() + 1)))
            return np.stack([np.zeros_like(rows), rows % side, rows // side], 1)
        key = tuple(str(file.path) for file in files)
        if key not in self._cells:
            self._cells[key] = cells_of_case(files)
        return self._cells[key][rows]

    def facts(self) -> dict[str, Any]:
        return {"encoder": self.row.name, "layers": list(self.layers)}


def _height(name: str, top: int) -> int:
    """How far up a parameter is: 0 for the embedding, k for block k, `top` for the head."""
    parts = name.split(".")
    if parts[:3] == ["encoder", "encoder", "layers"]:
        return min(int(parts[3]) + 1, top)
    return 0 if parts[:2] in (["encoder", "patch_embed"], ["encoder", "cls_token"]) else top
