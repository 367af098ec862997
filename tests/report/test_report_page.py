"""The whole page of a fabricated run: self-contained, well-formed, escaped, true to its inputs."""

from __future__ import annotations

import html
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import yaml

from pipeline.accounting import run_summary
from pipeline.config.reading import parse
from pipeline.config.whole import Config
from pipeline.contracts import slide_warnings
from pipeline.contracts.cohort_flow import read_cohort_flow
from pipeline.contracts.folds_summary import read_folds_summary
from pipeline.errors import ArtifactError
from pipeline.files.artifacts import read_json, write_json
from pipeline.report import results, stage
from pipeline.report.evaluated import read_evaluation
from pipeline.report.results import describe
from pipeline.report.sections import tasks
from pipeline.report.tables.cells import Table, p_text
from tests.report import fabricate
from tests.report.conftest import small_config

VOID = {"meta", "img", "link", "br", "hr", "input", "line", "circle", "use", "path"}


class Page(HTMLParser):
    """Collects tags, ids and links, and checks that tags nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def parsed(page: str) -> Page:
    return Page(page)


def test_the_page_is_whole_and_opens_offline(page: str, parsed: Page) -> None:
    assert parsed.open == []
    assert len(page) < 15e6
    for tag, attributes in parsed.tags:
        for key in ("src", "href", "xlink:href"):
            link = attributes.get(key) or ""
            assert link.startswith(("#", "data:")) or not link, (tag, link)
        assert tag not in ("link", "iframe", "object")
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_what_was_used_and_lost_stands_before_any_result(
    whole: tuple[Config, Path], parsed: Page
) -> None:
    flow = read_cohort_flow(whole[1])
    assert sum(flow.lost.values()) == flow.slides.total - flow.slides.usable > 0
    said = run_summary.used_and_lost(flow)["slides"]
    head = parsed.text[: parsed.text.index("Intervals are")]
    assert f"Slides: {said}." in head
    assert next(iter(flow.lost)).replace("_", " ") in head


def test_ids_are_unique_and_links_lead_somewhere(parsed: Page) -> None:
    ids = Counter(a["id"] for _, a in parsed.tags if a.get("id"))
    assert max(ids.values()) == 1
    for _, attributes in parsed.tags:
        link = attributes.get("href") or attributes.get("xlink:href") or ""
        if link.startswith("#"):
            assert link[1:] in ids, link


def test_pictures_and_figures_are_described(parsed: Page) -> None:
    images = [a for tag, a in parsed.tags if tag == "img" and a.get("src")]
    assert len(images) > 12
    assert all(a.get("alt") for a in images)
    drawings = [a for tag, a in parsed.tags if tag == "svg" and a.get("role") == "img"]
    assert drawings
    ids = {a.get("id") for _, a in parsed.tags}
    assert all(a["aria-labelledby"] in ids for a in drawings)


def test_what_is_wide_can_be_scrolled_and_reached_with_the_keyboard(page: str) -> None:
    tables = page.count("<table>")
    assert tables > 10
    scrolled = re.findall(r'<div class="scroll[^"]*" tabindex="0"[^>]*>\s*<table>', page)
    assert len(scrolled) == tables
    drawings = re.findall(r'<div class="drawing">\s*<svg', page)
    assert len(drawings) == page.count('<div class="drawing">')


def test_the_first_lines_say_what_was_used_and_lost(parsed: Page, page: str) -> None:
    told = page[page.index('class="masthead"') : page.index('id="flow"')]
    assert re.search(r"Slides: [\d,]+ in the sheet, [\d,]+ used, [\d,]+ lost", told)
    assert re.search(r"Cases: [\d,]+ in the sheet, [\d,]+ used", told)


def test_names_from_outside_are_escaped(page: str, parsed: Page) -> None:
    assert fabricate.HOSTILE not in page
    assert html.escape("S<i>08&", quote=False) in page
    assert fabricate.HOSTILE in parsed.text
    assert "<mixed>" not in page
    assert "<mixed>" in parsed.text


def test_every_slide_that_was_not_used_is_named_with_its_reason(
    whole: tuple[Config, Path], parsed: Page
) -> None:
    ledger = pd.read_parquet(whole[1] / "ledger.parquet")
    assert len(ledger)
    for row in ledger.itertuples():
        assert f"{row.reason}" in parsed.text
        assert str(row.slide_id) in parsed.text


def test_warnings_stand_by_kind_with_counts_and_what_to_do(parsed: Page) -> None:
    assert "Warnings about slides" in parsed.text
    assert slide_warnings.KINDS["scale_assumed"] in parsed.text


def test_planted_faults_are_counted_against_the_ledger(parsed: Page) -> None:
    assert "3 slides broken on purpose" in parsed.text
    assert "The ledger names 2 of them." in parsed.text


def test_survival_stands_first_whatever_the_order_of_the_config(parsed: Page) -> None:
    sections = [a["id"] for tag, a in parsed.tags if tag == "section" and a.get("class") == "task"]
    assert sections == ["task-survival", "task-subtype", "task-score"]


def test_the_strip_counts_what_the_tables_hold(whole: tuple[Config, Path], page: str) -> None:
    _, root = whole
    values = [int(v) for v in re.findall(r'<span class="value">(\d+)</span>', page)]
    slides = pd.read_parquet(root / "slides.parquet")
    coverage = pd.read_parquet(root / "coverage.parquet").query("status == 'ok'")
    per_case = coverage.groupby("case_id")["teacher"].nunique()
    complete = int((per_case == 3).sum())
    usable = coverage["slide_id"].nunique()
    assert values == [len(slides), usable, usable, complete, complete]


def test_the_headline_is_the_tables_numbers(whole: tuple[Config, Path], parsed: Page) -> None:
    _, root = whole
    metrics = pd.read_parquet(root / "evaluation/survival/metrics.parquet")
    primary = metrics[metrics["metric"] == "c_index"].set_index("model")
    student = primary.loc["shazam_v2"]
    rival = primary.drop("shazam_v2")["value"].idxmax()
    pairs = pd.read_parquet(root / "evaluation/survival/comparisons.parquet")
    pair = pairs[(pairs["other"] == rival) & (pairs["metric"] == "c_index")].iloc[0]
    label = describe(whole[0], rival).label
    expected = (
        f"reaches C-index {student.value:.3f} [{student.low:.3f}, {student.high:.3f}] on "
        f"{student.n} cases ({student.n_events} events) ; its strongest rival, {label}, "
        f"{primary.loc[rival].value:.3f}"
    )
    text = re.sub(r"\s+", "", parsed.text)
    assert re.sub(r"\s+", "", expected) in text
    assert (
        f"{p_text(pair.p_holm)}(Holm),{p_text(pair.p_folds)}overfolds".replace("\u00a0", "") in text
    )


def test_the_first_figure_of_a_task_says_what_the_lead_is_made_of(
    whole: tuple[Config, Path], page: str
) -> None:
    _, root = whole
    parts = pd.read_csv(root / "evaluation/survival/attribution.csv").set_index("part")
    assert set(parts.index) == {"whole", "learner", "teachers", "distillation", "simple"}
    assert parts.loc["distillation", "other"] == "v2_no_distillation"
    task = page[page.index('id="task-survival"') :]
    assert "lead over a single teacher is made of" in task[: task.index("</figcaption>")]
    assert f"validation chose {parts['teacher'].iloc[0]}. The plain model of it is" in task
    drawn = (root / "report/survival-attribution.svg").read_text()
    for said in ("learner adds", "several teachers add", "distillation adds", "simple model"):
        assert said in drawn


def test_models_stand_in_the_order_of_their_values(whole: tuple[Config, Path]) -> None:
    _, root = whole
    opened = read_evaluation(root, "survival", "shazam_v2")
    values = [opened.row(name)["value"] for name in opened.order]
    assert values == sorted(values, reverse=True) and opened.student == "shazam_v2"


def test_random_teachers_and_the_embedded_cohort_are_labelled(parsed: Page) -> None:
    assert "drawn by a program" in parsed.text
    assert "All teachers here are small encoders with random, never trained weights" in parsed.text
    assert "Validation, not test." not in parsed.text


def test_figures_and_config_are_left_beside_the_page(whole: tuple[Config, Path]) -> None:
    config, root = whole
    names = {path.name for path in (root / "report").glob("*.svg")}
    assert {"survival-forest.svg", "subtype-roc.svg", "score-scatter.svg"} <= names
    kept = parse(yaml.safe_load((root / "report/config.yaml").read_text()))
    assert kept == config


@pytest.mark.usefixtures("undrawn")
def test_validation_folds_are_labelled_in_red(small: Path) -> None:
    path = small / "folds/survival/folds.json"
    write_json(path, read_json(path) | {"labelled": "validation"})
    config = small_config()
    (small / "report").mkdir()
    (small / "report/old.svg").write_text("<svg/>")
    stage.run(config=config, root=small)
    text = (small / "report.html").read_text()
    assert text.count('class="notice alarm"') == 2
    assert "reaches validation C-index" in Page(text).text
    assert "All models on the same validation cases" in Page(text).text
    assert not (small / "report/old.svg").exists()
    first = without_date(text)
    stage.run(config=config, root=small)
    assert without_date((small / "report.html").read_text()) == first


def without_date(text: str) -> str:
    return re.sub(r"Made [\d: -]+ UTC", "", text)


def test_models_that_predict_fewer_cases_are_not_said_to_be_comparable(small: Path) -> None:
    for name, column in (("metrics", "model"), ("comparisons", "other")):
        path = small / f"evaluation/survival/{name}.parquet"
        table = pd.read_parquet(path)
        table.loc[table[column] == "single_vit_tiny", "n"] = 11
        table.to_parquet(path)
    opened = results.read(small_config(), small)
    section = tasks.section(opened, "survival", read_folds_summary(opened.root, "survival"))
    assert "do not compare" in section.metrics.caption
    at = [column.label for column in section.metrics.columns].index("cases")
    assert sorted({row[at].key for row in section.metrics.rows if row[at].key}) == [11, 37]
    assert section.forest is not None
    assert ">11<" in section.forest.document


@pytest.mark.usefixtures("undrawn")
def test_imported_teachers_need_no_slides_no_attention_and_no_benchmarks(small: Path) -> None:
    """Features of other tools: no tiles, no pictures, no coordinates, and still a report."""
    for folder in ("tiles", "benchmarks"):
        for path in sorted((small / folder).rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
    for path in (small / "models").rglob("attention.parquet"):
        path.unlink()
    teachers = {
        name: {"source": "import", "path": f"features/{name}"}
        for name in fabricate.CONFIG["extraction"]["teachers"]
    }
    config = small_config(
        extraction={"teachers": teachers}, cohort={"source": "sheet", "sheet": "slides.csv"}
    )
    stage.run(config=config, root=small)
    text = Page((small / "report.html").read_text()).text
    assert "every teacher was imported" in text
    assert "left no attention" in text
    assert "No benchmark files" in text
    assert "random" not in text.partition("Reproducing this")[0]


@pytest.mark.parametrize(
    "name",
    [
        "cohort_flow.json",
        "coverage.parquet",
        "tiles/manifest/1.json",
        "folds/survival/folds.json",
        "evaluation/survival/metrics.parquet",
        "evaluation/survival/curves.json",
    ],
)
def test_a_missing_input_is_named(small: Path, name: str) -> None:
    (small / name).unlink()
    with pytest.raises(ArtifactError, match=re.escape(name)):
        stage.run(config=small_config(), root=small)
    assert not (small / "report.html").exists()


def test_a_table_of_another_version_is_named(small: Path) -> None:
    path = small / "ledger.parquet"
    pd.read_parquet(path).drop(columns="kind").to_parquet(path)
    with pytest.raises(ArtifactError, match=r"ledger\.parquet: no column kind"):
        results.read(small_config(), small)


def test_an_evaluation_without_the_student_is_refused(small: Path) -> None:
    path = small / "evaluation/survival/metrics.parquet"
    pd.read_parquet(path).query("model != 'shazam_v2'").to_parquet(path)
    with pytest.raises(ArtifactError, match="student `shazam_v2`"):
        stage.run(config=small_config(), root=small)


def test_errors_have_a_floor_and_seeds_a_column_where_there_are_several(
    whole: tuple[Config, Path], small: Path, parsed: Page
) -> None:
    assert "Precision and recall per class" in parsed.text
    config, root = whole

    def shown(task: str, folder: Path) -> Table:
        opened = results.read(config, folder)
        measured = read_evaluation(folder, task, "shazam_v2")
        infos = {name: results.describe(config, name) for name in measured.order}
        return tasks._models(opened, measured, infos, list(measured.order), "")

    found = shown("survival", root)
    last = [str(cell.html) for cell in found.rows[-1]]
    assert last[0] == "average of training" and 0.05 < float(last[-3]) < 0.4
    assert "Average of training" in found.read
    assert "Average of training" not in shown("subtype", root).read
    labels = [column.label for column in found.columns]
    assert "over folds" in labels and "over seeds" not in labels
    path = small / "evaluation/survival/metrics.parquet"
    table = pd.read_parquet(path).assign(n_seeds=3, seed_mean=0.7, seed_std=0.01)
    table.to_parquet(path)
    several = shown("survival", small)
    assert [c.label for c in several.columns][-2] == "over seeds"
    assert str(several.rows[0][-2].html) == "0.700 ± 0.010"
    assert {len(row) for row in several.rows} == {len(several.columns)}
