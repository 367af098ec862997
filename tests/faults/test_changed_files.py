"""Files that changed, broke off or were never finished are noticed; nobody computes with them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.bags.files import open_features
from pipeline.errors import ArtifactError, MachineError
from pipeline.files.identity import check_unchanged, file_identity
from tests.faults import stages
from tests.faults.compare import contents, differences, finished_pieces, manifest
from tests.faults.stages import Cohort, Warm


def pieces(cohort: Cohort, stage: str, ending: str) -> list[Path]:
    found = [cohort.path / name for name in cohort.made[stage] if name.endswith(ending)]
    assert len(found) > 1, "the test needs a piece to damage and one to keep"
    return found


def test_a_slide_that_is_replaced_between_tiling_and_extraction(warm: Warm, cohort: Cohort) -> None:
    """The pixels of the new slide must not be taken for the tiles of the old one."""
    slide, other = pieces(cohort, "cohort_chunk", ".svs")[:2]
    argv = stages.everything(cohort.path)["extraction"]
    expected = contents(cohort.path)
    cohort.undo("extraction")
    before = slide.read_bytes()
    shutil.copy(other, slide)
    failed = warm.run(argv, cohort.path)
    assert failed.code == 1 and "was replaced by another file" in failed.said, failed.said
    assert not (cohort.results / "features" / "tiny" / f"{slide.stem}.h5").exists()
    assert not (cohort.results / "features/tiny/manifest/0.json").exists()
    slide.write_bytes(before)
    assert warm.run(argv, cohort.path).code == 0
    assert differences(expected, contents(cohort.path)) == []


def test_a_slide_is_looked_at_again_after_it_was_read(tmp_path: Path) -> None:
    slide = tmp_path / "s.svs"
    slide.write_bytes(b"first")
    known = file_identity(slide)
    check_unchanged(slide, known, thorough=True)
    slide.write_bytes(b"other")
    with pytest.raises(MachineError, match="replaced"):
        check_unchanged(slide, known)
    slide.unlink()
    with pytest.raises(MachineError, match="gone"):
        check_unchanged(slide, known)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def hollow(path: Path) -> None:
    """The file's full length, with nothing where the numbers of a dataset were."""
    with h5py.File(path) as file:
        data = file["features" if "features" in file else "coords"]
        start, size = data.id.get_offset(), data.id.get_storage_size()
        if data.chunks:
            start, size = data.id.get_chunk_info(0).byte_offset, data.id.get_chunk_info(0).size
    with path.open("r+b") as handle:
        handle.seek(start)
        handle.write(bytes(size))


@pytest.mark.parametrize("damage", [truncated, hollow])
@pytest.mark.parametrize("stage", ["tiling", "extraction"])
def test_a_half_copied_piece_is_made_again_and_no_other(
    warm: Warm, cohort: Cohort, stage: str, damage
) -> None:
    """As a copy leaves it that broke off: the manifest is there, the file under its name too."""
    victim = pieces(cohort, stage, ".h5")[0]
    expected = contents(cohort.path)
    damage(victim)
    kept = finished_pieces(cohort.path)
    again = warm.run(stages.everything(cohort.path)[stage], cohort.path)
    assert again.code == 0, again.said
    assert differences(expected, contents(cohort.path)) == []
    now = finished_pieces(cohort.path)
    assert [path for path in kept if kept[path] != now[path]] == [victim]


def test_damaged_features_are_not_trained_on(warm: Warm, cohort: Cohort) -> None:
    victim = pieces(cohort, "extraction", ".h5")[0]
    hollow(victim)
    cohort.undo("training")
    failed = warm.run(stages.everything(cohort.path)["training"], cohort.path)
    assert failed.code == 2, failed.said
    assert victim.name in failed.said and "--forcerun extraction" in failed.said
    assert "Traceback" not in failed.said


def test_features_that_were_declared_and_never_written(tmp_path: Path) -> None:
    """A writer that was killed after it made its datasets: they would read as zeros."""
    for chunks in (None, (4, 8)):
        path = tmp_path / f"{chunks is None}.h5"
        with h5py.File(path, "w") as file:
            data = file.create_dataset("features", (12, 8), np.float32, chunks=chunks)
            if chunks:
                data[:4] = 1
        with pytest.raises(ArtifactError, match="not all written"):
            open_features(path)
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        file.create_dataset("features", data=np.zeros((12, 8), np.float32), chunks=(5, 8))
    assert open_features(tmp_path / "whole.h5").n_tiles == 12


def test_imported_files_that_vanish_during_the_run(warm: Warm, tmp_path: Path) -> None:
    features = tmp_path / "made"
    features.mkdir()
    rows = ["slide_id,case_id,time,event"]
    for i in range(12):
        rows.append(f"s{i},c{i},{i + 1},{i % 2}")
        with h5py.File(features / f"s{i}.h5", "w") as file:
            file["features"] = np.random.default_rng(i).normal(size=(9, 8)).astype(np.float32)
    (tmp_path / "sheet.csv").write_text("\n".join(rows))
    changes = {
        "cohort": {"name": "tiny", "source": "sheet", "sheet": "sheet.csv", "chunks": 1},
        "extraction": {"teachers": {"made": {"source": "import", "path": str(features)}}},
        "training": {"models": {"single": {"kind": "single", "teacher": "made"}}},
        # No encoder of these cases learns anything: they have no slides.
        "encoder_distillation": None,
        "pretraining": None,
    }
    jobs = stages.everything(tmp_path, changes)
    assert warm.run(jobs["cohort_chunk"], tmp_path).code == 0
    (features / "s3.h5").rename(tmp_path / "s3.h5")
    failed = warm.run(jobs["import"], tmp_path)
    assert failed.code == 1 and "s3.h5" in failed.said, failed.said
    path = tmp_path / "results/tiny/features/made/manifest/0.json"
    assert not path.exists(), "a manifest is final"
    (tmp_path / "s3.h5").rename(features / "s3.h5")
    assert warm.run(jobs["import"], tmp_path).code == 0
    assert set(manifest(path).values()) == {"ok"}


def test_a_config_that_is_taken_back_after_a_kill(warm: Warm, cohort: Cohort) -> None:
    """Files of the new config beside the mark of the old one would pass for the old one's."""
    expected = contents(cohort.path)
    changed = {
        "tiling": ("tiling", {**stages.CONFIG["tiling"], "min_tissue_fraction": 0.6}),
        "training": ("training", {**stages.CONFIG["training"], "epochs": 1}),
    }
    for stage, (section, value) in changed.items():
        argv = stages.everything(cohort.path)[stage]
        other = stages.everything(cohort.path, {section: value})[stage]
        last = warm.run(other, cohort.path, stages.Fault(stages.RENAME, cohort.path)).calls
        assert warm.run(argv, cohort.path).code == 0
        for at in {last // 2, max(1, last - 1)}:
            fault = stages.Fault(stages.RENAME, cohort.path, stages.KILL_GROUP, at)
            assert warm.run(other, cohort.path, fault).code < 0
            assert warm.run(argv, cohort.path).code == 0
            assert differences(expected, contents(cohort.path)) == [], f"{stage} at {at}"


def test_predictions_that_are_lost_are_made_again(warm: Warm, cohort: Cohort) -> None:
    expected = contents(cohort.path)
    fold = next(cohort.results.glob("models/*/*/fold_0/seed_*"))
    assert json.loads((fold / "meta.json").read_text())["fold"] == 0
    (fold / "predictions.parquet").unlink()
    assert warm.run(stages.everything(cohort.path)["training"], cohort.path).code == 0
    assert differences(expected, contents(cohort.path)) == []
