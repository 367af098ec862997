"""The encoders that the workflow makes: what their jobs are told, and who reads what they see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.config.encoder_distillation import (
    EncoderDistillationConfig,
    EncoderDistillationJob,
    EncoderStudent,
    SlideViewTold,
)
from pipeline.config.extraction import TeacherConfig
from pipeline.config.models import aggregators
from pipeline.config.pretraining import (
    AlarmsConfig,
    PretrainingConfig,
    PretrainingJob,
    ViewsConfig,
)
from pipeline.config.tile_training import CourseConfig
from pipeline.config.whole import Config
from pipeline.contracts.labels import columns_of
from pipeline.encoders import registry, tile_scales
from pipeline.encoders.slide_level.inputs import every_teacher, input_of, slide_teachers
from pipeline.encoders.slide_level.registry import row_of as slide_row_of
from pipeline.encoders.weight_files import local_identity
from pipeline.errors import ConfigError, nearest


def pretraining(config: Config, encoder: str) -> PretrainingJob:
    """One encoder that is made without labels.

    Args:
        config: the config.
        encoder: its name.
    """
    one = next(one for one in config.made() if one.name == encoder)
    section = config.section(PretrainingConfig)
    assert section is not None
    teacher = section.teachers[one.student]
    if one.control:
        # What it starts as is the same however it learns afterwards, but for what normalises it.
        course = CourseConfig(
            batch_size=teacher.course.batch_size,
            accumulate=teacher.course.accumulate,
            tiles_per_visit=teacher.course.tiles_per_visit,
            held_out=teacher.course.held_out,
            seed=teacher.course.seed,
        )
        plain = {"views": ViewsConfig(), "alarms": AlarmsConfig(), "course": course}
        teacher = teacher.model_copy(update=plain)
    row = registry.row_of(one.student, teacher.encoder)
    columns = [c for task in config.tasks.values() for c in columns_of(task)]
    return PretrainingJob(
        pretraining=section.model_copy(update={"teachers": {one.student: teacher}}),
        control=one.control,
        weights_dir=config.extraction.weights_dir,
        start=local_identity(one.student, teacher.encoder, row, config.extraction.weights_dir),
        labels=tuple(columns) if teacher.pool == "separate" else (),
        task=one.task,
        fold=one.fold,
    )


def told(config: Config, encoder: str) -> EncoderDistillationJob:
    """One encoder that is made.

    Args:
        config: the config.
        encoder: its name.
    """
    one = next(one for one in config.made() if one.name == encoder)
    section = config.section(EncoderDistillationConfig)
    assert section is not None
    student = section.students[one.student]
    alone = section.model_copy(update={"students": {one.student: student}})
    common = {
        "encoder_distillation": alone,
        "control": one.control,
        "start": _licence(one.student, student.encoder),
        "weights_dir": config.extraction.weights_dir,
    }
    if one.control:
        # What it starts as is the same whatever it learns afterwards.
        plain = EncoderStudent(encoder=student.encoder, depth=student.depth, width=student.width)
        alone = section.model_copy(update={"students": {one.student: plain}})
        return EncoderDistillationJob(**(common | {"encoder_distillation": alone}))
    named = taught_by(config, one.student)
    columns = [c for task in config.tasks.values() for c in columns_of(task)]
    return EncoderDistillationJob(
        **common,
        teachers={name: features_of(config, name)[0] for name in named},
        facts={name: _licence(name, config.extraction.teachers[name]) for name in named},
        labels=tuple(columns) if student.pool == "separate" else (),
        live={name: config.extraction.teachers[name] for name in live(config, one.student)},
        slide=slide_view(config, one.student),
        task=one.task,
        fold=one.fold,
    )


def live(config: Config, student: str) -> list[str]:
    """The teachers whose patch tokens a student learns: those that it names, else all its own.

    Args:
        config: the config.
        student: its key.

    Raises:
        ConfigError: it does not learn from one that it names.
    """
    section = config.section(EncoderDistillationConfig)
    assert section is not None
    patches, learned = section.students[student].patches, taught_by(config, student)
    if patches is None:
        return []
    for name in patches.teachers:
        if name not in learned:
            raise ConfigError(
                f"encoder_distillation.students.{student}.patches.teachers: the student does not "
                f"learn from `{name}`{nearest(name, learned)}"
            )
    return list(patches.teachers) or learned


def slide_view(config: Config, student: str) -> SlideViewTold | None:
    """The view of whole slides that a student is judged through; None where it is by tiles alone.

    Args:
        config: the config.
        student: its key.

    Raises:
        ConfigError: it is neither a slide encoder of the cohort nor a MIL model, or reads what the
            student does not learn.
    """
    section = config.section(EncoderDistillationConfig)
    assert section is not None
    slide = section.students[student].slide
    if slide is None:
        return None
    where = f"encoder_distillation.students.{student}.slide.encoder"
    learned, encoders = taught_by(config, student), slide_teachers(config)
    if slide.encoder not in encoders:
        if slide.encoder not in aggregators():
            known = {*encoders, *aggregators()}
            raise ConfigError(
                f"{where}: `{slide.encoder}` is neither a teacher with `source: slide` nor a MIL "
                f"model{nearest(slide.encoder, known)}"
            )
        return SlideViewTold(name=slide.encoder, reads=learned[0])
    reads = input_of(config, slide.encoder)
    if reads not in learned:
        raise ConfigError(
            f"{where}: it reads the features of `{reads}`, which the student does not learn; name "
            f"`{reads}` among the teachers"
        )
    settings = encoders[slide.encoder]
    row = slide_row_of(slide.encoder, settings)
    identity = local_identity(slide.encoder, settings, row, config.extraction.weights_dir)
    facts = (row.facts() if row else {}) | ({"identity": identity} if identity else {})
    return SlideViewTold(
        name=slide.encoder,
        reads=reads,
        settings=settings,
        facts=facts,
        precision=config.extraction.precision,
    )


def taught_by(config: Config, student: str) -> list[str]:
    """The teachers that a student learns from: those that it names, else all that are run here.

    Args:
        config: the config.
        student: its key.
    """
    section = config.section(EncoderDistillationConfig)
    assert section is not None
    able = [
        name
        for name, facts in config.extraction.teachers.items()
        if facts.source not in ("import", "slide")
    ]
    return list(section.students[student].teachers) or able


def _licence(name: str, settings: TeacherConfig) -> dict[str, Any]:
    row = registry.row_of(name, settings)
    if row is not None:
        restricted = row.derivative_restricted
        return {"title": row.title, "licence": row.licence, "restricted": restricted}
    random = settings.weights == "random"
    licence = "" if random else f"of {settings.model}: see its page"
    return {"title": str(settings.model or name), "licence": licence, "restricted": False}


def read_by(config: Config, task: str, model: str) -> dict[str, str]:
    """The made encoder that a model reads, and the folder of `features/` where its features are.

    Args:
        config: the config.
        task: the model's task.
        model: its name.

    Returns:
        nothing of a model that reads none; `{fold}` stands for the number of a fold.
    """
    teacher = getattr(config.model_specs()[model], "teacher", "")
    found = [one for one in config.made() if one.teacher == teacher and one.task in ("", task)]
    if not found:
        return {}
    one = found[0]
    return {teacher: f"{one.student}.{task}.{{fold}}" if one.task else one.name}


def check_tiles(config: Config) -> None:
    """Refuse a student of a teacher whose tiles are not the cohort's.

    Raises:
        ConfigError: names it.
    """
    section = config.section(EncoderDistillationConfig)
    for student in section.students if section else ():
        slide_view(config, student)
        live(config, student)
        for teacher in taught_by(config, student):
            if scale := tile_scales.scale_of(config, teacher):
                raise ConfigError(
                    f"encoder_distillation.students.{student}: the teacher `{teacher}` sees other "
                    f"tiles ({scale}) than the student would; name the others (`teachers:`)"
                )


def features_of(config: Config, teacher: str) -> tuple[str, str]:
    """Folder of `features/` with a teacher's manifests, and the folder of the tiles it saw.

    Args:
        config: the config.
        teacher: the teacher's name.
    """
    groups = ["+".join(group) for group in tile_scales.groups(config)]
    manifests = next((g for g in groups if teacher in g.split("+")), teacher)
    run = every_teacher(config)[teacher].source not in ("import", "slide")
    return manifests, tile_scales.folder(tile_scales.scale_of(config, teacher) if run else "")


def check_folds(config: Config, base: Path) -> None:
    """Refuse encoders for each fold where `folds.k` is not the number of imported folds.

    Args:
        config: the config.
        base: folder that its relative paths start from.

    Raises:
        ConfigError: says how many there are.
    """
    learners = config.pooled_by_fold()
    if not learners or config.folds.import_dir is None:
        return
    from pipeline.folds.imported import count_folds, folder_of  # reads tables, which takes time

    for task in config.tasks:
        folder = folder_of(base / Path(config.folds.import_dir).expanduser(), task)
        if (found := count_folds(folder)) != config.folds.k:
            raise ConfigError(
                f"{learners[0]}.pool: `training` makes an encoder for "
                f"each fold, and {folder} has {found} of them: set folds.k: {found}"
            )
