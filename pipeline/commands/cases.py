"""The stages that go case by case, from the features to the report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.accounting.job_records import recorded
from pipeline.commands.options import Cfg, Device, Gpus, Model, Root, Task, Workers
from pipeline.contracts.chunks import manifests_of
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
        tiling=manifests_of(root, "tiles") if job.tiled else [],
        features=[m for f in job.manifests for m in manifests_of(root, f"features/{f}")],
    )


def training(
    cfg: Cfg,
    root: Root,
    task: Task,
    model: Model,
    workers: Workers = 1,
    gpus: Gpus = 0,
    device: Device = "auto",
) -> None:
    """Train one model of one task on every fold and seed, and predict all cases."""
    job = stage_params.read(stage_params.ModelJob, cfg)
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
            made=job.made,
        )


def training_linear(cfg: Cfg, root: Root, task: Task) -> None:
    """Train the linear models of one task, as `training` does."""
    job = stage_params.read(stage_params.LinearModelsJob, cfg)
    with recorded(root, "training_linear", task=task):
        from pipeline.training import stage

        for name, model in job.models.items():
            versions = stage_versions.training(
                job.training, model, job.task, job.auxiliary.values()
            )
            stage.run(
                cfg=job.training,
                model_name=name,
                model=model,
                task_name=task,
                task=job.task,
                root=root,
                versions=stage_versions.text(versions),
                workers=1,
                device="cpu",
                auxiliary=job.auxiliary,
                made=job.made.get(name),
            )


def out_of_fold(
    cfg: Cfg,
    root: Root,
    task: Task,
    model: Model,
    workers: Workers = 1,
    gpus: Gpus = 0,
    device: Device = "auto",
) -> None:
    """Train one model again without parts of each fold's training cases, and predict these."""
    job = stage_params.read(stage_params.ModelJob, cfg)
    gpu_locks.claim(gpus)
    versions = stage_versions.out_of_fold(job.training, job.model, job.task, job.auxiliary.values())
    with recorded(root, "out_of_fold", task=task, model=model):
        from pipeline.training import out_of_fold as stage

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
            made=job.made,
        )


def stacking(
    cfg: Cfg,
    root: Root,
    task: Task,
    model: Model,
) -> None:
    """Fit a regression on other models' predictions, or on covariates, on every fold and seed."""
    job = stage_params.read(stage_params.StackingJob, cfg)
    with recorded(root, "stacking", task=task, model=model):
        from pipeline.training import stacking as stage

        stage.run(
            model_name=model,
            model=job.model,
            task_name=task,
            task=job.task,
            seeds=job.seeds,
            nested=job.nested,
            covariates=job.covariates,
            root=root,
        )


def evaluation(cfg: Cfg, root: Root, task: Task) -> None:
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
            zero_shot=job.zero_shot,
            made=job.made,
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
