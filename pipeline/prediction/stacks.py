"""The models of a file, ready to predict: networks, or stacks on networks and on covariates."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from pipeline.bags.store import Store
from pipeline.contracts.covariates import Column
from pipeline.contracts.model_card import Member, ModelCard
from pipeline.errors import ArtifactError
from pipeline.prediction.ensemble import own_columns
from pipeline.prediction.model_file import Model, ModelFile, models, stacked_models
from pipeline.training.applied_stack import AppliedStack, in_common, stack_of
from pipeline.training.head import Head
from pipeline.training.predict import predict
from pipeline.training.tasks import from_facts

OpenStore = Callable[[Sequence[str], Sequence[dict[str, int]]], Store]


@dataclasses.dataclass(frozen=True)
class StackOfModels:
    """A stack of one fold and seed, with the models of the same fold and seed that it reads."""

    member: Member
    head: Head
    stack: AppliedStack
    models: tuple[Model, ...]


@dataclasses.dataclass(frozen=True)
class Reader:
    """Models that read the same teachers, and which they are.

    Attributes:
        teachers, dims: what they read.
        models: networks.
    """

    teachers: Sequence[str]
    dims: Sequence[dict[str, int]]
    models: tuple[Model, ...]


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """All that predicts.

    Attributes:
        card: of the file.
        judges: whose outputs are the file's: networks, or stacks.
        readers: the networks, also those that stacks read.
        covariates: of the cases; empty where none are read.
    """

    card: ModelCard
    judges: tuple[Model, ...] | tuple[StackOfModels, ...]
    readers: tuple[Reader, ...]
    covariates: tuple[Column, ...]

    def outputs(self, case: str, open_store: OpenStore) -> list[np.ndarray]:
        """float32 (C,) of each judge.

        Args:
            case: its id.
            open_store: teachers and dims -> the features of the case alone.

        Raises:
            ArtifactError: a stack of the file does not fit its members.
        """
        precision, only = self.card.head_precision, np.array([0])
        said: dict[int, np.ndarray] = {}
        for reader in self.readers:
            store = open_store(reader.teachers, reader.dims)
            for one in reader.models:
                limit = one.member.max_tiles
                said[id(one)] = predict(one.network, store, only, limit, precision)[0]
        return [
            said[id(judge)] if isinstance(judge, Model) else self._stacked(judge, case, said)
            for judge in self.judges
        ]

    def _stacked(self, judge: StackOfModels, case: str, said: dict[int, np.ndarray]) -> np.ndarray:
        z = np.full((1, len(judge.models), judge.head.outputs), np.nan)
        for m, model in enumerate(judge.models):
            columns = own_columns(self.card, model, said[id(model)])
            ends = {
                "risk_mean": model.member.score_mean,
                "risk_deviation": model.member.score_deviation,
            }
            values = {name: [value] for name, value in {**columns, **ends}.items()}
            z[0, m] = in_common(values, judge.head)[0]
        known, out = judge.stack(z, judge.stack.design(self.covariates, [case]))
        if not len(known):
            raise ArtifactError(f"{self.card.name}: no regression of the stack fits its members")
        first: np.ndarray = out[0]
        return first

    def weighed(self) -> tuple[Reader, ...]:
        """The networks as maps show them: a network counts as the stack weighs it.

        The influence on a stack is the sum of those on its members, each in the unit of the
        stack's score; of a class it is that on each member's own log odds.
        """
        if not any(isinstance(judge, StackOfModels) for judge in self.judges):
            return self.readers
        weights: dict[int, float] = {}
        for judge in self.judges:
            assert isinstance(judge, StackOfModels)
            whole = judge.stack.patterns[tuple(range(len(judge.models)))]
            for model, weight in zip(judge.models, whole.members.tolist(), strict=True):
                weights[id(model)] = weight / judge.member.score_deviation
        if not any(weights.values()):  # covariates alone decide: no tile has an influence
            return tuple(_without_influence(reader) for reader in self.readers)
        found = []
        for reader in self.readers:
            kept = [one for one in reader.models if weights[id(one)] > 0]
            share = len(self.judges) / max(len(kept), 1)  # a table has the mean over its models
            scaled = [
                _with_deviation(one, one.member.score_deviation * share / weights[id(one)])
                for one in kept
            ]
            if scaled:
                found.append(dataclasses.replace(reader, models=tuple(scaled)))
        return tuple(found)


def _with_deviation(model: Model, deviation: float) -> Model:
    member = dataclasses.replace(model.member, score_deviation=deviation)
    return dataclasses.replace(model, member=member)


def _without_influence(reader: Reader) -> Reader:
    models = tuple(_with_deviation(one, math.inf) for one in reader.models)
    return dataclasses.replace(reader, models=models)


def open_ensemble(
    file: ModelFile, fold: int | None, device: torch.device, covariates: Sequence[Column]
) -> Ensemble:
    """All that predicts, on a device.

    Args:
        file: the opened file.
        fold: only the models of this fold; None: all.
        device: where they run.
        covariates: of the cases.

    Raises:
        ArtifactError: there is no such fold, or weights do not fit the card.
    """
    card = file.card
    if not any(member.stack for member in card.members):
        plain = tuple(models(file, fold, device))
        return Ensemble(card, plain, (Reader(card.teachers, card.dims, plain),), ())
    found = [stacked_models(file, one, fold, device) for one in card.stacked]
    readers = tuple(
        Reader(one.teachers, one.dims, tuple(own))
        for one, own in zip(card.stacked, found, strict=True)
    )
    names = [one.name for one in card.stacked]
    judges = []
    for member in file.members(fold):
        head = from_facts(member.head)
        stack = stack_of(member.stack, head)
        own = [
            model
            for name in stack.members
            for model in found[names.index(name)]
            if (model.member.fold, model.member.seed) == (member.fold, member.seed)
        ]
        judges.append(StackOfModels(member, head, stack, tuple(own)))
    return Ensemble(card, tuple(judges), readers, tuple(covariates))
