"""What a run says at its end: what was used, what failed and why, and where the report is."""

from __future__ import annotations

from house import House


def test_a_run_without_work_says_what_there_is(house: House) -> None:
    said = house.run("--cores", "1").stderr
    assert "tiny: finished." in said
    assert "12 in the sheet, 12 used, 0 lost" in said
    assert "results/tiny/report.html" in said


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
