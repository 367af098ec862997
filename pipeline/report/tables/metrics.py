"""What a metric is called, how it is shown, and where chance lies."""

from __future__ import annotations

import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric as the page shows it.

    Attributes:
        label: its name in text and headings.
        chance: the value of a model that knows nothing; None where there is no fixed one.
        higher: whether more is better.
        hint: a short definition, as a tooltip.
    """

    label: str
    chance: float | None = None
    higher: bool = True
    hint: str = ""


METRICS: dict[str, Metric] = {
    "c_index": Metric("C-index", 0.5, hint="share of comparable pairs ranked rightly (Harrell)"),
    "c_index_ipcw": Metric("Uno's C", 0.5, hint="C-index weighted for censoring (IPCW)"),
    "auc_mean": Metric("mean AUC(t)", 0.5, hint="cumulative/dynamic AUC over the horizons"),
    "integrated_brier": Metric("integrated Brier", higher=False, hint="IPCW, over time"),
    "auc": Metric("AUC", 0.5, hint="area under the ROC curve, macro average over classes"),
    "auprc": Metric("AUPRC", hint="area under the precision-recall curve, macro average"),
    "balanced_accuracy": Metric(
        "balanced acc.", hint="balanced accuracy: mean recall over the classes"
    ),
    "accuracy": Metric("accuracy", hint="share of cases classified rightly"),
    "f1": Metric("F1", hint="macro average over classes"),
    "kappa": Metric("κ", 0.0, hint="Cohen's kappa"),
    "qwk": Metric("weighted κ", 0.0, hint="Cohen's kappa with quadratic weights"),
    "brier": Metric("Brier score", higher=False, hint="mean squared error of probabilities"),
    "log_loss": Metric("log loss", higher=False),
    "ece": Metric("cal. error", higher=False, hint="expected calibration error"),
    "r2": Metric("R²", 0.0, hint="variance explained; 0 is the mean of the measured values"),
    "pearson": Metric("Pearson r", 0.0, hint="linear correlation of predicted and measured"),
    "spearman": Metric("Spearman ρ", 0.0, hint="rank correlation of predicted and measured"),
    "mae": Metric("mean abs. error", higher=False, hint="mean absolute error"),
    "rmse": Metric("RMSE", higher=False, hint="root mean squared error"),
}

# Next to the primary metric in the table of models; all others stand in the folded one.
SHOWN: dict[str, tuple[str, ...]] = {
    "survival": ("c_index", "c_index_ipcw", "auc_mean", "integrated_brier"),
    "classification": ("auc", "balanced_accuracy", "f1", "ece"),
    "regression": ("r2", "pearson", "spearman", "mae"),
}

_AT_TIME = re.compile(r"auc_at_([\d.e+-]+)")
_OF_TARGET = re.compile(r"(\w+)\[(.+)\]")


def describe(name: str) -> Metric:
    """The metric called `name`: known, `auc_at_<time>`, `<metric>[<target>]`, or as it is named."""
    if name in METRICS:
        return METRICS[name]
    if found := _AT_TIME.fullmatch(name):
        return Metric(f"AUC at {found[1]}", 0.5, hint="cumulative/dynamic AUC at that time")
    if found := _OF_TARGET.fullmatch(name):
        known = describe(found[1])
        return dataclasses.replace(known, label=f"{known.label}, {found[2]}")
    return Metric(name.replace("_", " "))
