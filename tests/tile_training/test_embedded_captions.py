"""Captions that put hidden states into words."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import UserError
from pipeline.tile_training import embedded_captions as embedded
from tests.pairs.test_pairs import slide


def test_they_say_the_state_of_their_tile(tmp_path: Path) -> None:
    import cv2

    (tmp_path / "annotations").mkdir()
    pd.DataFrame(
        [{"case_id": "case a", "growth": 0.9, "pleomorphism": 0.1, "lymphocytes": 0.5}]
    ).to_csv(tmp_path / "truth.csv", index=False)
    classes = np.repeat(np.array([[1, 2, 0]], np.uint8), 3, axis=0)
    cv2.imwrite(str(tmp_path / "annotations/a.png"), classes)
    (tmp_path / "annotations/a.json").write_text(json.dumps({"1": "tumour", "2": "stroma"}))
    one = slide("a", 3)
    facts = {"level0_width": 96, "level0_height": 96}
    one = dataclasses.replace(one, grid=dataclasses.replace(one.grid, attributes=facts))
    found = embedded.captions(tmp_path, [one], 0)["caption"].tolist()
    for words, options in zip(
        (found[0], found[0], found[0], found[1], found[2]),
        (embedded.GROWTH[2], embedded.NUCLEI[0], embedded.CELLS[1],
         embedded.OTHERS["stroma"], embedded.OTHERS[""]),
        strict=True,
    ):  # fmt: skip
        assert any(option in words for option in options)
    assert found == embedded.captions(tmp_path, [one], 0)["caption"].tolist()
    with pytest.raises(UserError, match="embedded cohort alone"):
        embedded.captions(tmp_path / "none", [one], 0)
