"""A results folder whose features lie around the text features of a small random tower."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from safetensors.torch import save_file

from pipeline.config.extraction import TeacherConfig
from pipeline.config.tasks import ClassificationTask
from pipeline.config.vision_language import VisionLanguageConfig, VisionLanguageJob
from pipeline.contracts.case_map import CaseMap, TeacherLevels, write_case_map
from pipeline.encoders import open_clip_models, text_towers
from pipeline.vision_language import stage
from tests.evaluation.conftest import Results

TASK = ClassificationTask(type="classification", label="subtype")
WORDS: dict[str, Any] = {"a": ["pale", "empty"], "b": "grey", "c": ["dark", "full", "rich"]}
SMALL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "patch_size": 8, "head_width": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
TEMPLATES = ("{}", "so {}")


def weights_folder(where: Path) -> Path:
    """A folder of local weights with a tiny model."""
    folder = where / "weights" / "words"
    folder.mkdir(parents=True)
    state = open_clip_models.make(SMALL, seed=2).state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": SMALL}))
    return folder.parent


def results_folder(where: Path, weights: Path) -> Path:
    """Cases with one or two slides whose tiles lean to their class's words."""
    results = Results(where / "results", TASK, n=36)
    root = results.root
    settings = TeacherConfig(source="open_clip", weights="local")
    tower = text_towers.build("words", settings, str(weights))
    centres = {
        name: text_towers.encode(tower, [w] if isinstance(w, str) else w).numpy().mean(0)
        for name, w in WORDS.items()
    }
    rng = np.random.default_rng(0)
    middle = np.mean(list(centres.values()), axis=0)
    cases: dict[str, dict[str, list[str]]] = {}
    (root / "features/words").mkdir(parents=True)
    for i, row in enumerate(results.cases.to_dict("records")):
        case = str(row["case_id"])
        if i == 5:
            continue  # a case without features
        cases[case] = {"words": []}
        for part in range(1 + i % 2):
            n = 1 if i == 7 else 12
            towards = centres[str(row["subtype"])] - middle
            values = middle + 3 * towards + 0.05 * rng.normal(size=(n, 16))
            values /= np.linalg.norm(values, axis=1, keepdims=True)
            xy = np.stack([np.arange(n) % 4, np.arange(n) // 4], 1) * 100
            path = f"features/words/{case}-{part}.h5"
            with h5py.File(root / path, "w") as file:
                file["features"] = rng.normal(size=(n, 4)).astype(np.float16)
                file["aligned"] = values.astype(np.float16)
                file["coords"] = xy.astype(np.int32)
            cases[case]["words"].append(path)
    levels = {"words": TeacherLevels({"high": 4, "aligned": 16})}
    write_case_map(root, CaseMap(levels, cases))
    return root


def run(root: Path, weights: Path, **cfg: Any) -> dict[str, Any]:
    """Run the stage and return zero_shot.json."""
    settings = {
        "prompts": {"task": WORDS},
        "templates": TEMPLATES,
        "draws": 6,
        "episodes": 3,
        "shots": [1, 2],
        **cfg,
    }
    job = VisionLanguageJob(
        vision_language=VisionLanguageConfig(**settings),
        teachers={"words": {"source": "open_clip", "weights": "local"}},
        weights_dir=str(weights),
        tasks={"task": TASK.model_dump()},
        seeds=(0,),
        facts={},
    )
    stage.run(job=job, root=root, teacher="words", base=root)
    return dict(json.loads((root / "vision_language/words/zero_shot.json").read_text()))
