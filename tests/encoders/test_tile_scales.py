"""Teachers whose authors use another scale get tiles of their own, and a wrong scale is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.config.reading import parse
from pipeline.config.whole import Config
from pipeline.encoders.tile_scales import check_scales, folder, groups, scale_of, scales
from pipeline.errors import ConfigError
from pipeline.plan import stage_params
from pipeline.plan.cohort_plan import cohort_plan
from pipeline.plan.estimate import estimate
from pipeline.report.figures.maps import one_scale

TEACHERS = {
    "a": {"source": "timm", "model": "resnet10t", "weights": "random"},
    "b": {"source": "timm", "model": "resnet10t", "weights": "random"},
    "far": {"source": "timm", "model": "resnet10t", "weights": "random", "target_mpp": 1.0},
    "wide": {"source": "timm", "model": "resnet10t", "weights": "random", "tile_px": 448},
    "same": {"source": "timm", "model": "resnet10t", "weights": "random", "target_mpp": 0.5},
    "given": {"source": "import", "path": "features"},
}


def _config(**extraction: Any) -> Config:
    return parse({"tiling": {"overlap_px": 56}, "extraction": {"teachers": TEACHERS, **extraction}})


def test_scales_beside_the_cohorts_own() -> None:
    config = _config()
    named = {t: scale_of(config, t) for t in TEACHERS if t != "given"}
    assert named == {
        "a": "", "b": "", "far": "224px_1mpp", "wide": "448px_0.5mpp", "same": ""
    }  # fmt: skip
    sections = scales(config)
    assert list(sections) == ["224px_1mpp", "448px_0.5mpp"]
    wide = sections["448px_0.5mpp"]
    assert (wide.tile_px, wide.target_mpp, wide.overlap_px) == (448, 0.5, 112)
    assert folder("") == "tiles"
    assert folder("224px_1mpp") == "tiles_224px_1mpp"


def test_a_group_falls_apart_where_its_tiles_differ() -> None:
    config = _config(together=[["a", "far", "same"], ["wide", "b"]])
    assert groups(config) == [("a", "same"), ("far",), ("wide",), ("b",)]


def test_jobs_are_told_their_tiles() -> None:
    config = _config(together=[["a", "b"]])
    assert stage_params.extraction(config, "a+b", "x").tiles == "tiles"
    assert stage_params.extraction(config, "far", "x").tiles == "tiles_224px_1mpp"
    assert stage_params.tiling(config, "x").tiling == config.tiling
    assert stage_params.tiling(config, "x", "224px_1mpp").tiling.target_mpp == 1.0


def _registry(name: str, tiling: dict[str, Any] | None = None, **settings: Any) -> Config:
    teacher = {"weights": "random", "acknowledge_licence": True, **settings}
    return parse({"tiling": tiling or {}, "extraction": {"teachers": {name: teacher}}})


@pytest.mark.parametrize(
    ("name", "tiling"),
    [
        ("uni2_h", {}),
        ("uni2_h", {"tile_px": 256}),
        ("gigapath", {}),
        ("virchow2", {"target_mpp": 2.0}),
        ("conch", {"tile_px": 512}),
        ("ctranspath", {"target_mpp": 1.0}),
        ("resnet50", {"target_mpp": 0.25}),
    ],
)
def test_scales_of_the_authors_pass(name: str, tiling: dict[str, Any]) -> None:
    check_scales(_registry(name, tiling))


@pytest.mark.parametrize(
    ("name", "tiling", "says"),
    [
        ("ctranspath", {}, r"at 0\.5 µm per pixel.*authors use 1\. Set .*target_mpp: 1 and"),
        ("conch", {}, r"0\.25 µm per pixel.*authors use 0\.5.*tile_px: 448"),
        ("uni2_h", {"target_mpp": 1.0}, r"uni2_h\.target_mpp: 1 to insist"),
    ],
)
def test_another_scale_is_refused_with_what_to_set(
    name: str, tiling: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        check_scales(_registry(name, tiling))
    check_scales(_registry(name, tiling, target_mpp=tiling.get("target_mpp", 0.5)))


def test_the_estimate_counts_each_teachers_tiles(tmp_path: Path) -> None:
    teachers = {
        "phikon": {"weights": "random"},
        "ctranspath": {"weights": "random", "target_mpp": 1.0},
    }
    config = parse({"extraction": {"teachers": teachers}})
    found = estimate(config, cohort_plan(config, tmp_path))
    near, far = found.teachers
    assert near.gigabytes and far.gigabytes
    # Equally wide; four times fewer tiles, with one coordinate each.
    assert near.gigabytes / far.gigabytes == pytest.approx(4, rel=0.01)


def test_a_map_of_attention_has_one_tile_size() -> None:
    rows = pd.DataFrame({"teacher": ["a", "far", "a", "b", "fusion"], "score": range(5)})
    tiles, kept, left = one_scale(_config(), rows)
    assert (tiles, left) == ("tiles", ["far"])
    assert set(kept["teacher"]) == {"a", "b", "fusion"}
    tiles, kept, left = one_scale(_config(), rows[rows["teacher"] == "far"])
    assert (tiles, len(kept), left) == ("tiles_224px_1mpp", 1, [])
