"""What a run says at its end: what was used, what failed and why, and where the report is."""

from __future__ import annotations

import json

from house import House


def test_a_run_without_work_says_what_there_is(house: House) -> None:
    said = house.run("--cores", "1").stderr
    assert "tiny: finished." in said
    assert "12 in the sheet, 12 used, 0 lost" in said
    assert "results/tiny/report.html" in said


def test_a_dry_run_without_work_plans_no_cost(house: House) -> None:
    said = house.run("-n", "--cores", "1").stderr
    assert "would cost" not in said
    assert "task survival: 12 cases" in said


def test_a_run_that_worked_says_it_once(house: House) -> None:
    (house.path / "results/tiny/report.html").unlink()
    said = house.run("--cores", "1").stderr
    assert said.count("tiny: finished.") == 1
    assert "results/tiny/ledger.csv" in said


def test_a_failed_job_is_named_in_one_line_without_its_json(house: House) -> None:
    house.edit(
        "pipeline/evaluation/stage.py",
        "    sweep(",
        '    raise ConfigError("of this\\n- a")\n    sweep(',
    )
    (house.path / "results/tiny/evaluation/survival/evaluation.json").unlink()
    (house.path / "results/tiny/report.html").unlink()
    done = house.run("--cores", "1", check=False)
    assert done.returncode != 0
    summary = done.stderr[done.stderr.index("tiny: 1 job failed.") :]
    log = "results/tiny/logs/evaluation/survival.log"
    assert f"  evaluation task survival: of this [more in the log] (log: {log})" in summary
    assert "give the same command again" in summary
    assert '"student":' not in done.stderr, "the job's JSON is for the log file"


def test_no_job_leaves_an_empty_log(house: House) -> None:
    logs = list((house.path / "results/tiny/logs").rglob("*.log"))
    assert logs
    for log in logs:
        assert "started on" in log.read_text(), log
        assert "finished in" in log.read_text().splitlines()[-1], log


def test_what_went_wrong_stays_where_too_many_slides_are_lost(house: House) -> None:
    results = house.path / "results/tiny"
    lost = ""
    for path in sorted(results.glob("features/*/manifest/0.json")):
        found = json.loads(path.read_text())
        bad = found["slides"][0]
        lost = bad["slide_id"]
        bad |= {"status": "failed", "kind": "bad_features", "reason": "torn", "path": ""}
        path.write_text(json.dumps(found))
    config = house.config()
    config["mapping"]["max_failed_fraction"] = 0.01
    house.write_config(config)
    said = house.run("--cores", "1", check=False)
    assert said.returncode != 0
    summary = said.stderr[said.stderr.index("tiny: 1 job failed.") :]
    assert "  mapping_check: 1 of 13 slides failed, more than mapping.max_failed" in summary
    assert "(log: results/tiny/logs/mapping_check.log)" in summary
    assert "13 in the sheet, 12 used, 1 lost (1 bad features)" in summary
    assert "results/tiny/ledger.csv" in summary
    assert "results/tiny/report.html" not in summary, "it tells of an earlier run"
    assert lost in (results / "ledger.csv").read_text()
    assert (results / "coverage.csv").is_file()
    log = (results / "logs/mapping_check.log").read_text()
    assert f"1 bad features (extraction/resnet10t)\n    - {lost}: torn" in log
