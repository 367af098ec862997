"""Who is asked in words, and what is refused before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config.reading import parse
from pipeline.config.whole import Config
from pipeline.encoders import speaking
from pipeline.errors import ConfigError
from pipeline.plan import stage_params

WORDS = {"subtype": {"a": "glands", "b": ["nests", "islands"]}}


def config(**changes: Any) -> Config:
    data: dict[str, Any] = {
        "extraction": {
            "teachers": {
                "plip": {"weights": "random"},
                "plain": {"source": "timm", "model": "resnet10t", "weights": "random"},
            }
        },
        "tasks": {
            "subtype": {"type": "classification", "label": "subtype"},
            "score": {"type": "regression", "targets": ["score"]},
        },
        "vision_language": {"prompts": WORDS},
    }
    return parse(data | changes)


def test_those_with_a_text_tower_are_asked() -> None:
    found = config()
    speaking.check_words(found)
    assert speaking.speaking(found) == ["plip"]
    assert speaking.zero_shot_models(found, "subtype") == ["zero_shot_plip"]
    assert speaking.zero_shot_models(found, "score") == []
    assert speaking.speaking(config(vision_language=None)) == []


def test_a_teacher_whose_text_tower_runs_elsewhere_is_not_asked() -> None:
    teachers = {"musk": {"acknowledge_licence": True}, "plip": {"weights": "random"}}
    found = config(extraction={"teachers": teachers})
    speaking.check_words(found)
    assert speaking.speaking(found) == ["plip"] and speaking.silent(found) == ["musk"]
    assert speaking.zero_shot_models(found, "subtype") == ["zero_shot_plip"]
    with pytest.raises(ConfigError, match="that can be run here"):
        speaking.check_words(config(extraction={"teachers": {"musk": teachers["musk"]}}))


def test_captions_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "some.csv").write_text("slide_id,x,y,caption\n")
    for captions in ("some.csv", "embedded", None):
        asked = config(vision_language={"prompts": WORDS, "captions": captions})
        speaking.check_captions(asked, tmp_path)
    sheet = {"source": "sheet", "sheet": "s.csv"}
    start = {"source": "open_clip", "model": "ViT-B-32", "weights": "random"}
    for section, said in (
        ({"vision_language": {"prompts": WORDS, "captions": "none.csv"}}, "none.csv: no such file"),
        ({"vision_language": {"prompts": WORDS, "captions": "embedded"}}, "vision_language.captio"),
        ({"pairs": {"name": "lab", "start": start}}, "pairs.captions: only the embedded"),
    ):
        with pytest.raises(ConfigError, match=said):
            speaking.check_captions(config(cohort=sheet, **section), tmp_path)


def test_a_job_is_told_of_its_teacher_and_tasks_alone() -> None:
    job = stage_params.vision_language(config(), "plip")
    assert list(job.teachers) == ["plip"] and list(job.tasks) == ["subtype"]
    assert job.vision_language.prompts["subtype"]["a"] == ("glands",)
    assert stage_params.evaluation(config(), "subtype").zero_shot == ("zero_shot_plip",)
    assert "zero_shot" not in stage_params.evaluation(config(), "score").canonical()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"extraction": {"teachers": {"uni": {"acknowledge_licence": True}}}}, "no teacher has a"),
        ({"vision_language": {"prompts": {"subtyp": WORDS["subtype"]}}}, "did you mean `subtype`"),
        ({"vision_language": {"prompts": {"score": WORDS["subtype"]}}}, "the task is a regression"),
        (
            {"tasks": {"subtype": {"type": "classification", "label": "s", "classes": ["a", "c"]}}},
            "`b` is in either the prompts or the task's classes alone",
        ),
        (
            {
                "training": {"models": {"zero_shot_plip": {"kind": "linear", "teacher": "plip"}}},
                "evaluation": {"student": "zero_shot_plip"},
            },
            "the name of zero-shot",
        ),
    ],
)
def test_what_nobody_can_answer_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        speaking.check_words(config(**changes))


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"templates": ["no mark"]}, "must have {} once"),
        ({"prompts": {"subtype": {"a": "x"}}}, "one class alone"),
        ({"prompts": {"subtype": {"a": "x", "b": []}}}, "at least 1 item"),
        ({"prompts": {"subtype": {"a": "x", "b": [" "]}}}, "empty synonym"),
        ({"top_k": [-1]}, "greater than or equal to 0"),
    ],
)
def test_bad_words_are_refused(section: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(vision_language=section)
