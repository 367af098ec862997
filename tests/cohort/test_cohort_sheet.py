"""The slide sheet: other tools' tables are read as they are, and mistakes are all said at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cohort import sheet
from pipeline.cohort.checks import report
from pipeline.config.cohort import CohortConfig
from pipeline.contracts.ledger import chunk_of
from pipeline.contracts.slide_row import SlideRow
from pipeline.contracts.values import filled, number
from pipeline.errors import SheetError


def read(folder: Path, text: str | bytes, **config: object) -> list[SlideRow]:
    path = folder / "sheet.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    cfg = CohortConfig(name="t", source="sheet", sheet="sheet.csv", **config)  # type: ignore[arg-type]
    return sheet.read_sheet(cfg, folder)


def refused(folder: Path, text: str | bytes, **config: object) -> str:
    with pytest.raises(SheetError) as caught:
        read(folder, text, **config)
    return str(caught.value)


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    for name in ("a.svs", "b.svs"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


# --- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff", "\r\n"])
def test_separators_byte_order_marks_and_blank_lines(
    slides: Path, separator: str, start: str
) -> None:
    lines = ["slide_id,case_id,path,mpp,grade", "a,c1,a.svs,0.25,G1", "", ",,,,", "b,c1,b.svs,,NA"]
    rows = read(slides, start + "\r\n".join(lines).replace(",", separator))
    assert [(r.slide_id, r.case_id, r.mpp, r.labels) for r in rows] == [
        ("a", "c1", 0.25, {"grade": "G1"}),
        ("b", "c1", None, {"grade": ""}),
    ]
    assert rows[0].path == str(slides / "a.svs")


def test_a_header_longer_than_a_field_may_be(slides: Path) -> None:
    genes = [f"ENSG{i:011d}" for i in range(9000)]
    lines = [["slide_id", "case_id", "path", *genes], ["a", "c1", "a.svs", *["1"] * len(genes)]]
    (row,) = read(slides, "\n".join(",".join(line) for line in lines))
    assert list(row.labels) == genes


def test_paths_start_from_the_sheet_or_from_slide_root(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    for folder in (tmp_path, tmp_path / "far"):
        (folder / "a.svs").write_text("x")
    text = "slide_id,case_id,path\na,c,a.svs\n"
    assert read(tmp_path, text)[0].path == str(tmp_path / "a.svs")
    assert read(tmp_path, text, slide_root="far")[0].path == str(tmp_path / "far" / "a.svs")
    absolute = f"slide_id,case_id,path\na,c,{tmp_path / 'far' / 'a.svs'}\n"
    assert read(tmp_path, absolute)[0].path == str(tmp_path / "far" / "a.svs")


def test_one_column_for_name_and_file_as_trident_has_it(slides: Path) -> None:
    columns = {"slide_id": "wsi", "case_id": "wsi", "path": "wsi"}
    rows = read(slides, "wsi,mpp\na.svs,0.5\nb.svs,0.25\n", columns=columns)
    assert [(r.slide_id, r.case_id, r.mpp) for r in rows] == [("a", "a", 0.5), ("b", "b", 0.25)]
    assert rows[1].path == str(slides / "b.svs")
    assert rows[0].labels == {}


def test_stamp_columns(slides: Path) -> None:
    columns = {"slide_id": "FILENAME", "case_id": "PATIENT", "path": "FILENAME"}
    rows = read(slides, "PATIENT,FILENAME,isMSIH\np1,a.svs,no\np2,b.svs,yes\n", columns=columns)
    assert [(r.slide_id, r.case_id, r.labels) for r in rows] == [
        ("a", "p1", {"isMSIH": "no"}),
        ("b", "p2", {"isMSIH": "yes"}),
    ]


def test_a_sheet_without_paths_serves_imported_features(tmp_path: Path) -> None:
    rows = read(tmp_path, "slide_id,case_id,time\ns1,c1,3\ns2,c2,4\n")
    assert [r.path for r in rows] == ["", ""]
    assert sheet.identity(rows[0]) == "none"


def test_an_index_column_without_name_is_not_a_label(tmp_path: Path) -> None:
    rows = read(tmp_path, ",slide_id,case_id,age\n0,s1,c1,50\n1,s2,c2,60\n")
    assert rows[1].labels == {"age": "60"}


@pytest.mark.parametrize(
    "slide_id",
    ["TCGA-3Z-A93Z-01Z-00-DX1.79F4D1A6", "H&E".replace("&", "+"), "a b (2)", "Präparat_7", "a=1@x"],
)
def test_ids_of_real_life_pass(tmp_path: Path, slide_id: str) -> None:
    assert read(tmp_path, f"slide_id,case_id\n{slide_id},c\n")[0].slide_id == slide_id


# --- what is refused ------------------------------------------------------------------------------


def test_the_sheet_itself(tmp_path: Path) -> None:
    cfg = CohortConfig(name="t", source="sheet", sheet="none.csv")
    with pytest.raises(SheetError, match=r"none\.csv: no such file"):
        sheet.read_sheet(cfg, tmp_path)
    (tmp_path / "none.csv").mkdir()
    with pytest.raises(SheetError, match="a folder"):
        sheet.read_sheet(cfg, tmp_path)
    assert "empty" in refused(tmp_path, "")
    assert "no row" in refused(tmp_path, "slide_id,case_id\n")
    assert "not UTF-8" in refused(tmp_path, "slide_id,case_id\nä,c\n".encode("latin-1"))
    assert "not a text table" in refused(tmp_path, b"PK\x03\x04\0\0")
    (tmp_path / "t.xlsx").write_bytes(b"PK")
    with pytest.raises(SheetError, match="save the table as CSV"):
        sheet.read_sheet(CohortConfig(name="t", source="sheet", sheet="t.xlsx"), tmp_path)


def test_columns(tmp_path: Path) -> None:
    message = refused(tmp_path, "slideid,case_id\ns,c\n")
    assert "no column `slide_id` (cohort.columns.slide_id); did you mean `slideid`?" in message
    message = refused(tmp_path, "slide_id,case_id\ns,c\n", columns={"site": "hospital"})
    assert "no column `hospital` (cohort.columns.site)" in message
    assert "twice" in refused(tmp_path, "slide_id,case_id,age,age\ns,c,1,2\n")
    for name in ("chunk", "identity", "n_slides"):
        assert f"column `{name}`" in refused(tmp_path, f"slide_id,case_id,{name}\ns,c,1\n")
    message = refused(tmp_path, "slide_id,case_id,note\ns,c,a, b\nt,d,x\n")
    assert "row 2: 4 fields where the header has 3" in message
    assert "row 3" not in message


def test_every_problem_of_the_rows_in_one_message(tmp_path: Path) -> None:
    (tmp_path / "a.svs").write_text("x")
    text = (
        "slide_id,case_id,path,mpp,site\n"
        "a,c1,a.svs,0.25,N\n"
        "a,c2,gone.svs,0.5,N\n"
        ",c3,gone2.svs,25,N\n"
        "d/../e,c1,,0\u002c5,S\n"
    ).replace("0,5", '"0,5"')
    message = refused(tmp_path, text)
    for part in (
        "sheet.csv: 9 problem(s)",
        "row 3, column `slide_id`: `a` is in row 2 already",
        "row 4, column `slide_id`: empty",
        "row 5, column `slide_id`: 'd/../e' cannot be a file name",
        "row 4, column `mpp`: '25' is not a number of microns",
        "row 5, column `mpp`: '0,5'",
        "case `c1` has different values in column `site`: 'N' (row 2), 'S' (row 5)",
        f"row 3: no file {tmp_path / 'gone.svs'}",
        "row 5, column `path`: empty",
    ):
        assert part in message


@pytest.mark.parametrize(
    "bad",
    ["../x", "a/b", "a\\b", "$(id)", "a'b", '""""', ".hid", "-rf", "a\x07", "x" * 201],
)
@pytest.mark.parametrize("column", ["slide_id", "case_id", "site"])
def test_ids_are_never_paths_or_commands(tmp_path: Path, column: str, bad: str) -> None:
    values = {"slide_id": "s", "case_id": "c", "site": "h", column: bad}
    fields = ",".join(v if v == '""""' else f'"{v}"' for v in values.values())
    assert f"row 2, column `{column}`" in refused(tmp_path, f"slide_id,case_id,site\n{fields}\n")


def test_missing_files_can_go_to_the_ledger_instead(tmp_path: Path) -> None:
    text = "slide_id,case_id,path\n" + "".join(f"s{i},c{i},s{i}.svs\n" for i in range(30))
    message = refused(tmp_path, text)
    assert "row 21" in message and "row 22" not in message
    assert "and 10 more" in message
    rows = read(tmp_path, text, missing_files="ledger")
    assert len(rows) == 30
    assert sheet.identity(rows[0]) == "missing"


def test_a_file_stands_for_one_slide(slides: Path) -> None:
    message = refused(slides, "slide_id,case_id,path\na,c1,a.svs\nb,c2,a.svs\n")
    assert "row 3: the same file as row 2" in message


def test_folders_are_slides_only_as_dicom(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    text = "slide_id,case_id,path\ns,c,d\n"
    assert "folder without DICOM files" in refused(tmp_path, text)
    (tmp_path / "d.mrxs").write_text("x")
    assert "name `d.mrxs` next to it" in refused(tmp_path, text)
    (tmp_path / "d" / "1.dcm").write_text("x")
    assert len(read(tmp_path, text)) == 1
    (tmp_path / "e.mrxs").write_text("x")
    assert "lacks its folder `e/`" in refused(tmp_path, "slide_id,case_id,path\ns,c,e.mrxs\n")


@pytest.mark.parametrize("column", ["mask", "coordinates"])
def test_what_replaces_tissue_or_grid_must_exist(slides: Path, column: str) -> None:
    text = f"slide_id,case_id,path,{column}\na,c,a.svs,a.x\n"
    assert f"row 2: no {column} file" in refused(slides, text)
    (slides / "a.x").write_text("{}")
    assert getattr(read(slides, text)[0], column) == str(slides / "a.x")


def test_no_problems_no_error() -> None:
    report("sheet", [])


# --- identity and chunks --------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["mask", "coordinates"])
def test_identity_follows_the_slide_and_what_comes_with_it(slides: Path, column: str) -> None:
    (slides / "a.geojson").write_text("{}")
    text = f"slide_id,case_id,path,{column}\na,c,a.svs,a.geojson\n"
    first = sheet.identity(read(slides, text)[0])
    assert first == sheet.identity(read(slides, text)[0])
    (slides / "a.geojson").write_text("{ }")
    second = sheet.identity(read(slides, text)[0])
    (slides / "a.svs").write_bytes(b"other")
    assert len({first, second, sheet.identity(read(slides, text)[0])}) == 3


def row(slide_id: str, **changes: object) -> SlideRow:
    facts = {"case_id": "c", "path": "/p", "mpp": None, "site": "", "mask": "", "coordinates": ""}
    facts["labels"] = {}
    return SlideRow(slide_id, **{**facts, **changes})  # type: ignore[arg-type]


def test_a_chunk_changes_with_its_slides_alone() -> None:
    rows = [row(f"s{i}") for i in range(20)]
    known = {r.slide_id: "x" for r in rows}

    def digests(rows: list[SlideRow], known: dict[str, str]) -> list[str]:
        return [sheet.chunk_digest(rows, known, chunk, 4) for chunk in range(4)]

    before = digests(rows, known)
    assert before == digests(rows[::-1], known)
    assert before == digests([row(f"s{i}", path="/q", labels={"t": "1"}) for i in range(20)], known)
    more = digests([*rows, row("new")], {**known, "new": "x"})
    assert sum(a != b for a, b in zip(before, more, strict=True)) == 1
    touched = digests(rows, {**known, "s3": "y"})
    assert sum(a != b for a, b in zip(before, touched, strict=True)) == 1
    scaled = digests([row("s3", mpp=0.5) if r.slide_id == "s3" else r for r in rows], known)
    assert [a != b for a, b in zip(before, scaled, strict=True)] == [
        a != b for a, b in zip(before, touched, strict=True)
    ]


# --- values ---------------------------------------------------------------------------------------


def test_numbers_and_empty_values() -> None:
    assert [number(t) for t in ("1", " 2.5 ", "1e3", "-4")] == [1.0, 2.5, 1000.0, -4.0]
    assert [number(t) for t in ("", "nan", "inf", "1_5", "0,5", "x")] == [None] * 6
    assert [filled(t) for t in ("NA", "n/a", "NaN", "'--", "[Not Available]")] == [""] * 5
    assert filled("None") == "None", "a class may be called so"


@given(st.text(max_size=40))
def test_any_text_is_a_value_without_error(text: str) -> None:
    value = number(text)
    assert value is None or value == float(text)


def test_words_for_nothing_and_invisible_characters_of_a_label(tmp_path: Path) -> None:
    words = ["Not Reported", "[Discrepancy]", "Unknown", "#REF!", "'--", "[Not Evaluated]"]
    typed = [*words, "A\u200b", "grade\u00a01", "grade  1"]
    lines = [f"s{i},c{i},{word}" for i, word in enumerate(typed)]
    found = read(tmp_path, "\n".join(["slide_id,case_id,grade", *lines]))
    assert [r.labels["grade"] for r in found] == [""] * len(words) + ["A", "grade 1", "grade 1"]


@pytest.mark.parametrize(("given", "role"), [("MPP", "mpp"), ("Site", "site"), ("Mask", "mask")])
def test_a_role_in_another_letter_case_is_asked_about(
    tmp_path: Path, given: str, role: str
) -> None:
    text = f"slide_id,case_id,{given}\na,c1,\nb,c2,\n"
    assert f"did you mean `{role}` (cohort.columns.{role})?" in refused(tmp_path, text)
    assert read(tmp_path, text, columns={role: given})[0].labels == {}
    assert read(tmp_path, text, accept=["role_columns"])[0].labels == {given: ""}


def test_a_chunk_reads_its_own_rows_and_looks_at_no_other_file(tmp_path: Path) -> None:
    names = [f"s{i}" for i in range(8)]
    lines = [f"{n},c{i},{n}.svs" for i, n in enumerate(names)]
    (tmp_path / "sheet.csv").write_text("\n".join(["slide_id,case_id,path", *lines]))
    cfg = CohortConfig(name="t", source="sheet", sheet="sheet.csv", chunks=3)
    mine = [n for n in names if chunk_of(n, 3) == 1]
    assert 0 < len(mine) < len(names)
    for n in mine:
        (tmp_path / f"{n}.svs").write_text(n)
    assert [r.slide_id for r in sheet.chunk_rows(cfg, tmp_path, 1)] == mine
    with pytest.raises(SheetError, match="no file"):
        sheet.read_sheet(cfg, tmp_path)


def test_ids_with_characters_that_nobody_sees_are_one_message(tmp_path: Path) -> None:
    for typed in ("Pra\u0308parat {}", "s{}\u200b"):
        lines = [f"{typed.format(i)},c{i}" for i in range(30)]
        message = refused(tmp_path, "\n".join(["slide_id,case_id", *lines]))
        assert "1 problem(s)" in message and "30 id(s) hold characters that nobody sees" in message


def test_a_line_for_excel_and_lines_of_comments(tmp_path: Path) -> None:
    for separator in ",;\t":
        text = "slide_id,case_id,grade\na,c1,A\n".replace(",", separator)
        (row,) = read(tmp_path, f"sep={separator}\r\n{text}")
        assert (row.slide_id, row.labels, row.row) == ("a", {"grade": "A"}, 3)
    assert "remove such lines" in refused(tmp_path, "#Patient,,\nslide_id,case_id\na,c1\n")
