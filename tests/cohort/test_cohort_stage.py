"""The stage: one typed table of slides, and the facts of the cohort."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.cohort import stage
from pipeline.cohort.synthetic import embedded
from pipeline.config.cohort import CohortConfig, CohortJob, SyntheticConfig
from pipeline.config.tasks import ClassificationTask, RegressionTask, SurvivalTask
from pipeline.contracts.ledger import chunk_of
from pipeline.errors import ArtifactError, SheetError
from pipeline.files.artifacts import read_json
from pipeline.files.parquet import read_table

SURVIVAL = SurvivalTask(type="survival", time="time", event="event")
GRADE = ClassificationTask(type="classification", label="grade")

SHEET = """slide_id,case_id,path,mpp,site,time,event,grade,block,age,note
s1,c1,s1.svs,0.25,N,10,1,1,007,50,
s2,c1,s2.svs,,N,10,1,1,012,51,
s3,c2,gone.svs,,S,2.5,0,2,013,,
s4,c3,,,,8,1,,014,60,
"""


@pytest.fixture
def written(tmp_path: Path) -> tuple[pd.DataFrame, dict]:
    (tmp_path / "sheet.csv").write_text(SHEET)
    for name in ("s1", "s2"):
        (tmp_path / f"{name}.svs").write_text(name)
    cfg = CohortConfig(
        name="mine", source="sheet", sheet="sheet.csv", chunks=3, missing_files="ledger"
    )
    root = tmp_path / "results"
    stage.run(
        job=CohortJob(cohort=cfg, tasks={"os": SURVIVAL.model_dump(), "g": GRADE.model_dump()}),
        root=root,
        base=tmp_path,
    )
    return read_table(root / "slides.parquet"), read_json(root / "cohort.json")


def test_the_table_has_the_contracts_columns_then_the_labels(written) -> None:
    table, _ = written
    assert list(table.columns) == [
        *("slide_id", "case_id", "path", "mpp", "site", "mask", "coordinates"),
        *("chunk", "identity"),
        *("time", "event", "grade", "block", "age", "note"),
    ]
    assert table["chunk"].tolist() == [chunk_of(s, 3) for s in table["slide_id"]]
    assert table["mpp"].tolist()[0] == 0.25 and table["mpp"].isna().tolist()[1:] == [True] * 3
    assert table["path"].tolist()[::3] == ["s1.svs", ""], "named from the working folder"
    assert table["identity"].tolist()[2:] == ["missing", "none"]
    assert table["identity"][0] != table["identity"][1]


def test_labels_have_their_types(written) -> None:
    table, _ = written
    assert table["time"].dtype == np.float64
    assert table["event"].dtype == np.int64
    assert table["age"].tolist()[:2] == [50.0, 51.0] and np.isnan(table["age"][2])
    assert table["grade"].tolist()[:3] == ["1", "1", "2"], "class names stay text"
    assert pd.isna(table["grade"][3])
    assert table["block"].tolist() == ["007", "012", "013", "014"], "padded numbers are names"
    assert table["note"].isna().all()


def test_the_facts_of_the_cohort(written) -> None:
    _, facts = written
    assert facts["counts"] == {
        "slides": 4,
        "cases": 3,
        "sites": 2,
        "cases_with_several_slides": 1,
        "slides_without_path": 1,
        "slides_missing": 1,
    }
    assert facts["slides_missing"] == ["s3"]
    assert facts["tasks"]["os"]["events"] == 2
    assert facts["tasks"]["g"]["classes"] == {"1": 1, "2": 1}
    assert facts["tasks"]["g"]["cases_without_label"] == 1
    assert facts["oracle"] == {} and facts["planted_faults"] == {}


def test_a_bad_label_leaves_no_table(tmp_path: Path) -> None:
    (tmp_path / "sheet.csv").write_text("slide_id,case_id,time,event\na,c,1,1\nb,d,-3,1\n")
    cfg = CohortConfig(name="mine", source="sheet", sheet="sheet.csv")
    with pytest.raises(SheetError, match="-3"):
        stage.run(
            job=CohortJob(cohort=cfg, tasks={"os": SURVIVAL.model_dump()}),
            root=tmp_path / "r",
            base=tmp_path,
        )
    assert not (tmp_path / "r").exists()


def test_the_embedded_cohort(tmp_path: Path) -> None:
    small = SyntheticConfig(cases=12, slide_px=(256, 260), two_slide_fraction=0.25, seed=5)
    cfg = CohortConfig(name="tiny", synthetic=small)
    tasks = {
        "survival": SURVIVAL,
        "subtype": ClassificationTask(type="classification", label="subtype"),
        "score": RegressionTask(type="regression", targets=["score"]),
    }
    root = tmp_path / "results" / "tiny"
    with pytest.raises(ArtifactError, match="cohort chunk"):
        stage.run(
            job=CohortJob(
                cohort=cfg, tasks={name: task.model_dump() for name, task in tasks.items()}
            ),
            root=root,
            base=tmp_path,
        )
    planned = embedded.plan(cfg, tmp_path)
    for row in planned:  # the stage reads no pixels
        Path(row.path).parent.mkdir(parents=True, exist_ok=True)
        Path(row.path).write_text("slide")
    stage.run(
        job=CohortJob(cohort=cfg, tasks={name: task.model_dump() for name, task in tasks.items()}),
        root=root,
        base=tmp_path,
    )
    table, facts = read_table(root / "slides.parquet"), read_json(root / "cohort.json")
    assert table["slide_id"].tolist() == [row.slide_id for row in planned]
    assert dict(zip(table["slide_id"], table["identity"], strict=True)) == embedded.identities(cfg)
    assert table["time"].dtype == np.float64 and table["event"].isin([0, 1]).all()
    assert set(facts["oracle"]) == set(tasks)
    assert 0.6 < facts["oracle"]["survival"]["c_index"] <= 1
    assert sorted(facts["planted_faults"].values()) == ["blank", "no_mpp", "truncated"]
    assert facts["label_columns"] == ["time", "event", "subtype", "score", "age", "sex", "stage"]
