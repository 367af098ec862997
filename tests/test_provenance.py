"""The code fingerprint: what counts as a change, and which stage it touches."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import provenance

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A toy package `pipeline`: a imports leaf, b imports nothing, page has a template."""
    root = tmp_path / "pipeline"
    for folder in ("", "a", "b", "page"):
        (root / folder).mkdir(exist_ok=True)
        (root / folder / "__init__.py").write_text("")
    (root / "leaf.py").write_text('"""Doc."""\n\nX = 1\n')
    (root / "a" / "stage.py").write_text(
        "def run():\n    from pipeline.leaf import X\n    return X\n"
    )
    (root / "b" / "stage.py").write_text("from ..b import other\n")
    (root / "b" / "other.py").write_text("Y = 2\n")
    (root / "page" / "stage.py").write_text("Z = 3\n")
    (root / "page" / "page.html").write_text("<p>")
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    provenance._facts.cache_clear()
    yield root
    provenance._facts.cache_clear()


def prints() -> dict[str, str]:
    provenance._facts.cache_clear()
    return {s: provenance.code_fingerprint(f"pipeline.{s}.stage") for s in ("a", "b", "page")}


def changed(before: dict[str, str]) -> set[str]:
    return {stage for stage, value in prints().items() if value != before[stage]}


def test_comments_docstrings_and_layout_do_not_count(package: Path) -> None:
    before = prints()
    (package / "leaf.py").write_text('"""Other words."""\n# a remark\nX   =   1\n')
    assert changed(before) == set()


def test_a_change_touches_the_stages_that_import_it(package: Path) -> None:
    before = prints()
    (package / "leaf.py").write_text("X = 2\n")
    assert changed(before) == {"a"}  # imported inside a function


def test_relative_imports_are_followed(package: Path) -> None:
    before = prints()
    (package / "b" / "other.py").write_text("Y = 3\n")
    assert changed(before) == {"b"}


def test_templates_count_as_code(package: Path) -> None:
    before = prints()
    (package / "page" / "page.html").write_text("<h1>")
    assert changed(before) == {"page"}


def test_unused_modules_do_not_count(package: Path) -> None:
    before = prints()
    (package / "unused.py").write_text("print(1)\n")
    assert changed(before) == set()


def test_a_missing_module_is_an_error(package: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"pipeline\.c\.stage"):
        provenance.code_fingerprint("pipeline.c.stage")


def test_digest_ignores_the_order_of_keys() -> None:
    assert provenance.digest({"a": 1, "b": 2}) == provenance.digest({"b": 2, "a": 1})
    assert provenance.digest("a", 1) != provenance.digest("a", 2)


def test_a_clone_has_the_same_fingerprints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = provenance.code_fingerprint("pipeline.folds.stage")
    shutil.copytree(
        REPOSITORY / "pipeline", tmp_path / "pipeline", ignore=shutil.ignore_patterns("__pycache__")
    )
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    provenance._facts.cache_clear()
    assert provenance.code_fingerprint("pipeline.folds.stage") == here
    provenance._facts.cache_clear()


LIGHT = (
    "pipeline.config.reading",
    "pipeline.provenance",
    "pipeline.contracts.ledger",
    "pipeline.files.artifacts",
    "pipeline.plan.stage_params",
    "pipeline.plan.cohort_plan",
    "pipeline.cli",
    "pipeline.cohort.stage",
    "pipeline.tiling.stage",
    "pipeline.mapping.stage",
    "pipeline.folds.stage",
)


def test_light_modules_import_no_torch() -> None:
    """A Snakefile that imports torch pays seconds in every dry-run and every cluster job."""
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    if {'torch', 'timm'} & set(sys.modules): sys.exit(name)\n"
    )
    command = [sys.executable, "-c", code, *LIGHT]
    done = subprocess.run(command, cwd=REPOSITORY, text=True, stderr=subprocess.PIPE)
    assert done.returncode == 0, f"imported by {done.stderr}"


# The sections of the config that a stage's code reads besides its own. The report shows all.
SECTIONS = {
    "cohort": {"tasks"},  # labels are checked when the sheet is read
    "tiling": set(),
    "extraction": set(),
    "mapping": set(),
    "folds": {"tasks"},
    "probing": set(),
    "training": {"tasks", "models", "registry"},
    "evaluation": {"tasks"},
}
STAGES = (*SECTIONS, "report")


@pytest.mark.parametrize("stage", STAGES)
def test_stages_never_import_each_other(stage: str) -> None:
    others = {f"pipeline.{other}" for other in STAGES if other != stage}
    found = {
        module
        for module in provenance.closure(f"pipeline.{stage}.stage")
        if any(module == other or module.startswith(other + ".") for other in others)
    }
    assert not found, f"{stage} imports {sorted(found)}: move what they share to a lower folder"


@pytest.mark.parametrize("stage", SECTIONS)
def test_a_stages_code_holds_only_its_own_sections_of_the_config(stage: str) -> None:
    """Else a new key of one stage makes every stage's results stale after an upgrade."""
    here = "pipeline.config."
    closure = provenance.closure(f"pipeline.{stage}.stage")
    found = {module.removeprefix(here) for module in closure if module.startswith(here)}
    assert found == {"section", stage} | SECTIONS[stage]
