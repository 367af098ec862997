"""Who imports whom: no circle of modules, and between rooms only downwards."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from pipeline.runtime import stages

PACKAGE = Path(__file__).resolve().parent.parent / "pipeline"

# From the ground up. A room may import those in the rows below its own, and no other.
ROOMS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("runtime",),
    ("config",),
    ("files",),
    ("contracts",),
    ("bags", "encoders", "slides"),
    ("accounting", "aggregators", "tile_reading"),
    ("distillation", "linear", "tile_training"),
    ("forest",),
    tuple(room for room in stages.ROOMS if room not in ("probing", "external")),
    ("external", "probing"),  # they train, or ask what training made
    ("prediction",),
    ("plan",),
    ("commands",),
    ("cli",),
    ("__main__",),
)
LIGHT = (
    "pipeline.config.reading",
    "pipeline.contracts.ledger",
    "pipeline.files.artifacts",
    "pipeline.plan.stage_params",
    "pipeline.plan.stage_versions",
    "pipeline.plan.cohort_plan",
    "pipeline.cli",
    "pipeline.cohort.stage",
    "pipeline.tiling.stage",
    "pipeline.mapping.stage",
    "pipeline.folds.stage",
)

HEIGHT = {room: height for height, rooms in enumerate(ROOMS) for room in rooms}


def test_no_modules_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter(imports()).prepare()
    except CycleError as error:
        raise AssertionError("a circle: " + " -> ".join(error.args[1])) from None


def test_rooms_import_only_rooms_below_them() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, others in imports().items()
        for other in others
        if room(module) != room(other) and HEIGHT[room(module)] <= HEIGHT[room(other)]
    ]
    assert not wrong, "\n".join(wrong)


def test_light_modules_import_no_torch() -> None:
    """A Snakefile that imports torch pays seconds in every dry-run and every cluster job."""
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    if {'torch', 'timm'} & set(sys.modules): sys.exit(name)\n"
    )
    command = [sys.executable, "-c", code, *LIGHT]
    done = subprocess.run(command, cwd=PACKAGE.parent, text=True, stderr=subprocess.PIPE)
    assert done.returncode == 0, f"imported by {done.stderr}"


def test_every_room_has_its_row() -> None:
    assert {room(module) for module in imports()} == set(HEIGHT)


@cache
def imports() -> dict[str, set[str]]:
    """Module -> the package's modules that it imports, also in functions and for types alone."""
    modules = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py"
    }
    return {name: imported(path) & set(modules) - {name} for name, path in modules.items()}


def imported(path: Path) -> set[str]:
    """Every name that a file's import statements may mean: `from a import b` is `a` or `a.b`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{path}: name the package in full"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def room(module: str) -> str:
    return module.split(".")[1]
