"""The model card as Markdown, with the front matter that model hubs read."""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from pipeline.contracts.model_card import EncoderCard, ModelCard, Row
from pipeline.report.tables.cells import fixed

RESTRICTED, OPEN = "other", "unknown"
INTENDED = """For research on slides that were stained and scanned like the training cohort's. It
is not a medical device, and nothing it says may decide on a patient. `predict` compares each
slide with the training cohort (scale, stain, features) and says where one is unlike it; what it
says of such a slide may mean nothing."""


def model_card(card: ModelCard, file: str) -> str:
    """The page.

    Args:
        card: of the file.
        file: its name.
    """
    front = yaml.safe_dump(_front(card), sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n" + "\n\n".join(_parts(card, file)) + "\n"


def _front(card: ModelCard) -> dict[str, object]:
    kind = {
        "survival": "survival-analysis",
        "classification": "image-classification",
        "regression": "image-regression",
    }[card.type]
    results = [
        {"type": row["metric"], "value": row["value"]}
        for row in card.metrics
        if row["metric"] == card.primary_metric and row["value"] is not None
    ]
    return {
        "license": RESTRICTED if card.restrictions else OPEN,
        "library_name": "shazam-pathology",
        "pipeline_tag": "image-classification",
        "tags": ["histopathology", "whole-slide-images", kind],
        "model-index": [
            {
                "name": card.name,
                "results": [
                    {
                        "task": {"type": kind, "name": card.task_name},
                        "dataset": {
                            "name": f"{card.cohort['name']}, cross-validation",
                            "type": "whole-slide-images",
                        },
                        "metrics": results,
                    }
                ],
            }
        ],
    }


def _parts(card: ModelCard, file: str) -> Iterator[str]:
    yield f"# {card.name}"
    of = f"{len(card.members)} models (`{card.model['kind']}`, one for each fold"
    of += f"{' and seed' if len(card.cohort['seeds']) > 1 else ''})"
    if card.encoders:
        yield (
            f"A raw whole-slide image becomes {_gives(card)}: tissue, tiles, "
            f"{len(card.encoders)} encoder{'s' * (len(card.encoders) > 1)} and {of}, in one "
            "process."
        )
    else:
        yield f"The covariates of a case become {_gives(card)}, by {of}."
    slides = "SLIDE... " if card.encoders else ""
    table = "--covariates FILE.csv " if card.covariates else ""
    command = f"python -m pipeline predict {slides}--model {file} {table}--out predictions/"
    yield f"```sh\n{command}\n```"
    if card.stacked:
        names = ", ".join(f"`{one.name}` ({one.model['kind']})" for one in card.stacked)
        yield (
            f"Each of them weighs {names}, trained on the same fold and in the file, by weights "
            "that were fitted to predictions of cases which these had not learned from."
        )
    if card.covariates:
        yield f"## Covariates\n\n{_covariates(card)}"
    yield f"## Use\n\n{INTENDED}"
    if card.cohort.get("synthetic"):
        yield "**A demonstration: it learned from drawn slides and says nothing of real tissue.**"
    yield f"## Training cohort\n\n{_cohort(card)}"
    yield f"## Results\n\n{_results(card)}"
    yield f"## Calibration\n\n{_calibration(card)}"
    if card.encoders:
        yield f"## What a slide goes through\n\n{_preprocessing(card)}"
        yield f"## Encoders\n\n{_encoders(card.encoders)}"
    yield f"## Licence\n\n{_licence(card)}"
    yield (
        f"## File\n\nWritten by shazam-pathology {card.package}, layout {card.layout}. SHA-256 of "
        f"all tensors and of the card inside: `{card.checksum}`. No Python objects are stored."
    )


def _gives(card: ModelCard) -> str:
    if card.type == "survival":
        times = ", ".join(f"{at:.3g}" for at in card.calibration.horizons)
        unit = card.task.get("unit", "")
        curves = f" and the chance to be alive after {times} {unit}" if times else ""
        return f"a risk group with a score{curves}"
    if card.type == "classification":
        return f"the probability of {', '.join(card.classes)}"
    targets = card.task["targets"]
    return f"the value of {', '.join(targets[:5])}{' …' if len(targets) > 5 else ''}"


def _covariates(card: ModelCard) -> str:
    said = (
        "`FILE.csv` has the column `case_id` and these, a row a case. An empty cell is a missing "
        "value, which counts as one of the training cohort did: a number as the median of the "
        "training cases and as missing, a category as the level `missing`."
    )
    rows = [
        f"| {one.name} | {one.kind} | "
        f"{' to '.join(one.levels) if one.kind == 'number' else ', '.join(one.levels)} |"
        for one in card.covariates
    ]
    head = ["| column | kind | in the training cohort |", "|---|---|---|"]
    return "\n".join([said, "", *head, *rows])


def _cohort(card: ModelCard) -> str:
    facts = card.cohort
    lines = [f"{facts['cases']} cases, {facts['slides']} slides, {facts['folds']} folds."]
    if "events" in facts:
        lines.append(f"{facts['events']} events.")
    if "classes" in facts:
        lines.append(", ".join(f"{name}: {n}" for name, n in facts["classes"].items()) + ".")
    if card.familiar.mpp is not None:
        low, high = card.familiar.mpp
        scale = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
        lines.append(f"Scanned at {scale} µm per pixel.")
    return " ".join(lines)


def _results(card: ModelCard) -> str:
    said = f"On cases that the models had not seen (`{card.labelled}` parts of the folds), with \
intervals from resampled cases. The exported ensemble of all folds was not itself tested: an \
external cohort tests it."
    rows = [row for row in card.metrics if "[" not in str(row["metric"])]
    return "\n".join([said, "", "| metric | value | interval | cases |", "|---|---|---|---|",
                      *map(_row, rows)])  # fmt: skip


def _row(row: Row) -> str:
    cells = (row["metric"], fixed(row["value"]), f"{fixed(row['low'])} to {fixed(row['high'])}")
    return f"| {' | '.join(map(str, cells))} | {row['n']} |"


def _calibration(card: ModelCard) -> str:
    found = card.calibration
    how = {
        "cox": "Scores become survival by a Cox model of the score alone",
        "temperature": "Probabilities are sharpened or softened by one temperature",
        "line": "Values are corrected by a straight line",
        "none": "None",
    }[found.method]
    fitted = (
        ""
        if found.method == "none"
        else f", fitted to the out-of-fold predictions of {found.cases} cases"
    )
    note = f" {found.note[0].upper()}{found.note[1:]}." if found.note else ""
    return f"{how}{fitted}.{note}"


def _preprocessing(card: ModelCard) -> str:
    lines = []
    for folder in dict.fromkeys(one.tiles for one in card.encoders):
        tiling = next(one.tiling for one in card.encoders if one.tiles == folder)
        names = ", ".join(one.name for one in card.encoders if one.tiles == folder)
        lines.append(
            f"- {names}: tiles of {tiling['tile_px']} px at {tiling['target_mpp']:g} µm per pixel, "
            f"tissue by `{tiling['tissue']['method']}`, at least "
            f"{tiling['min_tissue_fraction']:.0%} tissue"
        )
    most = "all tiles" if card.max_tiles is None else f"at most {card.max_tiles:,} tiles"
    return "\n".join([*lines, f"- {most} of a case, spread evenly"])


def _encoders(encoders: list[EncoderCard]) -> str:
    head = ["| encoder | parameters | GFLOP a tile | weights | licence | SHA-256 |",
            "|---|---|---|---|---|---|"]  # fmt: skip
    rows = [
        f"| {one.name} | {one.parameters / 1e6:,.1f} M | {one.gflop_per_tile:.3g} | {one.weights} "
        f"| {one.licence or 'not known'} | {f'`{one.sha256[:16]}`' if one.sha256 else '–'} |"
        for one in encoders
    ]
    return "\n".join(head + rows)


def _licence(card: ModelCard) -> str:
    if not card.restrictions:
        return (
            "No encoder's licence is known to restrict models that are trained on its outputs. "
            "What the training cohort's own terms allow is for its owner to say."
        )
    return "\n".join(f"- {line}" for line in card.restrictions)
