"""The stages that go case by case, from the features to the report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.accounting.job_records import recorded
from pipeline.commands.options import Base, Cfg, Device, Gpus, Root, Workers, manifests
from pipeline.plan import stage_params, stage_versions
from pipeline.runtime import gpu_locks
from pipeline.runtime.progress import reported

if TYPE_CHECKING:
    from pipeline.mapping import stage


def mapping(cfg: Cfg, root: Root) -> None:
    """Join the manifests, and write what became of every slide: coverage, ledger, flow."""
    from pipeline.mapping import stage

    job = stage_params.read(stage_params.MappingJob, cfg)
    with recorded(root, "mapping"):
        stage.run(cfg=job.mapping, joined=_joined(job, root), root=root)


def mapping_check(cfg: Cfg, root: Root) -> None:
    """Refuse a cohort that lost too many slides; write case -> teacher -> feature files."""
    from pipeline.mapping import stage

    job = stage_params.read(stage_params.MappingJob, cfg)
    with recorded(root, "mapping_check"):
        stage.check(cfg=job.mapping, joined=_joined(job, root), root=root)


def _joined(job: stage_params.MappingJob, root: Path) -> stage.Joined:
    from pipeline.mapping import stage

    return stage.join(
        teachers=job.teachers,
        root=root,
        tiling=manifests(root, "tiles") if job.tiled else [],
        features=[m for f in job.manifests for m in manifests(root, f"features/{f}")],
    )


def probing(
    cfg: Cfg,
    root: Root,
    teacher: Annotated[str, typer.Option(help="The teacher's name.")],
    base: Base = Path(),
) -> None:
    """Measure how well a teacher's tiles tell tissue classes apart: linear, k-NN, few-shot."""
    from pipeline.probing import stage

    job = stage_params.read(stage_params.ProbingJob, cfg)
    with recorded(root, "probing", teacher=teacher):
        stage.run(
            cfg=job.probing,
            teacher=teacher,
            manifests=manifests(root, f"features/{job.manifests}"),
            tiles=root / job.tiles,
            root=root,
            base=base,
        )


def tile_students(cfg: Cfg, root: Root, base: Base = Path()) -> None:
    """Train students on the labelled tiles of all teachers, to compare with linear probes."""
    from pipeline.probing import together

    job = stage_params.read(stage_params.TileStudentsJob, cfg)
    with recorded(root, "tile_students"):
        together.run(
            cfg=job.probing,
            manifests={t: manifests(root, f"features/{m}") for t, m in job.manifests.items()},
            tiles={teacher: root / tiles for teacher, tiles in job.tiles.items()},
            root=root,
            base=base,
        )


def folds(
    cfg: Cfg, root: Root, task: Annotated[str, typer.Option(help="The task's name.")]
) -> None:
    """Split a task's cases into train, validation and test, k times."""
    from pipeline.folds import stage

    job = stage_params.read(stage_params.FoldsJob, cfg)
    with recorded(root, "folds", task=task):
        stage.run(cfg=job.folds, cases=job.cases, name=task, task=job.task, root=root)


def training(
    cfg: Cfg,
    root: Root,
    task: Annotated[str, typer.Option(help="The task's name.")],
    model: Annotated[str, typer.Option(help="The model's name.")],
    workers: Workers = 1,
    gpus: Gpus = 0,
    device: Device = "auto",
) -> None:
    """Train one model of one task on every fold and seed, and predict all cases."""
    job = stage_params.read(stage_params.TrainingJob, cfg)
    gpu_locks.claim(gpus)
    versions = stage_versions.training(job.training, job.model, job.task, job.auxiliary.values())
    with recorded(root, "training", task=task, model=model):
        from pipeline.training import stage

        stage.run(
            cfg=job.training,
            model_name=model,
            model=job.model,
            task_name=task,
            task=job.task,
            root=root,
            versions=stage_versions.text(versions),
            workers=workers,
            device=device,
            auxiliary=job.auxiliary,
        )


def evaluation(
    cfg: Cfg, root: Root, task: Annotated[str, typer.Option(help="The task's name.")]
) -> None:
    """Measure every model of a task on its test folds and compare the student with each."""
    from pipeline.evaluation import stage

    job = stage_params.read(stage_params.EvaluationJob, cfg)
    with recorded(root, "evaluation", task=task):
        stage.run(
            cfg=job.evaluation,
            task_name=task,
            task=job.task,
            models=job.models,
            root=root,
            auxiliary=job.auxiliary,
            controls=job.controls,
        )


def report(cfg: Cfg, root: Root) -> None:
    """Write report.html."""
    from pipeline.accounting.costs import Concurrency, Estimate, Pace
    from pipeline.plan import cohort_plan, estimate
    from pipeline.report import stage

    config = stage_params.read(stage_params.ReportJob, cfg).config

    def planner(at_once: Concurrency, pace: Pace) -> Estimate:
        plan = cohort_plan.cohort_plan(config, Path.cwd(), check=False)
        return estimate.estimate(config, plan, pace=pace, concurrency=at_once, root=root)

    with reported("report"):
        stage.run(config=config, root=root, planner=planner)
