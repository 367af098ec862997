"""What can be made again goes on request, and says how much it frees; nothing else goes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.files import clean_up

FILES = {
    "slides/0.parquet": 10,
    "slides.parquet": 10,
    "features/uni2_h/a.h5": 5000,
    "features/uni2_h/manifest/0.json": 20,
    "features/virchow2/a.h5": 3000,
    "features/imported/manifest/0.json": 20,
    "tiles/a.h5": 400,
    "tiles/manifest/0.json": 20,
    "tiles_512px_0.5mpp/a.h5": 100,
    "models/survival/mean/predictions.parquet": 50,
    "attention/survival/mean/a.geojson": 25,
    "evaluation/survival/metrics.csv": 30,
    "logs/mapping.log": 5,
    "jobs/mapping/x.json": 5,
    "report.html": 40,
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, length in FILES.items():
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * length)
    return tmp_path / "mine"


def left(root: Path) -> set[str]:
    return {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}


def test_parts_with_their_sizes_the_largest_first(root: Path) -> None:
    found = {part.name: part.size for part in clean_up.parts(root)}
    assert found == {
        "features/uni2_h": 5020,
        "features/virchow2": 3000,
        "tiles": 420,
        "tiles_512px_0.5mpp": 100,
        "models": 50,
        "attention": 25,
        "logs": 10,
    }
    assert next(iter(found)) == "features/uni2_h"
    text = clean_up.table(root, clean_up.parts(root))
    assert "8.7 kB in all" in text
    assert "5.0 kB" in text


def test_a_teachers_features_go_with_their_manifests_and_nothing_else(root: Path) -> None:
    before = left(root)
    assert clean_up.remove(root, ["features/uni2_h"]) == 5020
    assert before - left(root) == {"features/uni2_h/a.h5", "features/uni2_h/manifest/0.json"}


def test_features_stands_for_all_that_were_made_here(root: Path) -> None:
    before = left(root)
    assert clean_up.remove(root, ["features"]) == 8020
    gone = before - left(root)
    assert "features/imported/manifest/0.json" not in gone
    assert {name for name in before if name.endswith("a.h5") and "features" in name} <= gone


def test_a_manifest_goes_before_its_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interruption must not leave a manifest that promises files."""
    order: list[str] = []
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: order.append(path.suffix))
    clean_up.remove(root, ["tiles"])
    assert order == [".json", ".h5"]


def test_only_old_temporary_files_are_abandoned(root: Path) -> None:
    for name, age in ((".a.h5.12.tmp.h5", 2 * 24 * 3600), (".b.h5.13.tmp.h5", 60)):
        path = root / "features" / "uni2_h" / name
        path.write_bytes(b"x" * 7)
        os.utime(path, (time.time() - age,) * 2)
    assert {p.name: p.size for p in clean_up.parts(root)}["temporary"] == 7
    clean_up.remove(root, ["temporary"])
    assert "features/uni2_h/.b.h5.13.tmp.h5" in left(root)
    assert "features/uni2_h/.a.h5.12.tmp.h5" not in left(root)


def test_nothing_is_removed_under_a_running_snakemake(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".snakemake" / "locks").mkdir(parents=True)
    (tmp_path / ".snakemake" / "locks" / "0.output.lock").touch()
    before = left(root)
    with pytest.raises(UserError, match="locked"):
        clean_up.remove(root, ["tiles"])
    assert left(root) == before


def test_mistakes_are_said(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a results folder"):
        clean_up.parts(tmp_path)
    before = left(root)
    with pytest.raises(UserError, match="features/uni2_h"):
        clean_up.remove(root, ["tiles", "report"])
    assert left(root) == before, "all or nothing"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e12, "2.5 TB")]
)
def test_sizes_for_people(count: float, text: str) -> None:
    assert clean_up.size(count) == text
