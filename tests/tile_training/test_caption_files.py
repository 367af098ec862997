"""Captions of tiles from a file, and what is wrong with some."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.tile_training.caption_files import read_captions


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("caption,slide_id,x,y,by\n solid nests ,007,64,0.0,me\n")
    found = read_captions(path)
    assert found.to_dict("records") == [
        {"slide_id": "007", "x": 64, "y": 0, "caption": "solid nests"}
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("slide_id,y,caption\na,0,nests\n", "no column x"),
        ("slide_id,x,y,caption\na,0,0,nests\na,0,0, \n", "row 3 has no caption"),
        ("slide_id,x,y,caption\n,0,0,nests\n", "row 2 has no slide_id"),
        ("slide_id,x,y,caption\na,left,0,nests\n", "row 2 needs a whole number .* as x"),
        ("slide_id,x,y,caption\na,0,0.5,nests\n", "row 2 needs a whole number .* as y"),
        ("slide_id,x,y,caption\na,0,,nests\n", "row 2 needs a whole number .* as y"),
        ("", "cannot be read"),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "c.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"c\.csv: .*{said}"):
        read_captions(path)
