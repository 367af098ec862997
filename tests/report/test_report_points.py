"""The order of panels."""

from __future__ import annotations

import pandas as pd

from pipeline.report.evaluated import Evaluation
from pipeline.report.figures import task_figures
from pipeline.report.results import ModelInfo

POINTS = {"predicted": [0.2, 0.8], "observed": [0.1, 0.9]}


def test_survival_panels_stand_in_time_though_their_names_sort_otherwise() -> None:
    names = ["t = 17.1", "t = 28", "t = 7.05"]
    curves = {"calibration": {"m": dict.fromkeys(names, POINTS)}}
    table = pd.DataFrame()
    opened = Evaluation("survival", {}, curves, table, table, "c_index", {}, {}, ("m",))
    infos = {"m": ModelInfo("m", "M", "student", "#123456")}
    drawing = task_figures._survival_calibration(opened, infos, ["m"], "weeks")
    assert drawing is not None
    # matplotlib leaves each text of an SVG as a comment beside its glyphs, or as text.
    names = ("at 7.05 weeks", "at 17.1 weeks", "at 28 weeks")
    places = [drawing.document.index(name) for name in names]
    assert places == sorted(places)


def test_precision_and_recall_stand_over_the_share_of_the_class() -> None:
    one = {"recall": [1, 0.5, 0], "precision": [0.3, 0.6, 1], "share": 0.3}
    table = pd.DataFrame()
    curves = {"precision_recall": {"m": {"b": one, "a": one}}}
    opened = Evaluation("kind", {}, curves, table, table, "auc", {}, {}, ("m",))
    infos = {"m": ModelInfo("m", "M", "student", "#123456")}
    drawing = task_figures._precision_recall(opened, infos, ["m"])
    assert drawing is not None and drawing.name == "kind-precision-recall"
    assert drawing.document.count("share of the class") == 1
    empty = Evaluation("kind", {}, {}, table, table, "auc", {}, {}, ("m",))
    assert task_figures._precision_recall(empty, infos, ["m"]) is None
