"""`python -m pipeline <stage> …`: one thin subcommand per stage.

The workflow's rules call these; so can a person. Heavy imports happen inside the commands.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline import faults, jobs, slots
from pipeline.errors import SlideError, UserError
from pipeline.jobrecords import recorded

app = typer.Typer(
    help="From whole-slide images to a compared, cross-validated student of several teachers. "
    "`snakemake` runs the stages in order; each command here is one stage, as the rules call it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
cohort_app = typer.Typer(help="Check the slide sheet, or draw the embedded cohort.")
teachers_app = typer.Typer(help="List the known teachers and check one before a run.")
app.add_typer(cohort_app, name="cohort")
app.add_typer(teachers_app, name="teachers", invoke_without_command=True)

Cfg = Annotated[str, typer.Option(help="The stage's job as JSON, made by pipeline.jobs.")]
Code = Annotated[
    str, typer.Option(help="The stage's code fingerprint; part of what is recognised.")
]
Root = Annotated[Path, typer.Option(help="The cohort's results folder, results/<cohort>.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes or threads that may work at once.")]
Gpus = Annotated[
    int, typer.Option(min=0, help="GPUs of this machine to claim; 0: whatever is visible.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<n>.")]
ChunkNumber = Annotated[int, typer.Option(min=0, help="The hash bucket of slides to work on.")]
Out = Annotated[Path, typer.Option(help="The manifest or table to write.")]
Base = Annotated[Path, typer.Option(help="Folder that the config's relative paths start from.")]
ConfigFile = Annotated[Path, typer.Option(help="The config file.")]


@cohort_app.command("chunk")
def cohort_chunk(
    cfg: Cfg, chunk: ChunkNumber, out: Out, workers: Workers = 1, base: Base = Path()
) -> None:
    """Write one chunk's slide table; slides of the embedded cohort are drawn first."""
    from pipeline.cohort import stage

    job = jobs.read(jobs.ChunkJob, cfg)
    with recorded(out.parent.parent, "cohort_chunk", chunk=chunk):
        stage.run_chunk(cfg=job.cohort, chunk=chunk, base=base, out=out, workers=workers)


@cohort_app.command("check")
def cohort_check(cfg: Cfg, root: Root, base: Base = Path()) -> None:
    """Check the sheet and its labels, and write slides.parquet and cohort.json."""
    from pipeline.cohort import stage

    job = jobs.read(jobs.CohortJob, cfg)
    with recorded(root, "cohort"):
        stage.run(cfg=job.cohort, tasks=job.tasks, root=root, base=base)


@app.command()
def tiling(
    slide: Annotated[
        Path | None, typer.Option(help="Tile this one slide, without a workflow.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Manifest to write; with --slide, the folder.")] = Path(
        "tiles"
    ),
    config: Annotated[Path | None, typer.Option(help="With --slide: a config file.")] = None,
    mpp: Annotated[float | None, typer.Option(help="With --slide: µm per pixel.")] = None,
    mask: Annotated[Path | None, typer.Option(help="With --slide: GeoJSON of the tissue.")] = None,
    coordinates: Annotated[
        Path | None,
        typer.Option(help="With --slide: tiles of TRIDENT or CLAM, instead of the grid."),
    ] = None,
    cfg: Annotated[str | None, typer.Option(help="The stage's job as JSON.")] = None,
    code: Code = "",
    root: Root = Path("results"),
    chunk: ChunkNumber = 0,
    workers: Workers = 1,
    tiles: Annotated[str, typer.Option(help="The folder below --root to write to.")] = "tiles",
) -> None:
    """Find the tissue of a chunk of slides and lay the tile grid over it."""
    from pipeline.tiling import stage

    if slide is not None:
        from pipeline.config.reading import load
        from pipeline.config.tiling import TilingConfig

        section = load(config).tiling if config else TilingConfig()
        record = stage.run_slide(
            cfg=section,
            code=code,
            slide=slide,
            out_dir=out,
            mpp=mpp,
            mask=mask,
            coordinates=coordinates,
        )
        typer.echo(f"{record.slide_id}: {record.status} {record.reason}".rstrip())
        for key, value in record.facts.items():
            typer.echo(f"  {key}: {value}")
        raise typer.Exit(0 if record.status in ("ok", "empty") else 1)
    if cfg is None:
        raise UserError("tiling: give --slide FILE, or --cfg with --root, --chunk and --out")
    job = jobs.read(jobs.TilingJob, cfg)
    with recorded(root, "tiling", chunk=chunk, tiles=tiles.removeprefix("tiles")):
        stage.run(
            cfg=job.tiling,
            code=code,
            root=root,
            chunk=chunk,
            out=out,
            workers=workers,
            tiles=tiles,
        )


@app.command("tiling-overview")
def tiling_overview(root: Root) -> None:
    """Write a table and a contact sheet of all tiled slides, the failed ones included."""
    from pipeline.tiling import overview

    overview.run(root=root, manifests=_manifests(root, "tiles"))


@app.command()
def extraction(
    cfg: Cfg,
    root: Root,
    out: Out,
    chunk: ChunkNumber = 0,
    code: Code = "",
    workers: Workers = 1,
    gpus: Gpus = 0,
    device: Device = "auto",
) -> None:
    """Run teachers over a chunk's tiles, or take in features that another tool made."""
    job = jobs.read(jobs.ExtractionJob, cfg)
    teachers = list(job.extraction.teachers)
    if job.extraction.teachers[teachers[0]].source == "import":
        from pipeline.extraction import imports

        with recorded(root, "extraction_import", chunk=chunk, teacher=teachers[0]):
            imports.run(
                cfg=job.extraction,
                teacher=teachers[0],
                root=root,
                chunk=chunk,
                out=out,
                expected=job.slides,
            )
        return
    slots.claim(gpus)
    with recorded(root, "extraction", chunk=chunk, teacher="+".join(teachers)):
        from pipeline.extraction import stage

        stage.run(
            cfg=job.extraction,
            teachers=teachers,
            code=code,
            root=root,
            chunk=chunk,
            out=out,
            workers=workers,
            device=device,
            tiles=job.tiles,
        )


@app.command("extraction-check")
def extraction_check(cfg: Cfg, out: Out) -> None:
    """Check a teacher before the first job that needs a GPU, and write down what was verified."""
    from pipeline.extraction import check

    job = jobs.read(jobs.CheckJob, cfg)
    with recorded(out.parent.parent.parent, "extraction_check", teacher=job.teacher):
        check.run(teacher=job.teacher, settings=job.settings, weights_dir=job.weights_dir, out=out)


@app.command()
def export(
    root: Root,
    tool: Annotated[str, typer.Option(help="clam, trident or stamp.")],
    out: Annotated[Path, typer.Option(help="The folder to write to.")],
    teacher: Annotated[
        str | None, typer.Option(help="Whose features to write; without it, the tiles alone.")
    ] = None,
    level: Annotated[str, typer.Option(help="low, mid or high.")] = "high",
) -> None:
    """Write features, or the coordinates of the tiles, as CLAM, TRIDENT or STAMP read them."""
    known = ("clam", "trident", "stamp") if teacher else ("clam", "trident")
    if tool not in known:
        what = "features" if teacher else "coordinates (without --teacher)"
        raise UserError(f"--tool {tool}: {what} can be written for {', '.join(known)}")
    if teacher:
        from pipeline.extraction import exports

        made = exports.run(root=root, teacher=teacher, tool=tool, out=out, level=level)  # type: ignore[arg-type]
    else:
        from pipeline.tiling import exchange

        made = exchange.export(root / "tiles", out, tool)  # type: ignore[arg-type]
    typer.echo(f"{len(made)} files in {out}")


@app.command()
def mapping(cfg: Cfg, root: Root) -> None:
    """Join the manifests: case -> teacher -> feature files, coverage, ledger, flow."""
    from pipeline.mapping import stage

    job = jobs.read(jobs.MappingJob, cfg)
    with recorded(root, "mapping"):
        stage.run(
            cfg=job.mapping,
            teachers=job.teachers,
            tiling=_manifests(root, "tiles") if job.tiled else [],
            features=[m for f in job.manifests for m in _manifests(root, f"features/{f}")],
            root=root,
        )


@app.command()
def probing(
    cfg: Cfg,
    root: Root,
    teacher: Annotated[str, typer.Option(help="The teacher's name.")],
    base: Base = Path(),
) -> None:
    """Measure how well a teacher's tiles tell tissue classes apart: linear, k-NN, few-shot."""
    from pipeline.probing import stage

    job = jobs.read(jobs.ProbingJob, cfg)
    with recorded(root, "probing", teacher=teacher):
        stage.run(
            cfg=job.probing,
            teacher=teacher,
            manifests=_manifests(root, f"features/{job.manifests}"),
            tiles=root / job.tiles,
            root=root,
            base=base,
        )


@app.command()
def folds(
    cfg: Cfg, root: Root, task: Annotated[str, typer.Option(help="The task's name.")]
) -> None:
    """Split a task's cases into train, validation and test, k times."""
    from pipeline.folds import stage

    job = jobs.read(jobs.FoldsJob, cfg)
    with recorded(root, "folds", task=task):
        stage.run(cfg=job.folds, cases=job.cases, name=task, task=job.task, root=root)


@app.command()
def training(
    cfg: Cfg,
    root: Root,
    task: Annotated[str, typer.Option(help="The task's name.")],
    model: Annotated[str, typer.Option(help="The model's name.")],
    code: Code = "",
    workers: Workers = 1,
    gpus: Gpus = 0,
    device: Device = "auto",
) -> None:
    """Train one model of one task on every fold and seed, and predict all cases."""
    job = jobs.read(jobs.TrainingJob, cfg)
    slots.claim(gpus)
    with recorded(root, "training", task=task, model=model):
        from pipeline.training import stage

        stage.run(
            cfg=job.training,
            model_name=model,
            model=job.model,
            task_name=task,
            task=job.task,
            root=root,
            code=code,
            workers=workers,
            device=device,
        )


@app.command()
def evaluation(
    cfg: Cfg, root: Root, task: Annotated[str, typer.Option(help="The task's name.")]
) -> None:
    """Measure every model of a task on its test folds and compare the student with each."""
    from pipeline.evaluation import stage

    job = jobs.read(jobs.EvaluationJob, cfg)
    with recorded(root, "evaluation", task=task):
        stage.run(cfg=job.evaluation, task_name=task, task=job.task, models=job.models, root=root)


@app.command()
def report(cfg: Cfg, root: Root) -> None:
    """Write report.html."""
    from pipeline import estimate, planning
    from pipeline.costs import Concurrency, Estimate
    from pipeline.report import stage

    config = jobs.read(jobs.ReportJob, cfg).config

    def planner(at_once: Concurrency) -> Estimate:
        plan = planning.cohort_plan(config, Path.cwd(), check=False)
        return estimate.estimate(config, plan, concurrency=at_once)

    stage.run(config=config, root=root, planner=planner)


@teachers_app.callback()
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


@teachers_app.command("check")
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

    settings = TeacherConfig(acknowledge_licence=acknowledge_licence)
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


@app.command()
def plan(
    config: ConfigFile = Path("config/config.yaml"),
    device_tflops: Annotated[
        float | None,
        typer.Option(
            help="What the GPU sustains, in TFLOP/s; by default as earlier jobs of this cohort "
            "measured it, else 100."
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
    from pipeline import estimate, planning, rates
    from pipeline.config.reading import load
    from pipeline.costs import Concurrency

    settings = load(config)
    rate = None
    if device_tflops is None:
        rate = rates.measured(settings, Path("results") / settings.cohort.name)
        device_tflops = rate.tflops if rate else estimate.DEVICE_TFLOPS
    found = estimate.estimate(
        settings,
        planning.cohort_plan(settings, Path.cwd()),
        device_tflops=device_tflops,
        concurrency=Concurrency(gpus, at_once, queue_minutes / 60),
    )
    typer.echo(estimate.text(found))
    if said := estimate.room(found, Path("results")):
        typer.echo(said)
    if rate is not None:
        typer.echo(f"  rate measured on {rate.device} in {rate.jobs} earlier jobs of this cohort")


@app.command()
def clean(
    root: Root,
    what: Annotated[
        list[str] | None,
        typer.Argument(help="Parts to remove, as listed: features/<teacher>, tiles, models, …"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Really remove them.")] = False,
) -> None:
    """Say what of a results folder can be made again, and its size; remove it on request."""
    from pipeline import storage

    found = storage.parts(root)
    if what and yes:
        typer.echo(f"freed {storage.size(storage.remove(root, what))}")
        return
    typer.echo(storage.table(root, found))
    typer.echo("Nothing was removed. Name parts and add --yes to remove them.")


@app.command()
def schema() -> None:
    """Print the config's JSON schema (kept in workflow/schemas for editors)."""
    import json

    from pipeline.config.whole import Config

    typer.echo(json.dumps(Config.model_json_schema(), indent=2))


def _manifests(root: Path, folder: str) -> list[Path]:
    """The manifests of the chunks that the cohort has now; older ones may lie beside them."""
    from pipeline.artifacts import read_table

    chunks = sorted(read_table(root / "slides.parquet")["chunk"].unique())
    return [root / folder / "manifest" / f"{chunk}.json" for chunk in chunks]


def main() -> None:
    """Run the command line.

    A user's mistake is a message and exit code 2, a failure of the machine a message and exit
    code 1; only what nobody expects is a traceback.
    """
    try:
        app()
    except (UserError, SlideError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        said = faults.remedy(error)
        if said is None:
            raise
        print(f"error: {said}", file=sys.stderr)
        sys.exit(1)
