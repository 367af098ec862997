from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pipeline.config.extraction import ExtractionConfig
from pipeline.config.probing import ProbingConfig, RobustnessConfig
from pipeline.config.whole import Config
from pipeline.contracts.robustness import Robustness, ShiftRow, write_robustness
from pipeline.report.sections import robustness


def opened(root: Path, *found: Robustness) -> Any:
    for one in found:
        write_robustness(root, one)
    teachers = {one.teacher: {"source": "timm", "model": "x"} for one in found}
    config = Config(
        probing=ProbingConfig(robustness=RobustnessConfig() if found else None),
        extraction=ExtractionConfig.model_validate({"teachers": teachers}),
    )
    return SimpleNamespace(root=root, config=config)


def test_every_encoder_has_a_line_and_its_losses_with_intervals(tmp_path: Path) -> None:
    rows = [
        ShiftRow("blur", 1.0, 0.95, 0.8, 0.9, 0.7, 0.1, 0.02, 0.2),
        ShiftRow("blur", 2.0, 0.9, 0.6, 0.5, 0.5, 0.3, 0.2, 0.4),
    ]
    silent = [ShiftRow(row.shift, row.strength, 0.5, 0.4, 0.1) for row in rows]
    found = robustness.section(
        opened(
            tmp_path,
            Robustness("a", "high", 60, 9, 7, 2, "", 0.8, rows),
            Robustness("b", "high", 60, 9, 7, 0, "no tile has a class", None, silent),
        )
    )
    assert found is not None
    cells = [[cell.html for cell in row] for row in found.table.rows]
    assert [row[:2] for row in cells] == [
        ["a", "blur 1"], ["a", "blur 2"], ["b", "blur 1"], ["b", "blur 2"],
    ]  # fmt: skip
    assert cells[0][4] == "90" and "[0.020, 0.200]" in cells[0][6]
    assert cells[2][5] == "–" and cells[2][6].startswith("–")
    assert "60 tiles of 7 cases" in found.table.read and "2 tiles could not" in found.table.read
    assert ">a<" in found.figure.document and ">b<" in found.figure.document


def test_without_robustness_there_is_no_part(tmp_path: Path) -> None:
    assert robustness.section(opened(tmp_path)) is None
