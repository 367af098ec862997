"""What the folds will refuse is refused at the parse: the sheet's cases are split, once, as later.

Slides that fail on the way are not known yet, so every case is taken to be usable.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.config.whole import Config
from pipeline.contracts.columns import spelled_out
from pipeline.contracts.slide_row import SlideRow
from pipeline.errors import UserError
from pipeline.files.digests import digest
from pipeline.files.recall import Recall


def check_splits(
    config: Config, rows: Sequence[SlideRow], base: Path, imported: str, recall: Recall | None
) -> None:
    """Split every task's cases as the folds stage will.

    Args:
        config: the config.
        rows: the cohort, whose labels have been checked.
        base: folder that relative paths of the config start from.
        imported: digest of the fold files that are imported.
        recall: spares splitting again what has not changed.

    Raises:
        UserError: the cases of a task cannot be split as asked; all findings in one message.
    """
    told = [[r.slide_id, r.case_id, r.site, r.labels] for r in rows]
    tasks = {name: task.canonical() for name, task in config.tasks.items()}
    key = f"splits|{digest([told, tasks, config.folds.canonical(), imported])}"
    if recall is None:
        _split(config, rows, base)
    else:
        recall.answer(key, lambda: _split(config, rows, base))


def _split(config: Config, rows: Sequence[SlideRow], base: Path) -> bool:
    import pandas as pd

    from pipeline.cohort.stage import slide_table
    from pipeline.folds.stage import split
    from pipeline.folds.units import units
    from pipeline.mapping.cases import case_table
    from pipeline.mapping.coverage import Coverage

    slides = slide_table(rows, {r.slide_id: "" for r in rows}, config.cohort.chunks, config.tasks)
    everything = Coverage({}, {"all": {r.slide_id: "" for r in rows}}, {}, pd.DataFrame())
    cases, _ = case_table(slides, everything)
    cfg = config.folds
    if cfg.import_dir is not None:
        folder = base / Path(cfg.import_dir).expanduser()
        cfg = cfg.model_copy(update={"import_dir": str(folder)})
    problems = []
    for name, task in config.tasks.items():
        try:
            found = units(
                cases,
                mode="union",
                group_by=cfg.group_by,
                name=name,
                task=spelled_out(task, cases.columns),
            )
            split(found, slides, cfg)
        except UserError as error:
            problems.append(str(error))
    if problems:
        lines = "\n".join(f"  - {problem}" for problem in dict.fromkeys(problems))
        raise UserError(f"folds: {len(set(problems))} problem(s)\n{lines}")
    return True
