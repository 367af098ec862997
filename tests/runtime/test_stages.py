"""Every stage is declared once, with all that belongs to it, and nobody else lists them."""

from __future__ import annotations

import ast
import inspect
import re
import sys

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from pipeline import ROOT
from pipeline.cli import app
from pipeline.commands.declared import command
from pipeline.commands.options import OPTIONS
from pipeline.config.cohort import CohortJob
from pipeline.config.probing import ProbingConfig
from pipeline.config.whole import Config
from pipeline.plan import stage_params
from pipeline.runtime.stages import ALSO, ROOMS, STAGES, TABLES, Stage, stage
from tests.test_imports import imported, imports

RULES = ROOT / "workflow" / "rules"
PACKAGES = {
    "scikit-learn": "sklearn",
    "scikit-survival": "sksurv",
    "openslide-python": "openslide",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "open_clip_torch": "open_clip",
}
# They read, write, check and draw; the numbers are the same with another version.
CARRIERS = {
    *("pyarrow", "pydantic", "yaml", "typer", "jinja2", "markupsafe", "_typeshed"),
    *("safetensors", "huggingface_hub", "tensorboardX", "threadpoolctl"),
}
# Loaded by name, which no import statement shows.
REGISTERED = ("pipeline.aggregators.", "pipeline.training.losses.", "pipeline.distillation.losses.")

MODULES = ("slides", "cases")  # of `pipeline.commands`; the others are tools and options

each = pytest.mark.parametrize("one", STAGES, ids=lambda one: one.name)


def test_every_rule_is_a_stage_and_every_stage_a_rule() -> None:
    rules = {}
    for file in RULES.glob("*.smk"):
        for name in re.findall(r"^ *rule (\w+):", file.read_text(), re.MULTILINE):
            rules[name] = file.stem
    assert rules == {one.name: one.room for one in STAGES} | {
        name: stage(name).room for name in ALSO
    }
    assert {file.stem for file in RULES.glob("*.smk")} == {*ROOMS, "common"}


@each
def test_a_stage_has_its_room_its_config_and_its_command(one: Stage) -> None:
    assert (ROOT / "pipeline" / one.room / "stage.py").is_file()
    assert set(one.config) <= set(Config.model_fields)
    done = CliRunner().invoke(app, [*one.command.split(), "--help"])
    assert done.exit_code == 0, done.output
    rule = (RULES / f"{one.room}.smk").read_text()
    assert f"python -m pipeline {one.command} " in " ".join(rule.split())
    assert inspect.getdoc(command(one))


@pytest.mark.parametrize("one", [one for one in STAGES if one.job], ids=lambda one: one.name)
def test_a_declared_command_fits_its_run(one: Stage) -> None:
    """`run` takes the job, the results folder and the options, and nothing else."""
    assert not one.function
    wanted = {"job", "root", *one.options} - {"gpus"}
    assert set(inspect.signature(one.run()).parameters) == wanted
    assert set(one.options) <= set(OPTIONS)
    fields = one.job_class().model_fields
    assert set(fields) & {*one.config, "task"}, "a job without its section"


def test_what_a_job_is_told_is_sections_and_parts() -> None:
    config = Config.model_validate({"cohort": {"name": "mine"}})
    job = stage_params.of("cohort", config, sheet="digest")
    assert job == CohortJob(cohort=config.cohort, tasks={}, sheet="digest")
    with pytest.raises(ValidationError, match="shoot"):
        stage_params.of("cohort", config, shoot="digest")
    with pytest.raises(ValidationError, match="manifests"):
        stage_params.of("probing", config, tiles="tiles", annotations="")


def test_a_section_that_a_stage_declares_is_part_of_the_config() -> None:
    """And is off where the config does not have it."""
    assert Config().section(ProbingConfig) is None
    config = Config.model_validate({"probing": {"seed": 3}})
    assert config.section(ProbingConfig) == ProbingConfig(seed=3)
    with pytest.raises(ValidationError, match="sed"):
        Config.model_validate({"probing": {"sed": 3}})


def test_every_command_is_a_stage_or_a_tool() -> None:
    """A stage that nobody declared has no command."""
    commands = {
        node.name: file.stem
        for file in (ROOT / "pipeline" / "commands").glob("*.py")
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }
    found = {
        f"{module}:{name}" for name, module in commands.items() if module in ("slides", "cases")
    }
    assert found == {one.function for one in STAGES if one.function}


@each
def test_libraries_are_those_that_the_stage_imports(one: Stage) -> None:
    """Those of its own modules, and of all that they import."""
    modules = imports()
    todo = [f"pipeline.{_module(one)}"]
    if "torch" in one.libraries and one.room in ("training", "probing"):
        todo += [name for name in modules if name.startswith(REGISTERED)]
    seen: set[str] = set()
    third: set[str] = set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        todo += modules[name]
        path = ROOT.joinpath(*name.split(".")).with_suffix(".py")
        third |= {found.split(".")[0] for found in imported(path)}
    third -= {"pipeline", *sys.stdlib_module_names, *CARRIERS}
    assert {PACKAGES.get(name, name) for name in one.libraries} == third


def test_nobody_else_lists_stages() -> None:
    """Four names of stages in one statement are a list of stages."""
    names = {one.name for one in STAGES} - set(Config.model_fields)
    wrong = []
    for path in (ROOT / "pipeline").rglob("*.py"):
        if path.name == "stages.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Tuple | ast.List | ast.Set | ast.Dict):
                parts = node.keys if isinstance(node, ast.Dict) else node.elts
                found = {part.value for part in parts if isinstance(part, ast.Constant)}
                if len(found & names) > 1:
                    wrong.append(f"{path}:{node.lineno}")
    assert not wrong


def test_what_is_written_last_is_written_by_one_stage() -> None:
    assert len(set(TABLES)) == len(TABLES)


def test_a_name_of_no_stage_is_an_error() -> None:
    with pytest.raises(KeyError):
        stage("tilling")
    assert stage("extraction_import").name == "extraction"


def _module(one: Stage) -> str:
    """The module that a stage's command calls."""
    own = {
        "tiling_overview": "tiling.overview",
        "extraction_check": "extraction.check",
    }
    return one.module or own.get(one.name, f"{one.room}.stage")
