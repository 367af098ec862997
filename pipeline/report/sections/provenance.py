"""Section 7: what another person needs to get the same numbers."""

from __future__ import annotations

import dataclasses
import platform
import subprocess
from collections.abc import Iterable

import yaml

from pipeline import ROOT
from pipeline.accounting.job_records import read_records
from pipeline.config.probing import ProbingConfig
from pipeline.config.whole import Config
from pipeline.report.results import Results
from pipeline.report.tables.cells import Column, Table, code, text
from pipeline.runtime.libraries import installed


@dataclasses.dataclass(frozen=True)
class ReproducibilitySection:
    commit: str
    command: str
    config: str
    versions: Table
    seeds: Table
    files: Table


def section(results: Results) -> ReproducibilitySection:
    """Versions, the config as it was used, seeds, the commit where there is one, the files."""
    config = results.config
    return ReproducibilitySection(
        commit=commit(),
        command=f"snakemake --cores 2 --configfile results/{config.cohort.name}/report/config.yaml",
        config=config_yaml(config),
        versions=_versions(results),
        seeds=_seeds(config),
        files=_files(config),
    )


def config_yaml(config: Config) -> str:
    """The whole config as YAML, defaults included, in the order of the work."""
    return yaml.safe_dump(
        config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100
    )


def commit() -> str:
    """The code's git commit, marked when files differ from it; empty outside a repository."""
    if not (ROOT / ".git").exists():
        return ""
    try:
        head = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"{head} with uncommitted changes" if changed else head


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    return done.stdout.strip()


def _versions(results: Results) -> Table:
    """Python and the libraries: those of this page, and others that jobs ran with."""
    used: dict[str, set[str]] = {}
    for libraries in [installed(), *(record.libraries for record in read_records(results.root))]:
        for name, version in libraries.items():
            used.setdefault(name, set()).add(version)
    rows = [[text("Python"), code(platform.python_version())]]
    rows += [[text(name), code(", ".join(sorted(used[name])))] for name in installed()]
    rows.append([text("system"), code(f"{platform.system()} {platform.machine()}")])
    return Table(
        "Versions",
        [Column("what"), Column("version")],
        rows,
        read="Two versions of a library: some jobs ran before it was changed. Results are not made "
        "again for that.",
    )


def _seeds(config: Config) -> Table:
    def rows() -> Iterable[tuple[str, object]]:
        if config.cohort.source == "synthetic":
            yield "cohort.synthetic.seed", config.cohort.synthetic.seed
        yield "tiling.seed", config.tiling.seed
        for name, teacher in config.extraction.teachers.items():
            if teacher.weights == "random" and teacher.source != "import":
                yield f"extraction.teachers.{name}.seed", teacher.seed
        probing = config.section(ProbingConfig)
        if probing is not None:
            yield "probing.seed", probing.seed
        yield "folds.seed", config.folds.seed
        yield "training.seeds", ", ".join(map(str, config.training.seeds))
        yield "evaluation.seed", config.evaluation.seed

    return Table(
        "Seeds",
        [Column("key"), Column("value")],
        [[code(key), code(value)] for key, value in rows()],
        read="Every random choice starts from one of these; the same seeds give the same numbers.",
    )


def _files(config: Config) -> Table:
    rows = [
        ("slides and their labels", "slides.parquet"),
        ("what happened to each slide", "coverage.csv, ledger.csv, tiles/manifest/"),
        ("tiles: coordinates and tissue", "tiles/<slide>.h5, tiles/<slide>.geojson"),
        ("features", "features/<teacher>/<slide>.h5"),
        ("the files of each case", "case_to_features.json"),
    ]
    if config.section(ProbingConfig) is not None:
        rows.append(("tile probes", "probing/"))
    for task in config.tasks:
        rows += [
            (f"{task}: folds", f"folds/{task}/fold_<k>.csv"),
            (f"{task}: every prediction", f"models/{task}/<model>/predictions.parquet"),
            (f"{task}: pooled test predictions", f"evaluation/{task}/per_case.parquet"),
            (f"{task}: metrics", f"evaluation/{task}/metrics.csv"),
            (f"{task}: comparisons", f"evaluation/{task}/comparisons.csv"),
            (f"{task}: points of the curves", f"evaluation/{task}/curves.json"),
        ]
    rows.append(("figures of this page as SVG", "report/"))
    return Table(
        "The file behind each number",
        [Column("what"), Column("where, below the results folder")],
        [[text(what), code(where)] for what, where in rows],
    )
