"""A mistake in the config or the sheet ends the parse with a message, before any work starts."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from house import TINY, House


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House.build(tmp_path_factory.mktemp("bare") / "run", TINY)


def sheet(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def rows(number: int = 12) -> list[dict[str, object]]:
    return [
        {"slide_id": f"s{i}", "case_id": f"c{i}", "path": "", "time": i + 1, "event": i % 2}
        for i in range(number)
    ]


def config(**changes: object) -> dict:
    data = {**TINY, "cohort": {"name": "mine", "source": "sheet", "sheet": "sheet.csv"}}
    data["extraction"] = {"teachers": {"made": {"source": "import", "path": "features"}}}
    data["training"] = {"models": {"single": {"kind": "single"}}}
    data["evaluation"] = {"student": "single_made"}
    return {**data, **changes}


def refused(house: House, data: dict, table: list[dict[str, object]]) -> str:
    sheet(house.path / "sheet.csv", table)
    house.write_config(data)
    done = house.run("-n", check=False)
    assert done.returncode != 0
    assert not (house.path / "results").exists(), "no work may start"
    output = done.stdout + done.stderr
    assert "Traceback" not in output
    return output


def test_a_misspelt_key(bare: House) -> None:
    assert "did you mean `folds`" in refused(bare, config(fold={"k": 3}), rows())


def test_a_misspelt_teacher(bare: House) -> None:
    data = config(extraction={"teachers": ["uni2_hh"]}, evaluation={"student": "single_uni2_hh"})
    assert "`uni2_h`" in refused(bare, data, rows())


def test_a_missing_sheet(bare: House) -> None:
    data = config()
    data["cohort"] = data["cohort"] | {"sheet": "other.csv"}
    assert "other.csv" in refused(bare, data, rows())


def test_a_missing_column(bare: House) -> None:
    table = [{("tyme" if k == "time" else k): v for k, v in row.items()} for row in rows()]
    message = refused(bare, config(), table)
    assert "survival" in message
    assert "tyme" in message, "the nearest column is named"


def test_duplicate_slides_conflicting_labels_and_odd_events_in_one_message(bare: House) -> None:
    table = rows()
    table[3]["event"] = 2
    table[5]["time"] = -4
    message = refused(bare, config(), table)
    assert "event" in message
    assert "-4" in message
    table = rows()
    table[1]["slide_id"] = "s0"
    assert "s0" in refused(bare, config(), table)
    table = rows()
    table[1]["case_id"] = "c0"
    assert "c0" in refused(bare, config(), table)


def test_a_missing_slide_file(bare: House) -> None:
    table = rows()
    table[7]["path"] = "slides/gone.svs"
    assert "gone.svs" in refused(bare, config(), table)


def test_fewer_cases_than_folds(bare: House) -> None:
    assert "fold" in refused(bare, config(folds={"k": 9}), rows(6))


@pytest.mark.parametrize("slide_id", ["../../x", "a/b", "$(touch x)", "a\nb", "a'b", ".hidden"])
def test_slide_ids_are_data_not_paths_or_commands(bare: House, slide_id: str) -> None:
    table = rows()
    table[2]["slide_id"] = slide_id
    assert "slide_id" in refused(bare, config(), table)
