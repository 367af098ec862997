"""One task asked of one teacher's features: scores of all cases, predictions, spread over words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.bags.files import FeatureFile
from pipeline.config.vision_language import VisionLanguageConfig
from pipeline.contracts.folds import Fold
from pipeline.contracts.labels import Labels
from pipeline.errors import ConfigError, nearest
from pipeline.runtime import progress
from pipeline.vision_language import prompts, zero_shot
from pipeline.vision_language.scoring import score_case

Slides = Mapping[str, Sequence[FeatureFile]]


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the words said of one task.

    Attributes:
        weights: float32 (classes, D), of all words.
        ways: every way of smoothing and pooling.
        predictions: the table of predictions.
        chosen: for each fold its way, chosen on its validation part.
        spread: rows of `zero_shot.spread`.
    """

    weights: np.ndarray
    ways: list[zero_shot.Choice]
    predictions: pd.DataFrame
    chosen: list[zero_shot.Choice]
    spread: list[dict[str, Any]]


def wording(
    cfg: VisionLanguageConfig, task: str, classes: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """The synonyms of each class of a task, in the order of its classes.

    Args:
        cfg: the section.
        task: the task's name.
        classes: of its labels.

    Raises:
        ConfigError: a class has no prompts, or prompts are of no class.
    """
    given = cfg.prompts[task]
    where = f"vision_language.prompts.{task}"
    for name in given:
        if name not in classes:
            raise ConfigError(f"{where}: `{name}` is not a class{nearest(name, classes)}")
    without = [name for name in classes if name not in given]
    if without:
        raise ConfigError(
            f"{where}: class `{without[0]}` has no prompts, so that no case could be predicted as "
            "it; name at least one synonym"
        )
    return {name: given[name] for name in classes}


def ask(
    cfg: VisionLanguageConfig,
    words: Mapping[str, Sequence[str]],
    vectors: np.ndarray,
    labels: Labels,
    folds: Sequence[Fold],
    slides: Slides,
    scale: float,
    seeds: Sequence[int],
) -> Answer:
    """Score all cases, once, with all words and with every draw of them.

    Args:
        cfg: the section.
        words: class -> synonyms, in the order of the labels' classes.
        vectors: float32 (prompts, D), of `prompts.prompts`.
        labels: of the task.
        folds: of the task.
        slides: the feature files of each case.
        scale: of cosines before the softmax.
        seeds: of the trained models.
    """
    names = list(words)
    parts = prompts.by_class(words, cfg.templates, vectors)
    counts = [len(synonyms) for synonyms in words.values()]
    choices = prompts.draws(counts, len(cfg.templates), cfg.draws, cfg.seed)
    whole = prompts.ensemble(parts, names)
    weights = np.concatenate([whole, *(prompts.drawn(parts, d, names) for d in choices)])
    ways = zero_shot.choices(cfg.smoothing, cfg.top_k)
    scores = np.full((len(ways), len(labels.cases), len(weights)), np.nan)
    for i, case in progress.counted(list(enumerate(labels.cases)), "cases scored"):
        if slides.get(case):
            found = score_case(slides[case], weights, cfg.smoothing, cfg.top_k)
            scores[:, i] = found.reshape(len(ways), -1)
    by_draw = scores.reshape(len(ways), len(labels.cases), 1 + len(choices), len(names))
    table, chosen = zero_shot.predictions(by_draw[:, :, 0], labels, folds, scale, seeds)
    tested = {case for fold in folds for case in fold.test}
    rows = [i for i, c in enumerate(labels.cases) if c in tested and np.isfinite(scores[0, i, 0])]
    assert labels.label is not None
    spread = zero_shot.spread(by_draw[:, rows, 1:], by_draw[:, rows, 0], labels.label[rows], ways)
    return Answer(whole, ways, table, [ways[w] for w in chosen], spread)
