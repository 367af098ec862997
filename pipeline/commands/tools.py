"""What a person calls, and no rule: teachers, export, attention, plan, clean, schema."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.options import ConfigFile, Device, Root
from pipeline.errors import UserError, nearest
from pipeline.runtime.progress import reported


def teachers_list(
    context: typer.Context,
    weights_dir: Annotated[
        str | None, typer.Option(help="Folder of local weights, one subfolder per teacher.")
    ] = None,
) -> None:
    """List the known teachers: dimension, parameters, input, licence, gate, ready here or not."""
    if context.invoked_subcommand is not None:
        return
    from pipeline.encoders import teachers

    typer.echo(teachers.table(teachers.list_teachers(weights_dir)))


def teachers_check(
    name: Annotated[str, typer.Argument(help="A teacher of the config, or of the registry.")],
    config: Annotated[Path | None, typer.Option(help="Take its settings from this config.")] = None,
    acknowledge_licence: Annotated[
        bool, typer.Option(help="The licence's restriction on derived models is known.")
    ] = False,
) -> None:
    """Do everything short of reading slides: licence, token, weights, hash, keys, shapes."""
    from pipeline.config.extraction import TeacherConfig
    from pipeline.config.reading import load
    from pipeline.encoders import teachers
    from pipeline.encoders.slide_level.registry import slide_models

    source = "slide" if name in slide_models() else "registry"
    settings = TeacherConfig(source=source, acknowledge_licence=acknowledge_licence)
    weights_dir = None
    if config is not None:
        extraction = load(config).extraction
        weights_dir = extraction.weights_dir
        settings = extraction.teachers.get(name, settings)
    passed = True
    for step in teachers.check_teacher(name, settings, weights_dir):
        mark = {True: "ok", False: "FAILED", None: "-"}[step.ok]
        typer.echo(f"{mark:>6}  {step.name}: {step.detail}")
        passed = passed and step.ok is not False
    raise typer.Exit(0 if passed else 1)


def export(
    root: Root,
    tool: Annotated[str, typer.Option(help="clam, trident, stamp or hipt.")],
    out: Annotated[Path, typer.Option(help="The folder to write to.")],
    teacher: Annotated[
        str | None, typer.Option(help="Whose features to write; without it, the tiles alone.")
    ] = None,
    level: Annotated[str, typer.Option(help="low, mid or high.")] = "high",
) -> None:
    """Write features, or coordinates of tiles, as CLAM, TRIDENT, STAMP or HIPT read them."""
    known = ("clam", "trident", "stamp", "hipt") if teacher else ("clam", "trident")
    if tool not in known:
        what = "features" if teacher else "coordinates (without --teacher)"
        raise UserError(f"--tool {tool}: {what} can be written for {', '.join(known)}")
    if teacher:
        from pipeline.extraction import exports

        with reported("export"):
            made = exports.run(root=root, teacher=teacher, tool=tool, out=out, level=level)  # type: ignore[arg-type]
    else:
        from pipeline.tiling import exchange

        made = exchange.export(root / "tiles", out, tool)  # type: ignore[arg-type]
    typer.echo(f"{len(made)} files in {out}")


def slide_student(
    root: Root,
    teacher: Annotated[str, typer.Option(help="A slide encoder of the run.")],
    out: Annotated[Path, typer.Option(help="The folder to write; its name is the student's.")],
    reads: Annotated[
        str, typer.Option("--input", help="The tile teacher that both read, if not its own.")
    ] = "",
    depth: Annotated[int, typer.Option(min=1, help="Blocks.")] = 4,
    width: Annotated[int, typer.Option(min=8, help="Of its vector.")] = 192,
    heads: Annotated[int, typer.Option(min=1, help="Attention heads.")] = 8,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the slides.")] = 30,
    learning_rate: Annotated[float, typer.Option(min=0, help="Of AdamW.")] = 5e-4,
    task: Annotated[
        str, typer.Option(help="Learn from the training cases of a fold of this task alone.")
    ] = "",
    fold: Annotated[int, typer.Option(min=0, help="Which fold.")] = 0,
    seed: Annotated[int, typer.Option(help="Of weights, order and held-out cases.")] = 0,
    device: Device = "auto",
) -> None:
    """Distil a smaller slide encoder from one whose vectors a run has: less depth and width, the
    same input. In a config it is `{source: slide, path: OUT}`.

    Without --task it learns from all cases, and what is measured on them with it is transductive.
    """
    from pipeline.slide_encoders import student

    if width % heads or width % 4:
        raise UserError(f"--width {width}: not a multiple of 4 and of --heads {heads}")
    plan = student.Plan(depth, width, heads, epochs, learning_rate, task=task, fold=fold, seed=seed)
    with reported("slide-student"):
        student.run(root=root, teacher=teacher, reads=reads, out=out, plan=plan, device=device)


def slide_retrieval(
    task: Annotated[str, typer.Option(help="A task of the config, a classification.")],
    config: ConfigFile = Path("config/config.yaml"),
    teacher: Annotated[
        list[str] | None, typer.Option(help="May be repeated; by default all of the config.")
    ] = None,
    k: Annotated[
        list[int] | None, typer.Option(min=1, help="Neighbours; by default 1, 3, 5.")
    ] = None,
) -> None:
    """Measure how well slides find slides of other patients with the same class by their vectors:
    retrieval and nearest neighbours, without any training, into evaluation/<task>/retrieval.csv."""
    import pandas as pd

    from pipeline.config.reading import load
    from pipeline.contracts.columns import spelled_out
    from pipeline.contracts.labels import read_labels
    from pipeline.files.artifacts import write_text
    from pipeline.files.parquet import read_columns, read_table
    from pipeline.slide_encoders import retrieval

    settings = load(config)
    root = Path("results") / settings.cohort.name
    if task not in settings.tasks or settings.tasks[task].type != "classification":
        raise UserError(f"--task {task}: the config has no such classification")
    cases = read_columns(root / "cases.parquet")
    labels = read_labels(cases, task, spelled_out(settings.tasks[task], cases))
    assert labels.label is not None  # of a classification
    label_of = dict(zip(labels.cases, labels.label.tolist(), strict=True))
    slides = read_table(root / "slides.parquet")
    case_of = dict(zip(slides["slide_id"].astype(str), slides["case_id"].astype(str), strict=True))
    found = []
    for name in teacher or list(settings.extraction.teachers):
        vectors = retrieval.slide_vectors(root, name)
        table = retrieval.measure(vectors, label_of, case_of, tuple(k or (1, 3, 5)))
        table.insert(0, "teacher", name)
        found.append(table)
    whole = pd.concat(found)
    out = root / "evaluation" / task / "retrieval.csv"
    write_text(out, whole.to_csv(index=False, float_format="%.4f"))
    typer.echo(whole.to_string(index=False, float_format="{:.3f}".format))
    typer.echo(f"written to {out}")


def attention(
    task: Annotated[str, typer.Option(help="The task's name.")],
    config: ConfigFile = Path("config/config.yaml"),
    model: Annotated[str | None, typer.Option(help="The model; by default the student.")] = None,
    case: Annotated[list[str] | None, typer.Option(help="Draw this case; may be repeated.")] = None,
    slide: Annotated[
        list[str] | None, typer.Option(help="Draw this slide; may be repeated.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The training's seed; by default the first.")
    ] = None,
    max_tiles: Annotated[
        int | None, typer.Option(min=1, help="Most tiles per case, spread evenly; by default all.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="By default results/<name>/attention/<task>/<model>.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Write what a trained model weighed in each tile, and what a student's tiles do to its
    prediction: a Parquet table a slide, and for named cases or slides maps and a GeoJSON that
    QuPath opens.

    Each case is looked at by the network that was not trained on it. Without --case and --slide the
    tables of all cases are written, without pictures.
    """
    import pandas as pd

    from pipeline.config.reading import load
    from pipeline.files.parquet import read_table, write_table
    from pipeline.report.figures import atlas
    from pipeline.training import attention_lookup

    settings = load(config)
    root = Path("results") / settings.cohort.name
    model = model or settings.evaluation.student
    for given, known, option in (
        (task, settings.tasks, "--task"), (model, settings.model_specs(), "--model")
    ):  # fmt: skip
        if given not in known:
            raise UserError(f"{option} {given}: the config has no such{nearest(given, known)}")
    slides = read_table(root / "slides.parquet")
    case_of = dict(zip(slides["slide_id"].astype(str), slides["case_id"].astype(str), strict=True))
    for name in slide or ():
        if name not in case_of:
            raise UserError(f"--slide {name}: not in the sheet{nearest(name, list(case_of))}")
    named = list(dict.fromkeys([*(case or ()), *(case_of[name] for name in slide or ())]))
    folder = out or root / "attention" / task / model
    written = 0
    with reported("attention"):
        for found in attention_lookup.look(
            root, task, model, named or None, seed, max_tiles, device
        ):
            table = pd.DataFrame(found.table).assign(fold=found.fold, part=found.part)
            wanted = [] if found.case in (case or ()) else list(slide or ())
            for name, rows in atlas.slides_of(table, wanted).items():
                write_table(folder / f"{name}.parquet", rows)
                written += 1
                if named:
                    left = atlas.write(settings, root, name, rows, folder)
                    said = f"  {name} ({found.case}, {found.part} of fold {found.fold})"
                    typer.echo(said + (f"; of another scale: {', '.join(left)}" if left else ""))
    typer.echo(f"{written} slides in {folder}")


def plan(
    config: ConfigFile = Path("config/config.yaml"),
    device_tflops: Annotated[
        float | None,
        typer.Option(
            help="What the GPU sustains, in TFLOP/s; by default as earlier jobs measured it, else "
            "100, or what this machine's cores may do where there is no GPU."
        ),
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="GPU jobs at once.")] = 1,
    at_once: Annotated[int, typer.Option("--jobs", min=1, help="Other jobs at once.")] = 8,
    queue_minutes: Annotated[
        float, typer.Option(min=0, help="How long a job waits in the queue before it starts.")
    ] = 0.0,
) -> None:
    """Say what a run would cost: slides, tiles, gigabytes, GPU-hours, wall time.

    Reads the headers of a few slides only.
    """
    from pipeline.accounting import rates
    from pipeline.accounting.costs import Concurrency
    from pipeline.config.reading import load
    from pipeline.plan import cohort_plan, estimate
    from pipeline.runtime import gpu_locks
    from pipeline.runtime.cpu_budget import cpu_budget

    settings = load(config)
    root = Path("results") / settings.cohort.name
    gpu = bool(gpu_locks.visible_devices(os.environ)) or device_tflops is not None
    pace = rates.pace(
        settings, rates.earlier(root), rates.assumed(gpu, queue_minutes > 0, cpu_budget())
    )
    if device_tflops is not None:
        pace = dataclasses.replace(pace, tflops=device_tflops)
    found = estimate.estimate(
        settings,
        cohort_plan.cohort_plan(settings, Path.cwd()),
        pace=pace,
        concurrency=Concurrency(gpus, at_once, queue_minutes / 60),
        root=root,
    )
    typer.echo(estimate.text(found))
    if said := estimate.room(found, Path("results")):
        typer.echo(said)


def clean(
    root: Root,
    what: Annotated[
        list[str] | None,
        typer.Argument(help="Parts to remove, as listed: features/<teacher>, tiles, models, …"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Really remove them.")] = False,
) -> None:
    """Say what of a results folder can be made again, and its size; remove it on request."""
    from pipeline.files import clean_up

    found = clean_up.parts(root)
    if what and yes:
        typer.echo(f"freed {clean_up.size(clean_up.remove(root, what))}")
        return
    typer.echo(clean_up.table(root, found))
    typer.echo("Nothing was removed. Name parts and add --yes to remove them.")


def models(
    teachers: Annotated[int, typer.Option(min=1, help="How many teachers there are.")] = 3,
    width: Annotated[int, typer.Option(min=8, help="Of each teacher's features.")] = 1024,
    tiles: Annotated[int, typer.Option(min=1, help="Of the case that is predicted.")] = 1000,
) -> None:
    """List the kinds of models: what each is, its source, its size, the cost of a prediction."""
    from pipeline.training import kinds

    typer.echo(kinds.table(kinds.kinds(teachers, width, tiles)))


def schema() -> None:
    """Print the config's JSON schema (kept in workflow/schemas for editors)."""
    import json

    from pipeline.config.whole import Config

    typer.echo(json.dumps(Config.model_json_schema(), indent=2))
