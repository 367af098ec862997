"""What a prediction from a raw slide costs: several teachers against one small encoder, in one run.

    python benchmarks/predict.py [--side 12000] [--teachers efficientnet_lite0 …] [--student NAME]
                                 [--student-px 112] [--max-tiles 4096] [--workers 2] [--device auto]
    python benchmarks/predict.py --model MODEL.safetensors --against SMALL.safetensors

A slide is drawn, and `python -m pipeline predict` reads it with a model of all teachers
(concatenation, five folds) and with one of the small encoder alone, each in a process of its own.
Weights are random: they change no cost. With --model and --against two exported files are compared.
Printed: seconds of the whole process and of tiling and encoding, both per gigapixel of the slide,
peak memory, and the ratios. The slide's tissue decides how many tiles there are.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pydantic import TypeAdapter

from pipeline.aggregators.network import Shape
from pipeline.cohort.synthetic import aperio
from pipeline.cohort.synthetic.painting import Picture, paint
from pipeline.config.extraction import TeacherConfig
from pipeline.config.models import ModelConfig
from pipeline.config.tiling import TilingConfig
from pipeline.contracts.model_card import (
    LAYOUT,
    Calibration,
    EncoderCard,
    Familiar,
    Member,
    ModelCard,
    Range,
)
from pipeline.encoders import build, weights
from pipeline.prediction.model_file import encoder_prefix, member_prefix, write_model
from pipeline.training.models import build_network

DRAWN = 4000  # side of what is drawn, in pixels; larger slides repeat it
MPP = 0.5
FOLDS = 5
NATIVE_PX = 224


def main() -> None:
    """Make the slide and the models, predict with each, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--side", type=int, default=12_000, help="of the slide, in pixels")
    parser.add_argument(
        "--teachers", nargs="+", default=["efficientnet_lite0", "efficientnet_lite1",
                                          "efficientnet_lite2"]
    )  # fmt: skip
    parser.add_argument("--student", default="resnet10t")
    parser.add_argument("--student-px", type=int, default=112)
    parser.add_argument("--max-tiles", type=int, default=4096)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--model", type=Path, help="an exported model of several teachers")
    parser.add_argument("--against", type=Path, help="an exported model of one small encoder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        slide = folder / "slide.svs"
        draw(slide, options.side)
        first, second = options.model, options.against
        if first is None or second is None:
            teachers = dict.fromkeys(options.teachers, NATIVE_PX)
            first = fabricate(folder / "teachers.safetensors", teachers, options.max_tiles)
            small = {options.student: options.student_px}
            second = fabricate(folder / "student.safetensors", small, options.max_tiles)
        print(f"slide: {options.side} x {options.side} px, {options.side**2 / 1e9:.3f} gigapixels")
        found = [measured(one, slide, options) for one in (first, second)]
    table = pd.DataFrame(found)
    print(table.to_string(index=False, float_format=lambda v: f"{v:,.1f}"))
    numbers = table.drop(columns=["model", "tiles"])
    ratios = numbers.iloc[0] / numbers.iloc[1]
    print("ratio, first to second: " + ", ".join(f"{k} {v:.2f}" for k, v in ratios.items()))


def draw(path: Path, side: int) -> None:
    """An H&E-like slide of the embedded cohort's kind."""
    drawn = min(side, DRAWN)
    state = {"tumour_fraction": 0.5, "pleomorphism": 0.5, "lymphocytes": 0.5, "growth": 0.5}
    image = paint(Picture(drawn, drawn, MPP, "north", **state, tissue=True, pen="", seed=1))
    times = -(-side // drawn)
    aperio.write(path, np.tile(image, (times, times, 1))[:side, :side], MPP)


def fabricate(path: Path, encoders: dict[str, int], max_tiles: int) -> Path:
    """A file with random encoders, name -> input in pixels, and a survival model of each fold."""
    tensors: dict[str, torch.Tensor] = {}
    cards = []
    for name, px in encoders.items():
        facts = {"source": "timm", "model": name, "weights": "random", "input_px": px}
        settings = TeacherConfig.model_validate(facts)
        network = build.make_network(name, settings)
        source = weights.find(network.module, name, settings, None, None)
        made = build.finish(network, name, settings, source, ["high"], "fp32", False, "cpu")
        cards.append(
            EncoderCard(
                name=name,
                settings=settings.model_dump(mode="json"),
                facts={},
                row={},
                tiles="tiles",
                tiling=TilingConfig().model_dump(mode="json"),
                dims={"high": made.dims["high"]},
                weights="embedded",
                sha256="",
                licence="",
                restricted=False,
                parameters=weights.count_parameters(network.module),
                gflop_per_tile=float(made.facts["gflop_per_tile"]),
            )
        )
        state = network.module.state_dict()
        tensors |= {f"{encoder_prefix(cards[-1])}.{key}": value for key, value in state.items()}
    model = TypeAdapter(ModelConfig).validate_python({"kind": "concat"})
    dims = [one.dims for one in cards]
    shape = Shape(tuple(encoders), tuple(dims), 1)
    members = [Member(fold, 0, {"kind": "cox"}, max_tiles, 0.0, 1.0) for fold in range(FOLDS)]
    for member in members:
        torch.manual_seed(member.fold)
        state = build_network(model, shape).state_dict()
        tensors |= {f"{member_prefix(member)}.{key}": value for key, value in state.items()}
    cutoffs = {str(fold): [0.0] for fold in range(FOLDS)}
    card = ModelCard(
        layout=LAYOUT,
        name=path.stem,
        package="",
        task_name="survival",
        task={"type": "survival", "time": "time", "event": "event", "unit": "months"},
        model_name=path.stem,
        model=model.model_dump(mode="json"),
        teachers=list(encoders),
        dims=dims,
        outputs=1,
        classes=[],
        encoders=cards,
        levels=["high"],
        precision="auto",
        head_precision="auto",
        on_bad_tile="fail",
        max_tiles=max_tiles,
        members=members,
        stacked=[],
        covariates=[],
        calibration=Calibration("none", "random", 0, {}, cutoffs, [], 0.25, None, None),
        familiar=Familiar((MPP, MPP), Range(None, 0), {}),
        cohort={
            "name": "none",
            "synthetic": True,
            "cases": 0,
            "slides": 0,
            "folds": FOLDS,
            "seeds": [0],
        },
        seen=[],
        primary_metric="c_index",
        labelled="test",
        metrics=[],
        restrictions=[],
    )
    write_model(path, card, tensors)
    return path


def measured(model: Path, slide: Path, options: argparse.Namespace) -> dict[str, object]:
    """One process of `predict`: its time, that of tiling and encoding, and its peak memory."""
    gigapixels = options.side**2 / 1e9
    with tempfile.TemporaryDirectory() as out:
        to = ["--model", str(model), "--out", out, "--workers", str(options.workers)]
        argv = [sys.executable, "-m", "pipeline", "predict", str(slide), *to]
        started = time.perf_counter()
        process = subprocess.Popen([*argv, "--device", options.device], stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        if status:
            raise SystemExit(f"predict with {model} ended with {os.waitstatus_to_exitcode(status)}")
        row = pd.read_parquet(Path(out) / "predictions.parquet").iloc[0]
    return {
        "model": model.stem,
        "tiles": int(row["tiles"]),
        "s/gigapixel": seconds / gigapixels,
        "tiling and encoding, s/gigapixel": row["seconds_of_case"] / gigapixels,
        "processor, s/gigapixel": _processor(used) / gigapixels,
        "peak MB": used.ru_maxrss / 1024,
    }


def _processor(used: resource.struct_rusage) -> float:
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
