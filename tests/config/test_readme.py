"""config/README.md says of every key what it is, and what the code has as its default."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipeline import ROOT
from pipeline.config import models, tasks
from pipeline.config.encoder_distillation import EncoderStudent
from pipeline.config.extraction import TeacherConfig
from pipeline.config.models import (
    ConcatModel,
    ShazamV1Model,
    ShazamV2Model,
    SingleModel,
    distillation_losses,
)
from pipeline.config.pretraining import PretrainedTeacher
from pipeline.config.reading import parse
from pipeline.config.whole import Config
from pipeline.encoders import registry
from tests import tables

README = ROOT / "config" / "README.md"
ROW = re.compile(r"^\| (.+?) \| (.*?) \| (.*) \|$", re.MULTILINE)
BLOCKS: dict[str, Any] = {
    "a teacher": TeacherConfig,
    "a student encoder": EncoderStudent,
    "a pre-trained encoder": PretrainedTeacher,
    "a survival task": tasks.SurvivalTask,
    "a classification task": tasks.ClassificationTask,
    "a regression task": tasks.RegressionTask,
    "a single model": SingleModel,
    "a concat model": ConcatModel,
    "a mean model": models.FusionModel,
    "a linear model": models.LinearModel,
    "a finetuned model": models.FinetunedModel,
    "an ensemble": models.EnsembleModel,
    "a covariates model": models.CovariatesModel,
    "a shazam_v1 model": ShazamV1Model,
    "a shazam_v2 model": ShazamV2Model,
}


def rows() -> list[tuple[str, str, str, str]]:
    """Block (empty for the sections), key, default and meaning of each row of `Every key`."""
    text = README.read_text().split("## Every key")[1].split("\n## ")[0]
    found, block = [], ""
    for key, default, meaning in ROW.findall(text)[1:]:
        if key.startswith("**"):
            block = key.strip("*").split(" (")[0]
        elif not key.startswith("-"):
            found.append((block, key.strip("`"), default.strip(" `"), meaning.strip()))
    return found


def fields(model: type[BaseModel], path: str = "") -> dict[str, FieldInfo]:
    """Dotted key → field, those of inner sections included."""
    found: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        found[path + name] = field
        kinds = (field.annotation, *get_args(field.annotation))
        inner = next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)
        if inner is not None and name not in ("sized_as", "encoder"):
            found |= fields(inner, f"{path}{name}.")
    return found


@pytest.mark.parametrize("page", tables.MADE, ids=lambda page: page.parent.name)
def test_tables_are_as_the_code_has_it(page: Path) -> None:
    assert page.read_text() == tables.with_table(page), f"run: {tables.COMMAND}"


def test_no_meaning_is_empty() -> None:
    assert len(rows()) > 150
    assert [key for _, key, _, meaning in rows() if not meaning] == []


def test_defaults_are_those_of_the_code() -> None:
    for block, key, default, _ in rows():
        known = fields(BLOCKS[block] if block else Config)
        if block == "a mean model":
            known |= fields(models.SizableFusion)
        field = known[key]
        if field.is_required() or default == "required":
            assert (field.is_required(), default) == (True, "required"), f"{block} {key}"
        elif default:
            value = field.get_default(call_default_factory=True)
            written = default if isinstance(value, str) else yaml.safe_load(default)
            assert written == _plain(value), f"{block} {key}"


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_has_every_key_of_its_section(block: str) -> None:
    """Those of an aggregator or a loss stand in the tables that are made of their files."""
    listed = {key for of, key, _, _ in rows() if of == block}
    own = {f"distillation.{key.name}" for e in distillation_losses().values() for key in e.keys}
    leaves = (
        set(fields(BLOCKS[block]))
        - own
        - {
            "distillation",
            "losses",
            "augmentation",
            "course",
            "views",
            "alarms",
        }
    )
    if block == "a pre-trained encoder":  # its course is a student's
        leaves = {leaf for leaf in leaves if not leaf.startswith("course.")}
    if block == "a mean model":
        leaves.add("sized_as")
    assert listed == leaves


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def test_the_config_of_ones_own_on_the_first_page_is_valid() -> None:
    page = (ROOT / "README.md").read_text()
    (text,) = re.findall(r"^ *```yaml\n(.*?)^ *```", page, re.DOTALL | re.MULTILINE)
    text = textwrap.dedent(text)
    assert len(text.splitlines()) <= 15
    config = parse(yaml.safe_load(text))
    teachers = config.extraction.teachers
    assert config.cohort.source == "sheet"
    named = {f"single_{t}" for t in teachers} | {"concat", "shazam_v2"}
    controls = {f"{of}_{t}" for of in ("linear", "shazam_v2_on") for t in teachers}
    assert set(config.model_specs()) == named | controls | {"shazam_v2_without_distillation"}
    for name, facts in teachers.items():
        assert registry.check(name, facts).name == name


MARK = re.compile(r"\(demo; default: (.+?)\) \w")


def test_config_yaml_says_where_it_is_not_the_default() -> None:
    text = (ROOT / "config" / "config.yaml").read_text()
    lines, data = places(yaml.compose(text)), yaml.safe_load(text)
    told = text.splitlines()
    for path, field in fields(Config).items():
        line = lines.get(path)
        if line is None:  # a key of each teacher, or of a section that is off
            continue
        mark, value = MARK.search(told[line]), data
        for part in path.split("."):
            value = value[part]
        default = _plain(field.get_default(call_default_factory=True))
        if isinstance(default, dict) and default:  # a section, whose keys are looked at themselves
            continue
        assert (mark is not None) == (value != default), f"{path}: {told[line]}"
        if mark is not None:
            assert yaml.safe_load(mark[1]) == default, f"{path}: {told[line]}"


def places(node: yaml.MappingNode, path: str = "") -> dict[str, int]:
    """Dotted key of a YAML mapping → the line that it stands in, from 0."""
    found: dict[str, int] = {}
    for key, value in node.value:
        found[path + key.value] = key.start_mark.line
        if isinstance(value, yaml.MappingNode):
            found |= places(value, f"{path}{key.value}.")
    return found
