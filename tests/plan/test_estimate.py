"""The plan before a run, the limits that jobs ask for, and the rate that earlier jobs measured."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from pipeline.accounting import rates, time_limits
from pipeline.accounting.costs import Concurrency, Pace
from pipeline.accounting.job_records import JobRecord
from pipeline.config.reading import parse
from pipeline.config.whole import Config
from pipeline.contracts.ledger import Record, write_manifest
from pipeline.contracts.teacher_check import path_of, write_teacher_check
from pipeline.plan import estimate
from pipeline.plan.cohort_plan import CohortPlan, cohort_plan
from tests.contracts.test_teacher_check import teacher_check


def pace(tflops: float) -> Pace:
    return dataclasses.replace(rates.assumed(gpu=True), tflops=tflops)


def config(**extraction: object) -> Config:
    teachers = {"uni2_h": {"acknowledge_licence": True}, "phikon_v2": {}}
    return parse(
        {
            "cohort": {"synthetic": {"cases": 40}, "chunks": 4},
            "extraction": {"teachers": teachers, **extraction},
        }
    )


@pytest.fixture
def plan(tmp_path: Path) -> CohortPlan:
    return cohort_plan(config(), tmp_path)


def test_device_hours_follow_from_parameters_and_tokens(plan: CohortPlan) -> None:
    found = estimate.estimate(config(), plan, pace=pace(50))
    uni, phikon = found.teachers
    # 681 million parameters, 16 x 16 patches of 14 px and the tokens beside them.
    assert uni.gflop_per_tile == pytest.approx(2 * 681e6 * 265 / 1e9, rel=0.02)
    assert found.tiles > 0
    assert uni.device_hours == pytest.approx(found.tiles * uni.gflop_per_tile / 50e3 / 3600)
    assert uni.device_hours > phikon.device_hours
    assert found.gigabytes_written == pytest.approx(uni.gigabytes + phikon.gigabytes)
    twice = estimate.estimate(config(), plan, pace=pace(100))
    assert twice.teachers[0].device_hours == pytest.approx(uni.device_hours / 2)


def test_a_preflight_knows_what_the_registry_does_not(tmp_path: Path, plan: CohortPlan) -> None:
    """Any network of timm has a price once it was built, and a job of it asks for its time."""
    teachers = {"big": {"source": "timm", "model": "vit_giant_patch14_dinov2", "weights": "random"}}
    own = parse({**config().model_dump(), "extraction": {"teachers": teachers}})
    before = estimate.estimate(own, plan, root=tmp_path)
    assert (before.teachers[0].gflop_per_tile, before.wall_hours) == (None, None)
    manifest = tiles(tmp_path, 400_000)
    assumed = time_limits.extraction_minutes(own, ["big"], manifest, 1)
    folder = tmp_path / "features" / "big"
    write_teacher_check(folder / "check.json", teacher_check("big", gflop_per_tile=2000.0))
    after = estimate.estimate(own, plan, pace=pace(50), root=tmp_path)
    (big,) = after.teachers
    assert big.device_hours == pytest.approx(after.tiles * 2000 / 50e3 / 3600)
    assert big.gigabytes == pytest.approx(after.tiles * (50 * 2 + 8) / 1e9)
    assert after.wall_hours is not None
    assert time_limits.extraction_minutes(own, ["big"], manifest, 1) > assumed
    (folder / "check.json").write_text("{")
    assert estimate.estimate(own, plan, root=tmp_path).teachers[0].gflop_per_tile is None


def test_wall_time_knows_of_places_and_the_queue(plan: CohortPlan) -> None:
    def hours(**places: float) -> float:
        return estimate.estimate(
            config(), plan, pace=pace(0.1), concurrency=Concurrency(**places)
        ).wall_hours

    alone, four = hours(gpus=1), hours(gpus=4)
    assert 2 < alone / four < 4.5
    assert hours(gpus=1, queue_hours=1) > alone + 4


def test_teachers_that_share_a_decoding_are_one_job(plan: CohortPlan) -> None:
    together = config(together=[["uni2_h", "phikon_v2"]])
    apart = estimate.estimate(config(), plan, pace=pace(1e6)).wall_hours
    shared = estimate.estimate(together, plan, pace=pace(1e6)).wall_hours
    assert shared < apart, "half as many jobs to start"


def test_the_text_names_every_teacher_and_what_is_assumed(plan: CohortPlan) -> None:
    text = estimate.text(estimate.estimate(config(), plan, concurrency=Concurrency(2, 4, 0.25)))
    for part in ("uni2_h", "GPU-hours", "30% of a slide is tissue", "2 GPU job", "queued 15 min"):
        assert part in text


def test_a_full_disk_is_said_before_the_run(
    plan: CohortPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = estimate.estimate(config(), plan)
    assert "NOT ENOUGH" not in estimate.room(found, tmp_path / "results" / "new")
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "NOT ENOUGH ROOM" in estimate.room(found, tmp_path / "results" / "new")


def test_a_network_that_is_not_known_has_no_hours(tmp_path: Path) -> None:
    mixed = parse({"extraction": {"teachers": {"mine": {"source": "timm", "model": "resnet10t"}}}})
    found = estimate.estimate(mixed, cohort_plan(mixed, tmp_path))
    assert found.teachers[0].device_hours is None
    assert found.wall_hours is None
    assert "-" in estimate.text(found)


@pytest.mark.parametrize(
    ("slides", "chunks", "advice"), [(3000, 2, "75"), (3000, 75, ""), (60, 2, ""), (400, 200, "10")]
)
def test_chunks_that_are_too_large_or_too_small_are_said(
    slides: int, chunks: int, advice: str
) -> None:
    said = estimate._chunk_advice(slides, chunks)
    assert f"cohort.chunks: {advice}" in said if advice else said == ""


def tiles(root: Path, count: int) -> Path:
    path = root / "tiles" / "manifest" / "0.json"
    records = [
        Record("s0", "tiling", "ok", facts={"n_tiles": count}),
        Record("s1", "tiling", "failed"),
    ]
    write_manifest(path, "tiling", "f", records)
    return path


def test_limits_grow_with_the_tiles_and_the_attempt(tmp_path: Path) -> None:
    few = time_limits.extraction_minutes(config(), ["uni2_h"], tiles(tmp_path, 1000), 1)
    manifest = tiles(tmp_path, 400_000)
    many = time_limits.extraction_minutes(config(), ["uni2_h"], manifest, 1)
    assert few == 30, "little more than start-up, in tens"
    # 400,000 tiles of 361 GFLOP at 20 TFLOP/s are two hours; reading them at 60/s is not less.
    assert many == pytest.approx(120 + 20, abs=10)
    assert time_limits.extraction_minutes(config(), ["uni2_h"], manifest, 2) == pytest.approx(
        2 * many, abs=10
    )
    both = time_limits.extraction_minutes(config(), ["uni2_h", "phikon_v2"], manifest, 1)
    assert many < both < 2 * many
    assert time_limits.tiling_minutes(40, 1) == 100
    assert time_limits.tiling_minutes(40, 3) == 300


def test_a_damaged_manifest_does_not_end_the_parse(tmp_path: Path) -> None:
    (tmp_path / "0.json").write_text('{"slides": [{}')
    assert time_limits.extraction_minutes(config(), ["uni2_h"], tmp_path / "0.json", 1) == 20


def test_a_chunk_without_tiles_yet_has_no_limit_yet(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        time_limits.extraction_minutes(config(), ["uni2_h"], tmp_path / "0.json", 1)


def record(root: Path, **changes: object) -> None:
    fields = {
        "stage": "extraction", "name": "chunk=0,teacher=uni2_h", "host": "n1", "pid": 1,
        "cluster_job": "", "devices": "0", "started": 100.0, "ended": 160.0,
        "device_name": "H200", "outcome": "ok",
    }  # fmt: skip
    made = JobRecord(**(fields | changes))
    path = root / "jobs" / made.stage / f"{made.name}-{made.started}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dataclasses.asdict(made)))


def test_the_measured_rate_is_of_whole_first_attempts_on_a_gpu(tmp_path: Path) -> None:
    assert rates.measured(config(), tmp_path) is None
    facts = {"n_tiles": 6000}
    for chunk in (0, 1, 2):
        path = tmp_path / "features" / "uni2_h" / "manifest" / f"{chunk}.json"
        write_manifest(path, "e", "f", [Record("s", "extraction/uni2_h", "ok", facts=facts)])
    record(tmp_path)
    found = rates.measured(config(), tmp_path)
    per_tile = estimate.gflop_per_tile("uni2_h", config().extraction.teachers["uni2_h"])
    assert found.tflops == pytest.approx(6000 * per_tile / 60 / 1e3)
    assert (found.device, found.jobs) == ("H200", 1)
    # A second attempt found slides finished; a CPU says nothing of a GPU.
    record(tmp_path, name="chunk=1,teacher=uni2_h", outcome="failed")
    record(tmp_path, name="chunk=1,teacher=uni2_h", started=200.0, ended=201.0)
    record(tmp_path, name="chunk=2,teacher=uni2_h", device_name="")
    assert rates.measured(config(), tmp_path) == found


def test_what_is_finished_costs_nothing_again(plan: CohortPlan) -> None:
    chunks = sorted(plan.chunks)
    jobs = [("tiling", {"chunk": str(c)}) for c in chunks[:1]]
    jobs += [("extraction", {"teacher": "uni2_h", "chunk": str(c)}) for c in chunks[:2]]
    jobs += [("training", {"task": "t", "model": "m"})]
    left = estimate.todo(jobs)
    whole = estimate.estimate(config(), plan)
    some = estimate.estimate(config(), plan, left=left)
    slides = sum(len(plan.members[chunk]) for chunk in chunks[:2])
    assert (some.slides, some.chunks) == (slides, 2)
    uni, phikon = some.teachers
    share = slides / len(plan.rows)
    assert uni.device_hours == pytest.approx(share * whole.teachers[0].device_hours, rel=0.01)
    assert phikon.device_hours == 0
    assert some.wall_hours < whole.wall_hours
    assert not estimate.todo([("training", {}), ("report", {})])


def test_without_a_gpu_the_hours_are_those_of_a_cpu(plan: CohortPlan) -> None:
    here = rates.assumed(gpu=False, cluster=False, cores=2)
    on_cpu = estimate.estimate(config(), plan, here)
    on_gpu = estimate.estimate(config(), plan)
    assert on_cpu.teachers[0].device_hours > 1000 * on_gpu.teachers[0].device_hours
    text = estimate.text(on_cpu)
    assert "CPU hours" in text and "GPU-hours" not in text and "no GPU was found" in text


def test_earlier_runs_here_tell_how_fast_tiling_and_networks_are(tmp_path: Path) -> None:
    root, other = tmp_path / "results" / "new", tmp_path / "results" / "earlier"
    root.mkdir(parents=True)
    assumed = rates.assumed(gpu=False, cluster=False, cores=2)
    facts = {"n_tiles": 600}
    slides = [Record(f"s{i}", "extraction/tiny", "ok", facts=facts) for i in range(4)]
    write_manifest(other / "features" / "tiny" / "manifest" / "0.json", "e", "f", slides)
    write_manifest(other / "tiles" / "manifest" / "0.json", "tiling", "f", slides)
    write_teacher_check(path_of(other, "tiny"), teacher_check("tiny"))
    assert rates.pace(config(), rates.earlier(root), assumed) == assumed
    cpu = {"devices": "", "device_name": ""}
    record(other, name="chunk=0,teacher=tiny", **cpu)
    record(other, stage="tiling", name="chunk=0", started=0.0, ended=20.0, **cpu)
    found = rates.pace(config(), rates.earlier(root), assumed)
    assert found.tflops == pytest.approx(4 * 600 * 2.0 / 60 / 1e3)
    assert found.tiling_hours(1.0) == pytest.approx(5 / 3600)
    assert "the CPU of n1 in 1 earlier job" in found.measured
    on_gpu = rates.pace(config(), rates.earlier(root), rates.assumed(gpu=True))
    assert on_gpu.tflops == rates.GPU_TFLOPS, "a CPU says nothing of a GPU"


def test_a_short_job_tells_nothing_of_the_rate(tmp_path: Path) -> None:
    facts = {"n_tiles": 6000}
    path = tmp_path / "features" / "uni2_h" / "manifest" / "0.json"
    write_manifest(path, "e", "f", [Record("s", "extraction/uni2_h", "ok", facts=facts)])
    record(tmp_path, ended=105.0)
    assert rates.measured(config(), tmp_path) is None


def test_tiling_takes_as_long_as_a_slide_is_large() -> None:
    here = rates.assumed(gpu=True)
    assert 20 < 3600 * here.tiling_hours(4e8) < 60
    assert 3600 * here.tiling_hours(1e6) < 2


def test_words_and_pairs_are_told_of(tmp_path: Path) -> None:
    teachers = {"plip": {"weights": "random"}, "keep": {"weights": "random"}}
    words = {"prompts": {"subtype": {"a": "glands", "b": "nests"}}, "draws": 9, "smoothing": [0, 8]}
    start = {"source": "open_clip", "model": "ViT-B-32", "weights": "random"}
    section = {"name": "lab", "start": start, "course": {"steps": 10, "batch_size": 8}}
    own = parse(
        {
            "cohort": {"synthetic": {"cases": 40}},
            "extraction": {"teachers": teachers},
            "tasks": {"subtype": {"type": "classification", "label": "subtype"}},
            "vision_language": words,
            "pairs": section,
        }
    )
    plan = cohort_plan(own, tmp_path)
    pairs, asked = estimate.estimate(own, plan).further
    assert "`lab` learns from 80 tiles" in pairs
    assert "2 teacher(s) asked, 20 prompt vectors, 2 way(s) of smoothing, about" in asked
    assert estimate.text(estimate.estimate(own, plan)).endswith(asked)
    assert estimate.estimate(config(), cohort_plan(config(), tmp_path)).further == ()


def test_the_level_that_is_compared_with_text_is_written_too(tmp_path: Path) -> None:
    """Each level of PLIP has 512 numbers."""
    for levels in (["high"], ["low", "mid", "high"]):
        teachers = {"plip": {"weights": "random"}}
        own = parse({"cohort": {"synthetic": {"cases": 12}},
                     "extraction": {"teachers": teachers, "levels": levels}})  # fmt: skip
        found = estimate.estimate(own, cohort_plan(own, tmp_path))
        per_tile = (1 + len(levels)) * 512 * 2 + 8
        assert found.teachers[0].gigabytes == pytest.approx(found.tiles * per_tile / 1e9)
