"""What Snakemake itself meets: lost records, odd clocks, two at once, odd names."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from house import TINY, House

from pipeline.runtime import run_lock

YEAR = 365 * 86_400


def pieces(house: House) -> dict[Path, int]:
    """The finished slides' and trainings' files, and when they were made."""
    results = house.path / "results" / "tiny"
    found = [*results.glob("tiles/*.h5"), *results.glob("features/*/*.h5")]
    found += results.glob("models/*/*/fold_*/seed_*/meta.json")
    return {path: path.stat().st_mtime_ns for path in found}


@pytest.mark.parametrize("years", [-3, 0, 3])
def test_odd_clocks_rerun_nothing(house: House, years: int) -> None:
    """Machines whose clocks are years off, each in its own way, wrote the results."""
    schedule = random.Random(years)
    for path in (house.path / "results").rglob("*"):
        when = time.time() + (years + schedule.uniform(-1, 1)) * YEAR
        if path.is_file():
            os.utime(path, (when, when))
    assert house.planned() == {}


def test_a_lost_snakemake_folder_is_said(house: House) -> None:
    assert "has no record of" not in house.run("-n").stderr
    shutil.rmtree(house.path / ".snakemake")
    assert ".snakemake has no record of results/tiny" in house.run("-n").stderr
    assert list((house.path / "results/tiny/slides").glob("*.parquet")), "a dry-run takes nothing"


@pytest.mark.slow
def test_a_lost_snakemake_folder_costs_tables_and_hides_no_change(house: House) -> None:
    """Snakemake alone would take every result for good, whatever made it."""
    config = house.config()
    config["training"]["models"]["shazam_v2"]["d_model"] = 24
    house.write_config(config)
    before = pieces(house)
    shutil.rmtree(house.path / ".snakemake")
    house.run("--cores", "2")
    again = {path for path, at in pieces(house).items() if before.get(path) != at}
    assert again == {path for path in before if "shazam_v2" in path.parts}
    assert house.planned() == {}


@pytest.mark.parametrize(
    ("rule", "kind", "damage"),
    [("tiling", "tiles", "cut"), ("extraction", "features/resnet10t", "deleted")],
)
def test_a_lost_file_of_one_slide_is_planned_and_mended(
    house: House, rule: str, kind: str, damage: str
) -> None:
    files = sorted((house.path / "results/tiny" / kind).glob("*.h5"))
    whole = files[0].read_bytes()
    before = {path: path.stat().st_mtime_ns for path in files}
    manifests = (house.path / "results/tiny" / kind / "manifest").glob("*.json")
    manifest = next(p for p in manifests if f'"{kind}/{files[0].name}"' in p.read_text())
    target = str(manifest.relative_to(house.path))
    assert f"rule {rule}:" not in house.run("-n", target).stdout
    if damage == "deleted":
        files[0].unlink()
    else:
        files[0].write_bytes(whole[:-200])
    assert f"rule {rule}:" in house.run("-n", target).stdout
    done = house.run("--cores", "1", target)
    assert f"{kind}: 1 file(s) are gone or were changed" in done.stderr
    assert {p for p in files if p.stat().st_mtime_ns != before[p]} == {files[0]}
    assert files[0].read_bytes() == whole
    assert f"rule {rule}:" not in house.run("-n", target).stdout


def test_a_second_controller_is_refused(house: House) -> None:
    results = house.path / "results" / "tiny"
    target = "results/tiny/tiles/overview.csv"
    made = house.path / target
    made.unlink()
    working = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    try:
        owner = run_lock._identity(working.pid)
        note = results / run_lock.NOTES / f"{owner['host']}-{working.pid}.json"
        note.parent.mkdir(exist_ok=True)
        note.write_text(json.dumps(owner))
        refused = house.run("--cores", "1", target, check=False)
        assert refused.returncode != 0
        assert f"another Snakemake works on it, process {working.pid}" in refused.stderr
        assert not made.exists()
        assert house.run("-n", target).returncode == 0, "looking is free"
    finally:
        working.kill()
        working.wait()
    house.run("--cores", "1", target)
    assert made.exists()
    assert not list(note.parent.iterdir())


@pytest.mark.slow
def test_two_controllers_at_once(house: House) -> None:
    """In two working folders that share their results, where Snakemake's own lock sees nothing."""
    config = house.config()
    config["training"]["epochs"] = 4
    house.write_config(config)
    twin = House.build(house.path.parent / "twin", config)
    (twin.path / "results").symlink_to(house.path / "results")
    (twin.path / "resources").symlink_to(house.path / "resources")
    command = [sys.executable, "-m", "snakemake", "--cores", "1"]
    first = subprocess.Popen(
        command, cwd=house.path, env=house.environment(), stderr=subprocess.DEVNULL
    )
    notes = house.path / "results" / "tiny" / run_lock.NOTES
    while not (notes.is_dir() and list(notes.glob("*.json"))):
        assert first.poll() is None
        time.sleep(0.05)
    refused = twin.run("--cores", "1", check=False)
    assert first.poll() is None, "the first one ended too soon for the test"
    assert refused.returncode != 0
    assert f"another Snakemake works on it, process {first.pid}" in refused.stderr
    assert first.wait() == 0
    assert house.planned() == {}


@pytest.mark.slow
def test_a_working_folder_with_an_odd_name(tmp_path: Path) -> None:
    house = House.build(tmp_path / 'Müller\'s "data" $(touch pwned); \n', TINY)
    house.run("--cores", "2", "--", "results/tiny/tiles/manifest/0.json")
    assert not list(tmp_path.rglob("pwned*"))
