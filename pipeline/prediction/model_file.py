"""One safetensors file with a model card in its metadata: written whole, checked when opened."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pipeline.aggregators.network import Network, Shape
from pipeline.config.models import ModelConfig
from pipeline.contracts.model_card import LAYOUT, EncoderCard, Member, ModelCard, Stacked
from pipeline.errors import ArtifactError
from pipeline.files.artifacts import atomic_path
from pipeline.files.typed_json import typed
from pipeline.training.head import Head
from pipeline.training.models import build_network
from pipeline.training.tasks import from_facts

CARD = "model_card"
ENCODER = "encoder"
STACKED = "stacked"


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """An opened file.

    Attributes:
        path: the file.
        card: what it says of itself.
        tensors: by name: `fold_<k>.seed_<s>.<parameter>`, of a stack's models
            `stacked.<model>.fold_<k>.seed_<s>.<parameter>`, `encoder.<teacher>.<parameter>`,
            `familiar.<what>.<part>`.
    """

    path: Path
    card: ModelCard
    tensors: Mapping[str, Tensor]

    def below(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with `<prefix>.`, without it."""
        start = f"{prefix}."
        return {k.removeprefix(start): v for k, v in self.tensors.items() if k.startswith(start)}

    def members(self, fold: int | None) -> list[Member]:
        """The members of a fold; of all for None.

        Raises:
            ArtifactError: there is no such fold.
        """
        folds = sorted({member.fold for member in self.card.members})
        if fold is not None and fold not in folds:
            known = ", ".join(map(str, folds))
            raise ArtifactError(f"{self.path}: has no fold {fold}, only {known}")
        return [one for one in self.card.members if fold in (None, one.fold)]


@dataclasses.dataclass(frozen=True)
class Model:
    """One model of the ensemble, ready to predict."""

    member: Member
    network: Network
    head: Head


def member_prefix(member: Member, model: str = "") -> str:
    """What the names of a member's tensors begin with.

    Args:
        member: of the file, or of a model that a stack reads.
        model: name of that model.
    """
    own = f"fold_{member.fold}.seed_{member.seed}"
    return f"{STACKED}.{model}.{own}" if model else own


def encoder_prefix(encoder: EncoderCard) -> str:
    """What the names of an embedded encoder's tensors begin with."""
    return f"{ENCODER}.{encoder.name}"


def write_model(path: Path, card: ModelCard, tensors: Mapping[str, Tensor]) -> ModelCard:
    """Write the file.

    Args:
        path: of the file.
        card: without its checksum.
        tensors: of all parts.

    Returns:
        the card with its checksum.
    """
    own = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    card = typed(json.loads(_text(card)), ModelCard, path)  # as it will be read: 0 is 0.0
    card = dataclasses.replace(card, checksum=checksum(card, own))
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(own, {CARD: _text(card)}))
    return card


def read_model(path: Path) -> ModelFile:
    """Open a file and check that it is whole.

    Raises:
        ArtifactError: it is missing, no such file, damaged, or of a layout that is not known.
    """
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; `export-model` writes one")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(CARD)
            if text is None:
                raise ArtifactError(
                    f"{path}: holds no model card; `export-model` writes such files"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path}: not a whole safetensors file ({error})") from None
    facts = json.loads(text)
    if facts.get("layout") != LAYOUT:
        raise ArtifactError(
            f"{path}: has layout {facts.get('layout')}, this version reads {LAYOUT}; "
            "export the model again, or use the package that wrote it"
        )
    card = typed(facts, ModelCard, path)
    if checksum(card, tensors) != card.checksum:
        raise ArtifactError(
            f"{path}: its content is not what was written (the checksum differs); copy it again"
        )
    return ModelFile(path, card, tensors)


def checksum(card: ModelCard, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the card without its checksum, and of every tensor's name, type, shape, bytes."""
    state = hashlib.sha256(_text(dataclasses.replace(card, checksum="")).encode())
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        state.update(repr((name, str(value.dtype), tuple(value.shape))).encode())
        state.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


def models(file: ModelFile, fold: int | None, device: torch.device) -> list[Model]:
    """The ensemble's models on a device.

    Args:
        file: the opened file.
        fold: only the models of this fold; None: all.
        device: where they run.

    Raises:
        ArtifactError: there is no such fold, or weights do not fit the card.
    """
    card = file.card
    shape = Shape(tuple(card.teachers), tuple(card.dims), card.outputs)
    prefixes = [(one, member_prefix(one)) for one in file.members(fold)]
    return _built(file, card.model, shape, prefixes, device)


def stacked_models(
    file: ModelFile, of: Stacked, fold: int | None, device: torch.device
) -> list[Model]:
    """The trainings of a model that a stack reads, on a device.

    Args:
        file: the opened file.
        of: the model, one of the card's.
        fold: only the models of this fold; None: all.
        device: where they run.

    Raises:
        ArtifactError: there is no such fold, or weights do not fit the card.
    """
    wanted = {(one.fold, one.seed) for one in file.members(fold)}
    shape = Shape(tuple(of.teachers), tuple(of.dims), of.outputs)
    prefixes = [
        (one, member_prefix(one, of.name)) for one in of.members if (one.fold, one.seed) in wanted
    ]
    return _built(file, of.model, shape, prefixes, device)


def _built(
    file: ModelFile,
    model: Mapping[str, Any],
    shape: Shape,
    members: Sequence[tuple[Member, str]],
    device: torch.device,
) -> list[Model]:
    config: ModelConfig = TypeAdapter(ModelConfig).validate_python(model)
    found = []
    for member, prefix in members:
        network = build_network(config, shape)
        try:
            network.load_state_dict(file.below(prefix))
        except RuntimeError as error:
            raise ArtifactError(f"{file.path}: {prefix}: {error}") from None
        found.append(Model(member, network.eval().to(device), from_facts(member.head)))
    return found


def _text(card: ModelCard) -> str:
    return json.dumps(dataclasses.asdict(card), sort_keys=True, allow_nan=False)
