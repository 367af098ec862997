"""The stage: what one teacher's image features say to prompts, next to trained models.

Writes, for each task with prompts, `models/<task>/zero_shot_<teacher>/predictions.parquet`, in the
form that training leaves, so that evaluation measures it with the others. Writes
`vision_language/<teacher>/`:

- `zero_shot.json` (last): for each task the way of pooling that each fold chose on its validation
  part, the words, and the cases whose maps are kept; recall of captions;
- `spread.csv`: for each task and way of pooling, balanced accuracy over draws of prompts;
- `few_shot.csv`: the linear probe by the number of cases that it learned from;
- `retrieved.csv`: the tiles nearest to each class's words, at most one of a case;
- `maps/<task>/<slide>.parquet`: x, y and a cosine for each class of every tile, of a few cases;
- `tissue/<slide>.parquet`: x, y, class and cosine of every tile, where tissue classes are named,
  and `tissue.csv`, their shares;
- `texts/`: text features that were computed.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from pipeline.bags.files import FeatureFile, open_features, read_coords, read_level
from pipeline.config.extraction import TeacherConfig
from pipeline.config.vision_language import EMBEDDED, VisionLanguageConfig, VisionLanguageJob
from pipeline.contracts.case_map import CaseMap, read_case_map
from pipeline.contracts.columns import spelled_out
from pipeline.contracts.folds import Fold, read_folds
from pipeline.contracts.labels import Labels, read_labels
from pipeline.encoders import text_towers
from pipeline.encoders.caption_recall import recall
from pipeline.encoders.registry import ALIGNED
from pipeline.encoders.speaking import model_name
from pipeline.encoders.text_towers import TextTower
from pipeline.errors import ArtifactError
from pipeline.files.artifacts import read_json, sweep, write_json
from pipeline.files.parquet import read_table, write_table
from pipeline.tile_training import embedded_captions
from pipeline.tile_training.caption_files import read_captions
from pipeline.tile_training.slides import tiled_slides
from pipeline.vision_language import few_shot, prompts, retrieval
from pipeline.vision_language.asking import Answer, Slides, ask, wording
from pipeline.vision_language.scoring import tile_scores
from pipeline.vision_language.texts import text_features

# Raised when a zero-shot prediction or another number of the stage changes. 1: the first. 2: a tile
# with several captions is one query; what is as near as the own caption or tile counts as nearer.
VERSION = 2

FILE = "zero_shot.json"
TABLES = {
    "spread": ("task", "smoothing", "top_k", "draws", "min", "q25", "median", "q75", "max",
               "ensemble"),
    "few_shot": ("task", "shots", "episodes", "q25", "median", "q75"),
    "retrieved": ("task", "class", "place", "case_id", "slide_id", "x", "y", "score"),
    "tissue": ("slide_id", "class", "tiles", "share"),
}  # fmt: skip


def run(*, job: VisionLanguageJob, root: Path, teacher: str, base: Path = Path()) -> None:
    """Ask one teacher's features in words.

    Args:
        job: what to ask.
        root: the cohort's results folder.
        teacher: the teacher's name.
        base: folder that the config's relative paths start from.

    Raises:
        ConfigError: prompts name no class of a task, or its classes have no prompts.
        UserError: a prompt is longer than the text tower takes.
        ArtifactError: features lack the level `aligned`, or are damaged.
    """
    cfg = job.vision_language
    folder = root / "vision_language" / teacher
    (folder / FILE).unlink(missing_ok=True)
    sweep(folder)
    for old in ("maps", "tissue"):
        shutil.rmtree(folder / old, ignore_errors=True)
    tower = text_towers.build(teacher, _settings(job, root, teacher), job.weights_dir)
    slides = _slides(read_case_map(root), root, teacher)
    cases = read_table(root / "cases.parquet")
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    facts: dict[str, Any] = {"teacher": teacher, "tasks": {}, "recall": None}
    for name in cfg.prompts:
        labels = read_labels(cases, name, spelled_out(job.tasks[name], cases.columns))
        folds = read_folds(root, name)
        words = wording(cfg, name, labels.classes)
        vectors = text_features(tower, prompts.prompts(words, cfg.templates), folder / "texts")
        answer = ask(cfg, words, vectors, labels, folds, slides, tower.scale, job.seeds)
        out = root / "models" / name / model_name(teacher) / "predictions.parquet"
        sweep(out.parent)
        write_table(out, answer.predictions)
        tables["spread"] += [{"task": name, **row} for row in answer.spread]
        tables["few_shot"] += [
            {"task": name, **row} for row in _few_shot(cfg, labels, folds, slides)
        ]
        tables["retrieved"] += _retrieved(cfg, name, labels, answer, slides)
        kept = _maps(cfg, folder / "maps" / name, labels, folds, answer, slides)
        facts["tasks"][name] = {
            "words": {key: list(value) for key, value in words.items()},
            "folds": [
                {"fold": fold.index, "chosen_on": "validation", **dataclasses.asdict(way)}
                for fold, way in zip(folds, answer.chosen, strict=True)
            ],
            "maps": kept,
        }
    if cfg.tissue:
        tables["tissue"] = _tissue(cfg, tower, folder, slides)
    for name, columns in TABLES.items():
        write_table(folder / f"{name}.parquet", pd.DataFrame(tables[name], columns=list(columns)),
                    csv=True)  # fmt: skip
    if cfg.captions is not None:
        captions = _captions(job, root, base)
        facts["recall"] = _recall(captions, tower, folder / "texts", slides)
    write_json(folder / FILE, facts)


def _settings(job: VisionLanguageJob, root: Path, teacher: str) -> TeacherConfig:
    """The teacher's settings, with the revision of its weights that gave its image features."""
    adapter: TypeAdapter[TeacherConfig] = TypeAdapter(TeacherConfig)
    settings = adapter.validate_python(job.teachers[teacher])
    check = root / "features" / teacher / "check.json"
    if settings.weights != "hub" or not check.is_file():
        return settings
    return settings.model_copy(update={"revision": read_json(check)["revision"]})


def _slides(mapping: CaseMap, root: Path, teacher: str) -> Slides:
    found: dict[str, list[FeatureFile]] = {}
    for case, teachers in mapping.cases.items():
        for path in teachers.get(teacher, []):
            file = open_features(root / path)
            if ALIGNED not in file.dims:
                raise ArtifactError(
                    f"{file.path}: has no level `{ALIGNED}`, which is compared with text; extract "
                    f"`{teacher}` again"
                )
            found.setdefault(case, []).append(file)
    return found


def _few_shot(
    cfg: VisionLanguageConfig, labels: Labels, folds: Sequence[Fold], slides: Slides
) -> list[dict[str, Any]]:
    if not cfg.shots:
        return []
    means = {case: _mean(slides[case]) for case in labels.cases if slides.get(case)}
    if not means:
        return []
    absent = np.full(len(next(iter(means.values()))), np.nan)
    features = np.stack([means.get(case, absent) for case in labels.cases])
    return few_shot.curve(features, labels, folds, cfg.shots, cfg.episodes, cfg.seed)


def _mean(files: Sequence[FeatureFile]) -> np.ndarray:
    """The mean of a case's tiles at the level that models learn from, float64 (D,)."""
    total, count = np.zeros(files[0].dims["high"]), 0
    for file in files:
        for start in range(0, file.n_tiles, 16_384):
            rows = np.arange(start, min(start + 16_384, file.n_tiles))
            values = read_level(file, "high", rows)
            total += values.sum(axis=0, dtype=np.float64)
            count += len(values)
    return total / count


def _retrieved(
    cfg: VisionLanguageConfig, task: str, labels: Labels, answer: Answer, slides: Slides
) -> list[dict[str, Any]]:
    each = [(case, file) for case, files in slides.items() for file in files]
    found = retrieval.best_tiles(each, answer.weights, cfg.retrieved)
    return [
        {"task": task, "class": name, "place": place, **dataclasses.asdict(tile)}
        for name, tiles in zip(labels.classes, found, strict=True)
        for place, tile in enumerate(tiles, 1)
    ]


def _maps(
    cfg: VisionLanguageConfig,
    folder: Path,
    labels: Labels,
    folds: Sequence[Fold],
    answer: Answer,
    slides: Slides,
) -> list[dict[str, Any]]:
    """Keep the scores of every tile of some test cases of the first fold, classes in turn."""
    assert labels.label is not None
    class_of = dict(zip(labels.cases, labels.label.tolist(), strict=True))
    by_class: dict[int, list[str]] = {}
    for case in folds[0].test:
        if slides.get(case):
            by_class.setdefault(class_of[case], []).append(case)
    turns = [
        case
        for place in range(max(map(len, by_class.values()), default=0))
        for c in sorted(by_class)
        for case in by_class[c][place : place + 1]
    ]
    kept = []
    for case in turns[: cfg.maps]:
        file = max(slides[case], key=lambda one: one.n_tiles)
        coords = read_coords(file)
        if coords is None:
            continue
        scores = tile_scores(file, answer.weights, answer.chosen[0].smoothing)
        table = pd.DataFrame({"x": coords[:, 0], "y": coords[:, 1]})
        for c, name in enumerate(labels.classes):
            table[name] = scores[:, c]
        write_table(folder / f"{file.path.stem}.parquet", table)
        kept.append({"case_id": case, "slide_id": file.path.stem,
                     "label": labels.classes[class_of[case]]})  # fmt: skip
    return kept


def _tissue(
    cfg: VisionLanguageConfig, tower: TextTower, folder: Path, slides: Slides
) -> list[dict[str, Any]]:
    """Label every tile with the tissue class whose words are nearest."""
    names = list(cfg.tissue)
    vectors = text_features(tower, prompts.prompts(cfg.tissue, cfg.templates), folder / "texts")
    weights = prompts.ensemble(prompts.by_class(cfg.tissue, cfg.templates, vectors), names)
    rows = []
    for file in (file for files in slides.values() for file in files):
        scores = tile_scores(file, weights, 0)
        best = scores.argmax(axis=1)
        coords = read_coords(file)
        table = pd.DataFrame({"class": [names[i] for i in best], "score": scores.max(axis=1)})
        if coords is not None:
            table = table.assign(x=coords[:, 0], y=coords[:, 1])
        write_table(folder / "tissue" / f"{file.path.stem}.parquet", table)
        counts = np.bincount(best, minlength=len(names))
        rows += [
            {"slide_id": file.path.stem, "class": name, "tiles": int(n), "share": n / len(best)}
            for name, n in zip(names, counts, strict=True)
        ]
    return rows


def _captions(job: VisionLanguageJob, root: Path, base: Path) -> pd.DataFrame:
    """The captions that are looked for: a file's, or those that hidden states give."""
    cfg = job.vision_language
    if cfg.captions != EMBEDDED:
        return read_captions(base / str(cfg.captions))
    return embedded_captions.captions(base / job.embedded, tiled_slides(root, job.tiles), cfg.seed)


def _recall(
    captions: pd.DataFrame, tower: TextTower, texts: Path, slides: Slides
) -> dict[str, Any]:
    """Recall of captions, in both directions, on the tiles that the features have."""
    files = {file.path.stem: file for group in slides.values() for file in group}
    vectors: list[np.ndarray] = []
    tile: list[int] = []
    said: list[str] = []
    for slide, wanted in captions.groupby("slide_id", sort=False):
        coords = read_coords(files[str(slide)]) if slide in files else None
        if coords is None:
            continue
        place = {(int(x), int(y)): row for row, (x, y) in enumerate(coords)}
        rows = [place.get((int(x), int(y))) for x, y in zip(wanted["x"], wanted["y"], strict=True)]
        known = sorted({row for row in rows if row is not None})
        if not known:
            continue
        number = {row: len(vectors) + i for i, row in enumerate(known)}
        vectors += list(read_level(files[str(slide)], ALIGNED, np.array(known)))
        for row, text in zip(rows, wanted["caption"], strict=True):
            if row is not None:
                tile.append(number[row])
                said.append(text)
    facts: dict[str, Any] = {"tiles": len(vectors), "without_features": len(captions) - len(said)}
    if not said:
        return {**facts, "texts": 0}
    different = sorted(set(said))
    number_of = {text: t for t, text in enumerate(different)}
    images = np.stack(vectors).astype(np.float64)
    images /= np.linalg.norm(images, axis=1, keepdims=True).clip(1e-6)
    own = np.array([number_of[text] for text in said])
    encoded = text_features(tower, different, texts, cut=True)
    found = recall(images, encoded, np.array(tile), own)
    cut = text_towers.too_long(tower.tokeniser, different)
    return {**facts, "captions_cut": cut, **dataclasses.asdict(found)}
