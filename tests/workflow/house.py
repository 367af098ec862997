"""A working copy of the workflow on a tiny embedded cohort, to run, change and plan again."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path

import yaml
from warm import Ended, warm

REPOSITORY = Path(__file__).resolve().parent.parent.parent

TINY = {
    "cohort": {
        "name": "tiny",
        "chunks": 2,
        "synthetic": {
            "cases": 12,
            "slide_px": [1000, 1200],
            "censoring": 0.2,
            "broken_slides": False,
            "two_slide_fraction": 0.1,
        },
    },
    "tiling": {"tile_px": 224, "target_mpp": 1.0, "min_tissue_fraction": 0.3},
    "extraction": {
        "teachers": {
            "resnet10t": {
                "source": "timm",
                "model": "resnet10t",
                "weights": "random",
                "seed": 1,
                "input_px": 64,
            },
            "vit_tiny": {
                "source": "timm",
                "model": "vit_tiny_patch16_224",
                "weights": "random",
                "seed": 2,
                "input_px": 64,
            },
        }
    },
    "mapping": {"max_failed_fraction": 0.5},
    "probing": {
        "folds": 2,
        "members": 0,
        "neighbours": [1],
        "shots": [1],
        "episodes": 2,
        "bootstraps": 50,
        "min_cover": 0.0,
    },
    "tasks": {"survival": {"type": "survival", "time": "time", "event": "event", "loss": "cox"}},
    "folds": {"k": 2, "validation_fraction": 0.4},
    "training": {
        "models": {
            "single": {"kind": "single", "d_model": 16},
            "shazam_v2": {"kind": "shazam_v2", "d_model": 16, "layers": 1},
        },
        "epochs": 3,
    },
    "evaluation": {"student": "shazam_v2", "attribution": False, "bootstraps": 50},
}


@dataclasses.dataclass
class House:
    """A copy of the repository's code with a config, and the results made there."""

    path: Path

    @classmethod
    def build(cls, path: Path, config: dict) -> House:
        for part in ("pipeline", "workflow", "envs", "profiles"):
            shutil.copytree(
                REPOSITORY / part, path / part, ignore=shutil.ignore_patterns("__pycache__")
            )
        (path / "config").mkdir()
        house = cls(path)
        house.write_config(config)
        return house

    def copy(self, path: Path) -> House:
        shutil.copytree(self.path, path, copy_function=shutil.copy2, symlinks=True)
        return House(path)

    def config(self) -> dict:
        return yaml.safe_load((self.path / "config" / "config.yaml").read_text())

    def write_config(self, config: dict) -> None:
        (self.path / "config" / "config.yaml").write_text(yaml.safe_dump(config))

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.path / file
        text = path.read_text()
        assert old in text, f"{file} no longer contains {old!r}"
        path.write_text(text.replace(old, new, 1))

    def environment(self) -> dict[str, str]:
        """So that this copy's package runs, here and in the jobs."""
        return os.environ | {
            "PYTHONPATH": str(self.path),
            "XDG_CACHE_HOME": str(self.path / ".cache"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
        }

    def run(
        self, *arguments: str, check: bool = True, environment: dict[str, str] | None = None
    ) -> Ended:
        """Snakemake with these arguments, in a child of a process that has imported it."""
        argv = ["snakemake", "--show-failed-logs", *arguments]
        done = warm().run(argv, self.path, self.environment() | (environment or {}))
        if check and done.returncode:
            raise AssertionError(f"snakemake failed:\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}")
        return done

    def planned(self, *arguments: str) -> dict[str, set[str]]:
        """What would run: job (rule and wildcards) -> the reasons Snakemake gives."""
        done = warm().run(["planner", *arguments], self.path, self.environment())
        assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        jobs = json.loads(done.stdout.splitlines()[-1])
        return {name: set(reasons) for name, reasons in jobs.items() if name != "all"}
