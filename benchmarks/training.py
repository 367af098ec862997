"""How fast bags are trained on, against a loop over slides and against a process per training.

    python benchmarks/training.py [epoch] [nested] [--folder DIR] [--aggregators mean_pool abmil]
                                  [--epochs 50] [--bags 64] [--tiles 4000] [--plain-bags 4] …

`epoch`: one epoch of Shazam v2 over bags of several teachers at three levels (random float16, the
widths of five foundation models), as the loop does it, with all tiles and with some drawn again in
every epoch (512 by default), against what peers do: one slide at a time, all its tiles in float32,
its files read again in every epoch, gradients gathered over eight slides. The plain loop is
measured on `--plain-bags` slides and extrapolated. Our loop takes the precision that it takes by
default, which is float32 only on a processor without bfloat16; `float32` is the same loop kept from
it.

`nested`: one cell of a nested cross-validation, 5 × (4 × 5 + 1) = 105 trainings on 300 bags of
200 × 192: all in one process as the stage does it, the same loop run in turn, and one process per
training. The slow two are measured on a sample (`--folds` outer folds, `--processes` processes) and
extrapolated to 105.

On a CPU times are processor seconds of this process and its children, so that a busy machine
distorts them less; with `--device cuda` they are seconds by the clock. Prints tables; nothing is
asserted.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np
import torch
from pydantic import TypeAdapter

from pipeline.bags.batch import Batch
from pipeline.bags.store import open_store
from pipeline.config.models import ModelConfig, ShazamV2Model, SingleModel
from pipeline.config.reading import parse
from pipeline.config.training import TrainingConfig
from pipeline.contracts.case_map import CaseMap, TeacherLevels, write_case_map
from pipeline.contracts.labels import read_labels
from pipeline.files.parquet import read_columns, write_columns
from pipeline.plan import stage_params
from pipeline.training import nested, stage
from pipeline.training.job import TrainingJob, prepare
from pipeline.training.loop import Trial, train

TEACHERS = {  # the reference's five, and how wide each is at every level
    "virchow2": 1280,
    "uni2_h": 1536,
    "phikon_v2": 1024,
    "gigapath": 1536,
    "h_optimus_1": 1536,
}
LEVELS = ("low", "mid", "high")
TASK = {"type": "survival", "time": "time", "event": "event", "loss": "nll"}
KINDS = {"type": "classification", "label": "kind"}
ACCUMULATE = 8  # slides per step of the plain loop
OUTER, INNER = 5, 5
POOL = 20_000  # different tiles per width
GRID = {"learning_rate": [1e-3, 1e-4], "weight_decay": [0.0, 1e-4]}


def main() -> None:
    """Run what is asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", default=["epoch", "nested"])
    parser.add_argument("--folder", type=Path, help="for the drawn features; default: temporary")
    parser.add_argument("--bags", type=int, default=64, help="64 take 11 GB of memory and disk")
    parser.add_argument("--tiles", type=int, default=4000, help="tiles per bag")
    parser.add_argument("--batch", type=int, default=4, help="bags per step of our loop")
    parser.add_argument("--plain-bags", type=int, default=8, help="slides the plain loop reads")
    parser.add_argument("--draws", nargs="+", type=int, default=[1024, 512], help="tiles_per_step")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--aggregators", nargs="+", default=["mean_pool", "abmil"])
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--folds", type=int, default=1, help="outer folds of the loop in turn")
    parser.add_argument("--processes", type=int, default=3, help="processes that are started")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if "epoch" in options.parts:
            epoch(Path(folder) / "epoch", options)
        if "nested" in options.parts:
            cell(Path(folder) / "nested", options)


def epoch(root: Path, options: argparse.Namespace) -> None:
    """One epoch of v2: bags that stay in memory, against files read slide by slide."""
    cases = [f"case{i:03d}" for i in range(options.bags)]
    rng = np.random.default_rng(0)
    dims = {name: dict.fromkeys(LEVELS, width) for name, width in TEACHERS.items()}
    mapping = draw(root, cases, dims, options.tiles, rng)
    write_columns(
        root / "cases.parquet",
        {
            "case_id": cases,
            "time": rng.exponential(30, len(cases)) + 0.1,
            "event": np.arange(len(cases)) % 5 < 3,
        },
    )
    spec = parse({"tasks": {"os": TASK}}).tasks["os"]
    labels = read_labels(read_columns(root / "cases.parquet"), "os", spec)
    device = torch.device(options.device)
    model = ShazamV2Model(kind="shazam_v2")
    everyone = np.arange(len(cases))
    parts = {"train": everyone, "val": everyone[:0]}

    made: list[Any] = []
    seconds = spent(
        lambda: made.append(open_store(mapping, root, list(TEACHERS), LEVELS, cases, device)),
        device,
    )
    (store,) = made
    where = "resident" if store.resident is not None else "streamed"
    gigabytes = store.sizes.sum() // len(TEACHERS) * sum(TEACHERS.values()) * 3 * 2 / 1e9
    print(
        f"One epoch of v2: {options.bags} bags x {options.tiles} tiles x {len(TEACHERS)} teachers "
        f"x {len(LEVELS)} levels, {gigabytes:.1f} GB in half precision, {where}; {device}, "
        f"{torch.get_num_threads()} thread(s). Read once in {seconds:.1f} s."
    )
    job = TrainingJob(
        TrainingConfig(), "v2", model, spec, store, labels, "", {}, np.arange(len(labels.cases))
    )
    plain = plain_epoch(job, mapping, root, cases[: options.plain_bags], device)
    plain *= options.bags / options.plain_bags
    print(f"{'':40}{'seconds':>10}{'ratio':>8}")
    print(f"{'loop over slides, files read again':40}{plain:10.1f}{1.0:8.1f}")
    for name, drawn, precision in (
        ("all tiles, float32", None, "fp32"),
        ("all tiles", None, "auto"),
        *((f"{n} tiles a step", n, "auto") for n in options.draws),
    ):
        cfg = TrainingConfig(
            batch_size=options.batch,
            tiles_per_step=drawn,
            max_tiles_per_case=None,
            precision=precision,
        )
        ready = prepare(job, cfg, model, everyone, 0)
        ours = spent(
            lambda ready=ready, cfg=cfg: train(  # type: ignore[misc]
                Trial(ready.network, ready.head, ready.y, parts, cfg, 0), store, length=1
            ),
            device,
        )
        print(f"{f'this loop, {name}':40}{ours:10.1f}{plain / ours:8.1f}")
    print()


def plain_epoch(
    job: TrainingJob, mapping: CaseMap, root: Path, cases: list[str], device: torch.device
) -> float:
    """Seconds of the loop that peers run, for the given slides."""
    ready = prepare(job, job.cfg, job.model, np.arange(len(job.store.cases)), 0)
    network, head = ready.network.train(), ready.head
    optimiser = torch.optim.AdamW(network.parameters(), 1e-4)
    targets = torch.from_numpy(ready.y).to(device)
    optimiser.step()  # its first use imports the compiler

    def run() -> None:
        for i, case in enumerate(cases):
            output = network(batch := read_slide(mapping, root, case, i, device))
            loss = head.loss(output.out.float(), targets[i : i + 1])
            extra = network.extra_loss(output, batch, None)
            (loss if extra is None else loss + extra).div(ACCUMULATE).backward()
            if (i + 1) % ACCUMULATE == 0 or i + 1 == len(cases):
                optimiser.step()
                optimiser.zero_grad()

    if device.type == "cuda":
        run()  # kernels are chosen in the first pass
    return spent(run, device)


def read_slide(mapping: CaseMap, root: Path, case: str, number: int, device: torch.device) -> Batch:
    """A batch of one slide, from its files."""
    features = []
    for teacher in TEACHERS:
        with h5py.File(root / mapping.cases[case][teacher][0]) as file:
            names = {level: "features" if level == "high" else level for level in LEVELS}
            read = {k: torch.from_numpy(file[v][()]).float()[None] for k, v in names.items()}
        features.append({level: x.to(device) for level, x in read.items()})
    n = features[0]["high"].shape[1]
    return Batch(
        cases=torch.tensor([number], device=device),
        features=tuple(features),
        masks=tuple(torch.zeros(1, n, dtype=torch.bool, device=device) for _ in TEACHERS),
        rows=tuple(torch.arange(n)[None] for _ in TEACHERS),
        present=torch.ones(1, len(TEACHERS), dtype=torch.bool, device=device),
    )


def cell(root: Path, options: argparse.Namespace) -> None:
    """The trainings of one nested-CV cell, in three ways."""
    device = torch.device(options.device)
    cases = [f"case{i:03d}" for i in range(options.cases)]
    rng = np.random.default_rng(0)
    draw(root, cases, {"hipt": {"high": 192}}, 200, rng)
    write_columns(
        root / "cases.parquet",
        {"case_id": cases, "kind": ["ab"[int(v)] for v in rng.random(len(cases)) < 0.5]},
    )
    everything = {
        "k": OUTER,
        "labelled": "test",
        "tests": "partition",
        "group_by": "case",
        "inner": INNER,
    }
    folds(root, cases, OUTER, everything)
    first = {**everything, "k": options.folds, "tests": "incomplete"}
    alone = {"k": 1, "labelled": "test", "tests": "incomplete"}
    total = OUTER * (len(GRID["learning_rate"]) * len(GRID["weight_decay"]) * INNER + 1)
    print(
        f"One nested-CV cell: {total} trainings, {options.cases} bags x 200 x 192, "
        f"{options.epochs} epochs, {torch.get_num_threads()} thread(s)"
    )
    print(f"{'':14}{'one process':>14}{'in turn':>12}{'ratio':>8}{'processes':>12}{'ratio':>8}")
    for aggregator in options.aggregators:
        model = TypeAdapter(ModelConfig).validate_python(
            {"kind": "single", "teacher": "hipt", "aggregator": aggregator}
        )
        settings = {
            "epochs": options.epochs,
            "patience": options.epochs,
            "attention_cases_per_fold": 0,
        }
        cfg = TrainingConfig.model_validate({**settings, "nested": {"grid": GRID}})
        folds_file = root / "folds" / "kind" / "folds.json"
        folds_file.write_text(json.dumps(everything))
        together = spent(
            lambda model=model, cfg=cfg: stage_run(root, cfg, model, "one", device),  # type: ignore[misc]
            device,
        )
        folds_file.write_text(json.dumps(first))
        with mock.patch.object(nested, "pays", lambda *_: False):
            serial = spent(
                lambda model=model, cfg=cfg: stage_run(root, cfg, model, "turn", device),  # type: ignore[misc]
                device,
            )
        serial *= OUTER / options.folds
        folds_file.write_text(json.dumps(alone))
        job = stage_params.TrainingJob(
            training=TrainingConfig.model_validate(settings),
            model=model,
            task=kind_task(),
            others={},
        )
        processes = 0.0
        for n in range(options.processes):
            command = [sys.executable, "-m", "pipeline", "training", "--task", "kind"]
            command += ["--cfg", job.canonical(), "--root", str(root), "--model", f"p{n}"]
            command += ["--device", options.device]
            processes += spent(
                lambda command=command: subprocess.run(command, check=True),  # type: ignore[misc]
                device,
            )
        processes *= total / options.processes
        print(
            f"{aggregator:14}{together:14.1f}{serial:12.1f}{serial / together:8.1f}"
            f"{processes:12.1f}{processes / together:8.1f}"
        )


def stage_run(
    root: Path, cfg: TrainingConfig, model: SingleModel, name: str, device: torch.device
) -> None:
    stage.run(
        cfg=cfg,
        model_name=f"{model.aggregator}_{name}",
        model=model,
        task_name="kind",
        task=kind_task(),
        root=root,
        versions="",
        workers=1,
        device=str(device),
    )


def kind_task() -> Any:
    return parse({"tasks": {"kind": KINDS}}).tasks["kind"]


def folds(root: Path, cases: list[str], k: int, summary: dict[str, Any]) -> None:
    """Fold files: case i is tested by fold i mod k; the rest in inner parts, one validates."""
    folder = root / "folds" / "kind"
    folder.mkdir(parents=True)
    for fold in range(k):
        rest = [case for i, case in enumerate(cases) if i % k != fold]
        part = {case: "val" if i % INNER == 0 else "train" for i, case in enumerate(rest)}
        rows = [f"{case},{part.get(case, 'test')}" for case in cases]
        (folder / f"fold_{fold}.csv").write_text("\n".join(["case_id,split", *rows]) + "\n")
        inner = [f"{case},{i % INNER}" for i, case in enumerate(rest)]
        (folder / f"inner_{fold}.csv").write_text("\n".join(["case_id,part", *inner]) + "\n")
    (folder / "folds.json").write_text(json.dumps(summary))


def draw(
    root: Path,
    cases: list[str],
    dims: dict[str, dict[str, int]],
    tiles: int,
    rng: np.random.Generator,
) -> CaseMap:
    """Random feature files for every case and teacher, and case_to_features.json.

    Rows are drawn from a pool per width: eleven gigabytes of fresh normals would take minutes.
    """
    pools = {
        width: rng.standard_normal((POOL, width), dtype=np.float32).astype(np.float16)
        for width in {width for widths in dims.values() for width in widths.values()}
    }
    found: dict[str, dict[str, list[str]]] = {}
    for case in cases:
        for teacher, widths in dims.items():
            name = f"features/{teacher}/{case}.h5"
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(root / name, "w") as file:
                for level, width in widths.items():
                    rows = rng.integers(0, len(pools[width]), tiles)
                    file["features" if level == "high" else level] = pools[width][rows]
                file.attrs["fingerprint"] = "drawn"
            found.setdefault(case, {})[teacher] = [name]
    mapping = CaseMap({t: TeacherLevels(d) for t, d in dims.items()}, found)
    write_case_map(root, mapping)
    return mapping


def spent(work: Callable[[], Any], device: torch.device) -> float:
    """Processor seconds of this process and its finished children; on a GPU by the clock."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            return time.perf_counter()
        uses = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(use.ru_utime + use.ru_stime for use in uses)

    start = now()
    work()
    return now() - start


if __name__ == "__main__":
    main()
