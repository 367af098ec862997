"""What a teacher learned from captions, on the page."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.config.reading import parse
from pipeline.contracts.paired import PairedFacts, write_paired
from pipeline.errors import ArtifactError
from pipeline.report.results import Results
from pipeline.report.sections import pairs

CONFIG: dict[str, Any] = {
    "pairs": {
        "name": "lab",
        "start": {"source": "open_clip", "model": "coca_ViT-B-32", "weights": "random"},
        "objective": "coca",
    }
}
NUMBERS = {f"{way}_{k}": k / 20 for way in ("tile_to_text", "text_to_tile") for k in (1, 5, 10)}


@pytest.fixture
def opened(tmp_path: Path) -> Results:
    facts = PairedFacts(
        teacher="lab", objective="coca", train="heads", parameters=5000, trained_parameters=1200,
        learned_cases=["a", "b"], held_out_cases=["c"], learned_tiles=90, held_out_tiles=40,
        texts=30, captions_cut=2, captions_without_tiles=0, steps=20, best_step=10,
        judged_tiles=32, judged_texts=9, chance={key: 0.01 for key in NUMBERS},
        held_out={"start": {"score": -4.0, **NUMBERS},
                  "learned": {"score": -2.0, **{k: 2 * v for k, v in NUMBERS.items()}}},
    )  # fmt: skip
    folder = tmp_path / "teachers/lab"
    write_paired(folder, facts)
    curve = {"step": [10, 20], "loss": [3.0, 2.0], "score": [-3.0, -2.5], "caption_loss": [4, 3],
             "tile_to_text_5": [0.3, 0.4]}  # fmt: skip
    pd.DataFrame(curve).to_csv(folder / "curve.csv", index=False)
    said = [{"slide_id": f"s{i}", "x": 0, "y": 0, "caption": "<nests>", "written": ""}
            for i in range(10)]  # fmt: skip
    pd.DataFrame(said).to_csv(folder / "written.csv", index=False)
    empty = pd.DataFrame()
    return Results(
        root=tmp_path, config=parse(CONFIG), cohort={}, flow={}, slides=empty, cases=empty,  # type: ignore[arg-type]
        coverage=empty, ledger=empty, tiling={}, features={},
    )  # fmt: skip


def test_recall_stands_before_and_after_and_beside_chance(opened: Results) -> None:
    found = pairs.section(opened)
    assert found is not None
    rows = [[cell.html for cell in row] for row in found.recall.rows]
    assert rows[0] == ["tile → text", "as it started", "0.050", "0.250", "0.500"]
    assert rows[1] == ["tile → text", "after learning", "0.100", "0.500", "1.000"]
    assert rows[5] == ["text → tile", "by chance", "0.010", "0.010", "0.010"]
    assert "1,200 of 5,000 parameters" in found.sentences[0]
    assert "90 tiles of 2 cases with 30 different captions" in found.sentences[0]
    assert any("2 captions are longer" in sentence for sentence in found.sentences)


def test_written_captions_stand_beside_the_tiles_own(opened: Results) -> None:
    found = pairs.section(opened)
    assert found is not None and found.written is not None and found.course is not None
    assert [cell.html for cell in found.written.rows[0]] == ["s0", "&lt;nests&gt;", "–"]
    assert found.written.more == "2 more are in the file."
    assert "caption loss per word" in found.course.document
    (opened.root / "teachers/lab/written.csv").unlink()
    without = pairs.section(opened)
    assert without is not None and without.written is None


def test_nothing_is_shown_without_pairs_and_facts_must_be_there(opened: Results) -> None:
    assert pairs.section(dataclasses.replace(opened, config=parse({}))) is None
    (opened.root / "teachers/lab/facts.json").unlink()
    with pytest.raises(ArtifactError, match=r"facts\.json"):
        pairs.section(opened)
