"""What a dry-run says of each teacher: what it is, its licence, and where its weights are.

Nothing is asked of a network, and torch is not imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.config.whole import Config
from pipeline.encoders.slide_level.inputs import every_teacher, input_of
from pipeline.encoders.slide_level.registry import SLIDE
from pipeline.encoders.teachers import outlook
from pipeline.extraction.locate import expected_files

# A container sees the host's drivers, but only the devices that it was given.
GPUS = "dev/nvidia[0-9]*"


def told(config: Config, slides: Mapping[str, str], machine: Path = Path("/")) -> list[str]:
    """A line for each teacher, and one for the GPUs of this machine where encoders run.

    Args:
        config: the config.
        slides: slide id -> case id.
        machine: the root of its file system.
    """
    lines = ["Teachers:"]
    for name, cfg in every_teacher(config).items():
        if cfg.source == "import":
            files = expected_files(name, cfg, slides)
            there = sum(path is not None and path.is_file() for path in files.values())
            said = f"imported from {cfg.path}: {there} of {len(files)} slides have a file"
        else:
            said = outlook(name, cfg, config.extraction.weights_dir)
        if cfg.source == SLIDE:
            said += f"; reads {input_of(config, name)}"
        if name not in config.extraction.teachers:
            said += "; for slide encoders alone, no model learns from it"
        lines.append(f"  {name}: {said}")
    if any(cfg.source != "import" for cfg in every_teacher(config).values()):
        gpus = len(list(machine.glob(GPUS)))
        here = (
            f"{gpus} on this machine" if gpus else "none on this machine, encoders run on the CPU"
        )
        lines.append(f"  GPUs: {here} (jobs of a cluster see those of their own node)")
    return lines
