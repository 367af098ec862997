"""The encoders that a model file brings, or names with the checksum of their weights."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline.config.extraction import TeacherConfig
from pipeline.contracts.model_card import EncoderCard
from pipeline.encoders import build, registry, weight_files, weights
from pipeline.encoders.build import Encoder
from pipeline.errors import ArtifactError, ConfigError
from pipeline.files.artifacts import write_json
from pipeline.prediction.model_file import ModelFile, encoder_prefix


def open_encoder(
    file: ModelFile, card: EncoderCard, weights_dir: str | None, device: torch.device
) -> Encoder:
    """An encoder on its device.

    Args:
        file: the model file.
        card: one of its encoders.
        weights_dir: folder of weights that are not in the file, one subfolder an encoder.
        device: where it runs.

    Raises:
        ConfigError: its weights are not in the file and not to be found, or this version of the
            package builds it in another way.
        ArtifactError: the weights found are others than those that the model was trained with.
    """
    with tempfile.TemporaryDirectory() as folder:
        return _opened(file, card, _described(card, weights_dir, Path(folder)), weights_dir, device)


def _described(card: EncoderCard, weights_dir: str | None, folder: Path) -> TeacherConfig:
    """The encoder's settings; one that the pipeline made has its row in a folder, as it had."""
    settings = TeacherConfig.model_validate(card.settings)
    if settings.source != "folder":
        return settings
    place = folder
    if card.weights == "embedded":
        write_json(folder / registry.ROW, card.row)
    else:
        place = Path(weights_dir or ".") / card.name
        if weights_dir is None or not (place / registry.HUB_FILES[0]).is_file():
            raise ConfigError(
                f"encoder `{card.name}`: its weights are not in the model file. Give a copy of the "
                f"folder teachers/{card.name} of the training cohort's results with --weights-dir "
                f"DIR, in DIR/{card.name}/; the SHA-256 of {registry.HUB_FILES[0]} is {card.sha256}"
            )
    return settings.model_copy(update={"path": str(place)})


def _opened(
    file: ModelFile,
    card: EncoderCard,
    settings: TeacherConfig,
    weights_dir: str | None,
    device: torch.device,
) -> Encoder:
    name = card.name
    row = registry.row_of(name, settings)
    if row is not None and _plain(row.facts()) != _plain(card.facts):
        raise ConfigError(
            f"encoder `{name}`: this version of the package knows {row.title} by other facts than "
            f"the one that wrote {file.path.name} ({file.card.package}); use that version"
        )
    network = build.make_network(name, settings, weights_dir)
    if card.weights == "embedded":
        source = weights.Source("embedded", card.sha256 or f"seed {settings.seed}")
        network = build.with_state(network, name, settings, file.below(encoder_prefix(card)))
    else:
        if weights_dir is not None and settings.weights == "hub":
            settings = settings.model_copy(update={"weights": "local"})
        try:
            source = weights.find(network.module, name, settings, network.row, weights_dir)
        except ConfigError as error:
            raise ConfigError(
                f"encoder `{name}`: its weights are not in {file.path.name} and were not found: "
                f"{error}. Give them with --weights-dir DIR, in DIR/{name}/; their SHA-256 is "
                f"{card.sha256 or 'not known'}"
            ) from None
        if source.path is not None:
            weight_files.check_hash(source.path, card.sha256)
        network = build.load_weights(network, name, settings, source)
    encoder = build.finish(
        network, name, settings, source, file.card.levels, file.card.precision, False, device
    )
    wrong = {k: v for k, v in card.dims.items() if encoder.dims.get(k) != v}
    if wrong:
        raise ArtifactError(f"encoder `{name}`: gives {encoder.dims}, the model reads {card.dims}")
    return encoder


def _plain(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, sort_keys=True)
