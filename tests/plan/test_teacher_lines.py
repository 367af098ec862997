"""What a dry-run says of each teacher."""

from __future__ import annotations

from pathlib import Path

from pipeline.config.reading import parse
from pipeline.plan.teacher_lines import told


def test_each_teacher_has_a_line(tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    (given / "s1.h5").touch()
    (tmp_path / "dev").mkdir()
    for name in ("nvidia0", "nvidiactl", "nvidia-uvm"):
        (tmp_path / "dev" / name).touch()
    imported = {"source": "import", "path": str(given)}
    made = {"source": "timm", "model": "resnet10t", "weights": "random"}
    config = parse({"extraction": {"teachers": {"old": imported, "new": made}}})
    lines = told(config, {"s1": "c1", "s2": "c1"}, tmp_path)
    assert lines[1].endswith("1 of 2 slides have a file") and lines[1].startswith("  old: imported")
    assert lines[2].startswith("  new: timm's resnet10t")
    assert "GPUs: 1 on this machine" in lines[3]
    alone = parse({"extraction": {"teachers": {"old": imported}}})
    assert len(told(alone, {"s1": "c1"}, tmp_path)) == 2, "imported features need no GPU"
