"""What each stage's job is told: the part of the config that decides its result, as one JSON text.

The workflow puts this text in a rule's `cfg` param, where a change of it makes the job stale, and
passes it to the command line, which reads it back. A key that does not change a stage's result does
not belong here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter

from pipeline.cohort.synthetic.embedded import annotation_pattern, sheet_path
from pipeline.config.cohort import CohortConfig, Covariate
from pipeline.config.controls import Controls
from pipeline.config.evaluation import EvaluationConfig
from pipeline.config.external import ExternalConfig, ExternalJob, ExternalPredictionsJob
from pipeline.config.extraction import ExtractionConfig, TeacherConfig
from pipeline.config.folds import FoldsJob
from pipeline.config.mapping import MappingConfig
from pipeline.config.models import FinetunedModel, ModelConfig
from pipeline.config.pairs import PairsConfig, PairsJob
from pipeline.config.probing import (
    ProbingConfig,
    ProbingGainsJob,
    ProbingJob,
    RobustnessJob,
    TileStudentsJob,
)
from pipeline.config.section import Section
from pipeline.config.slide_encoders import SlideEncodersJob
from pipeline.config.tasks import TaskConfig
from pipeline.config.tiling import TilingConfig
from pipeline.config.training import TrainingConfig
from pipeline.config.vision_language import EMBEDDED, VisionLanguageConfig, VisionLanguageJob
from pipeline.config.whole import Config
from pipeline.encoders import speaking, tile_scales
from pipeline.encoders.slide_level.inputs import every_teacher, input_of
from pipeline.encoders.slide_level.registry import row_of
from pipeline.encoders.weight_files import local_identity
from pipeline.errors import ConfigError
from pipeline.plan import encoder_jobs
from pipeline.runtime import stages


class ChunkJob(Section):
    cohort: CohortConfig
    slides: str


class TilingJob(Section):
    tiling: TilingConfig
    slides: str


class ExtractionJob(Section):
    extraction: ExtractionConfig
    slides: str
    facts: dict[str, Any]
    tiles: str


class CheckJob(Section):
    teacher: str
    settings: TeacherConfig
    weights_dir: str | None
    facts: dict[str, Any]


class MappingJob(Section):
    mapping: MappingConfig
    teachers: list[str]
    manifests: list[str]
    tiled: bool


class ModelJob(Section):
    """One model of one task.

    Attributes:
        made: an encoder that the workflow made, by the name that the model calls it, and the folder
            of its features; with `{fold}` in it, each fold has an encoder of its own.
    """

    training: TrainingConfig
    model: ModelConfig
    task: TaskConfig
    auxiliary: dict[str, TaskConfig]
    made: dict[str, str] = Field(default_factory=dict)


class LinearModelsJob(Section):
    """The linear models of a task.

    Attributes:
        made: model -> as of `ModelJob`, of those that read an encoder that the workflow made.
    """

    training: TrainingConfig
    models: dict[str, ModelConfig]
    task: TaskConfig
    auxiliary: dict[str, TaskConfig]
    made: dict[str, dict[str, str]] = Field(default_factory=dict)


class StackingJob(Section):
    model: ModelConfig
    task: TaskConfig
    seeds: tuple[int, ...]
    nested: bool
    covariates: dict[str, Covariate]


class EvaluationJob(Section):
    evaluation: EvaluationConfig
    task: TaskConfig
    models: list[str]
    auxiliary: dict[str, TaskConfig]
    controls: Controls = Controls()
    zero_shot: tuple[str, ...] = ()
    made: tuple[str, ...] = ()


class ReportJob(Section):
    config: Config


def of(stage: str, config: Config, **parts: Any) -> Section:
    """What a stage's job is told: its job's fields are sections of the config, or given.

    A stage that takes out of its section what does not concern a job has a function of its own.

    Args:
        stage: the stage's name.
        config: the config.
        parts: the fields that are no sections, and any that stand in for one.

    Raises:
        ValidationError: a field is missing, or a part is no field.
    """
    kind = stages.stage(stage).job_class()
    sections = {name: getattr(config, name) for name in type(config).model_fields}
    own = {name: sections[name] for name in kind.model_fields if name in sections}
    return kind(**(own | parts))


def chunk(config: Config, slides: str, cases: int) -> ChunkJob:
    """One chunk's slide table.

    Args:
        config: the config.
        slides: digest of the chunk's slides, with their paths.
        cases: how many cases of the embedded cohort reach as far as this chunk's last one: more
            elsewhere make it no staler.
    """
    synthetic = config.cohort.synthetic.model_copy(update={"cases": cases})
    # What the user says of the sheet as a whole decides nothing of a chunk.
    cohort = config.cohort.model_copy(
        update={"synthetic": synthetic, "accept": (), "covariates": {}}
    )
    return ChunkJob(cohort=cohort, slides=slides)


def tiling(config: Config, slides: str, scale: str = "") -> TilingJob:
    """One chunk's tiles of one scale.

    Args:
        config: the config.
        slides: digest of the chunk's slides: ids, contents, overrides.
        scale: name of another tile size or scale; empty for the config's own.
    """
    section = tile_scales.scales(config)[scale] if scale else config.tiling
    return TilingJob(tiling=section, slides=slides)


def extraction(config: Config, teachers: str, slides: str) -> ExtractionJob:
    """One teacher, or several that share one decoding (`a+b`), of one chunk.

    A teacher's row of the registry goes along as `facts`, so that a corrected row makes its own
    teacher stale and no other.

    Args:
        config: the config.
        teachers: the teacher's name, or `a+b` for several that share one decoding.
        slides: digest of the chunk's slides, or of the imported files.
    """
    everyone = every_teacher(config)
    named = {name: everyone[name] for name in teachers.split("+")}
    facts = {name: teacher_facts(config, name) for name in named}
    alone = config.extraction.model_copy(update={"teachers": named, "together": ()})
    tiles = tile_scales.folder(tile_scales.scale_of(config, next(iter(named))))
    return ExtractionJob(extraction=alone, slides=slides, facts=facts, tiles=tiles)


def check(config: Config, teacher: str) -> CheckJob:
    """One teacher's preflight."""
    return CheckJob(
        teacher=teacher,
        settings=every_teacher(config)[teacher],
        weights_dir=config.extraction.weights_dir,
        facts=teacher_facts(config, teacher),
    )


def teacher_facts(config: Config, teacher: str) -> dict[str, Any]:
    """A teacher's row of the registry, and which file its local weights are: another file is
    another teacher."""
    if teacher in {one.name for one in config.made()}:
        return {}  # it does not exist yet; a job's inputs say what it has become
    settings = every_teacher(config)[teacher]
    row = row_of(teacher, settings)
    facts = row.facts() if row else {}
    identity = local_identity(teacher, settings, row, config.extraction.weights_dir)
    return facts | ({"identity": identity} if identity else {})


def slide_encoders(config: Config, teacher: str) -> SlideEncodersJob:
    """One slide encoder.

    Args:
        config: the config.
        teacher: the encoder's name.
    """
    named = {teacher: config.extraction.teachers[teacher]}
    reads = input_of(config, teacher)
    return SlideEncodersJob(
        extraction=config.extraction.model_copy(update={"teachers": named, "together": ()}),
        input=reads,
        manifests=encoder_jobs.features_of(config, reads)[0],
        facts=teacher_facts(config, teacher),
    )


def mapping(config: Config) -> MappingJob:
    """`manifests`: folders of `features/` whose manifests say what became of the slides.

    `tiled`: some teacher runs on tiles, so there are tiling manifests to read.
    """
    own = bool(config.made()) and not config.extraction.teachers
    return MappingJob(
        mapping=config.mapping,
        teachers=config.mapped(),
        manifests=tile_scales.feature_folders(config),
        tiled=own or bool(tile_scales.groups(config)),
    )


def probing(config: Config, teacher: str, annotations: str) -> ProbingJob:
    """One teacher's probes.

    `manifests` is the folder of `features/` that says what became of the teacher's slides, `tiles`
    where the tiles that it saw are.

    Args:
        config: the config.
        teacher: the teacher's name.
        annotations: digest of the annotation files; the embedded cohort brings its own.
    """
    section = _unset(_probing(config), "students", "epochs", "robustness")
    manifests, tiles = encoder_jobs.features_of(config, teacher)
    return ProbingJob(
        probing=_annotated(config, section),
        manifests=manifests,
        tiles=tiles,
        annotations=annotations,
    )


def robustness(config: Config, teacher: str, annotations: str) -> RobustnessJob:
    """One teacher under shifts.

    Args:
        config: the config, with the encoders that are made here among its teachers.
        teacher: the teacher's name.
        annotations: as in `probing`.
    """
    section = _unset(
        _probing(config),
        *("tiles_per_slide", "members", "neighbours", "shots", "episodes", "portions"),
        *("students", "epochs"),
    )
    return RobustnessJob(
        probing=_annotated(config, section),
        settings=config.extraction.teachers[teacher],
        facts=teacher_facts(config, teacher),
        precision=config.extraction.precision,
        weights_dir=config.extraction.weights_dir,
        tiles=tile_scales.folder(tile_scales.scale_of(config, teacher)),
        annotations=annotations,
    )


def probing_gains(config: Config) -> ProbingGainsJob:
    """The encoders that are made here and probed, each with itself before it was trained."""
    section = _probing(config)
    made = [one for one in config.made() if not one.task]
    controls = {(one.stage, one.student): one.name for one in made if one.control}
    return ProbingGainsJob(
        pairs={
            one.name: controls[one.stage, one.student]
            for one in made
            if not one.control and (one.stage, one.student) in controls
        },
        probing=ProbingConfig(
            bootstraps=section.bootstraps, confidence=section.confidence, seed=section.seed
        ),
    )


def tile_students(config: Config, annotations: str) -> TileStudentsJob:
    """All teachers' tiles at once; `annotations` as in `probing`."""
    found = {
        teacher: encoder_jobs.features_of(config, teacher) for teacher in config.extraction.teachers
    }
    section = _unset(_probing(config), "members", "shots", "episodes", "portions", "robustness")
    return TileStudentsJob(
        probing=_annotated(config, section),
        manifests={teacher: manifests for teacher, (manifests, _) in found.items()},
        tiles={teacher: tiles for teacher, (_, tiles) in found.items()},
        annotations=annotations,
    )


def _probing(config: Config) -> ProbingConfig:
    section = config.section(ProbingConfig)
    assert section is not None
    return section


def _unset(section: ProbingConfig, *keys: str) -> ProbingConfig:
    """The section with the defaults of keys that the job does not read: they decide nothing."""
    fields = ProbingConfig.model_fields
    return section.model_copy(update={key: fields[key].get_default() for key in keys})


def _annotated(config: Config, section: ProbingConfig) -> ProbingConfig:
    if section.annotations is None and config.cohort.source == "synthetic":
        return section.model_copy(update={"annotations": annotation_pattern(config.cohort)})
    return section


def _alone(config: Config, task: str) -> Any:
    """A task without its auxiliary ones, which decides neither folds nor measures."""
    return config.tasks[task].model_copy(update={"auxiliary": {}})


def folds(config: Config, task: str, imported: str = "") -> FoldsJob:
    """A task's folds.

    Args:
        config: the config.
        task: the task's name.
        imported: digest of the fold files in `folds.import_dir`; empty: none.
    """
    return FoldsJob(
        folds=config.folds,
        cases=config.mapping.cases,
        task=_alone(config, task),
        imported=imported,
    )


def training(config: Config, task: str, model: str) -> ModelJob:
    """One model of one task.

    Args:
        config: the config.
        task: the task's name.
        model: the model's name.
    """
    alone = config.training.model_copy(update={"models": {}, "ablations": {}})
    return ModelJob(
        training=alone,
        model=_with_identity(config.model_specs()[model]),
        task=config.tasks[task],
        auxiliary=_auxiliary(config, task),
        made=encoder_jobs.read_by(config, task, model),
    )


def linear_models(config: Config, task: str) -> LinearModelsJob:
    """The models of a task that are trained in one job.

    Args:
        config: the config.
        task: the task's name.
    """
    found = config.linear_models()
    jobs = {name: training(config, task, name) for name in found}
    return LinearModelsJob(
        training=config.training.model_copy(update={"models": {}, "ablations": {}}),
        models=found,
        task=config.tasks[task],
        auxiliary=_auxiliary(config, task),
        made={name: job.made for name, job in jobs.items() if job.made},
    )


def _with_identity(model: Any) -> Any:
    """A fine-tuned encoder with the identity of the local file that it starts with."""
    if not isinstance(model, FinetunedModel) or isinstance(model.encoder, str):
        return model
    start = model.encoder
    row = row_of(start.teacher, start.settings)
    identity = local_identity(start.teacher, start.settings, row, start.weights_dir)
    return model.model_copy(update={"encoder": start.model_copy(update={"identity": identity})})


def stacking(config: Config, task: str, model: str) -> StackingJob:
    """One model that reads other models' predictions, or covariates.

    Args:
        config: the config.
        task: the task's name.
        model: the model's name.
    """
    spec = config.model_specs()[model]
    return StackingJob(
        model=spec,
        task=_alone(config, task),
        seeds=config.training.seeds,
        nested=config.training.nested is not None,
        covariates={name: config.cohort.covariates[name] for name in spec.covariates},
    )


def _auxiliary(config: Config, task: str) -> dict[str, Any]:
    """The auxiliary tasks of a task."""
    return {name: _alone(config, name) for name in config.tasks[task].auxiliary}


def evaluation(config: Config, task: str) -> EvaluationJob:
    return EvaluationJob(
        evaluation=config.evaluation,
        task=_alone(config, task),
        models=list(config.model_specs()),
        auxiliary=_auxiliary(config, task),
        controls=config.controls(),
        zero_shot=tuple(speaking.zero_shot_models(config, task)),
        made=tuple(dict.fromkeys(one.teacher for one in config.made())),
    )


def vision_language(config: Config, teacher: str, captions: str = "") -> VisionLanguageJob:
    """One teacher, asked in words.

    Args:
        config: the config.
        teacher: the teacher's name.
        captions: digest of the file of captions; empty: none.
    """
    section = config.section(VisionLanguageConfig)
    assert section is not None
    settings = config.extraction.teachers[teacher]
    return VisionLanguageJob(
        vision_language=section,
        teachers={teacher: settings.model_dump(mode="json", exclude_defaults=True)},
        weights_dir=config.extraction.weights_dir,
        tasks={name: _alone(config, name) for name in section.prompts},
        seeds=config.training.seeds,
        facts=teacher_facts(config, teacher),
        captions=captions,
        embedded=_embedded(config) if section.captions == EMBEDDED else "",
        tiles=encoder_jobs.features_of(config, teacher)[1] if section.captions == EMBEDDED else "",
    )


def external_predictions(config: Config, task: str, model: str) -> ExternalPredictionsJob:
    """One model of one task on an external cohort.

    Args:
        config: the config.
        task: the task's name.
        model: the model's name.
    """
    external = config.section(ExternalConfig)
    assert external is not None
    return ExternalPredictionsJob(
        external=external.model_copy(update={"models": ()}),
        task=_alone(config, task),
        max_tiles=config.training.max_tiles_per_case,
        precision=config.training.precision,
        made=encoder_jobs.read_by(config, task, model),
    )


def external(config: Config, task: str) -> ExternalJob:
    """A task's evaluation on an external cohort."""
    section = config.section(ExternalConfig)
    assert section is not None
    return ExternalJob(
        external=section,
        evaluation=config.evaluation,
        task=_alone(config, task),
        applied=config.applied(),
    )


def pairs(config: Config, captions: str, slides: str) -> PairsJob:
    """The training on captioned tiles.

    Args:
        config: the config.
        captions: digest of the file of captions; empty: none.
        slides: digest of the slides.
    """
    section = config.section(PairsConfig)
    assert section is not None
    return PairsJob(
        pairs=section,
        weights_dir=config.extraction.weights_dir,
        captions=captions,
        tiles="tiles",
        embedded=_embedded(config) if section.captions is None else "",
        slides=slides,
    )


def _embedded(config: Config) -> str:
    """Where the truth and the annotations of the embedded cohort are; '' for another cohort."""
    drawn = config.cohort.source == "synthetic"
    return str(sheet_path(config.cohort, Path()).parent) if drawn else ""


def report(config: Config) -> ReportJob:
    return ReportJob(config=config)


def read(kind: type[Section], text: str) -> Any:
    """Read a job back from its JSON.

    Raises:
        ConfigError: the text is not the JSON of such a job.
    """
    try:
        return TypeAdapter(kind).validate_json(text)
    except ValueError as error:
        raise ConfigError(f"--cfg: not a {kind.__name__}: {error}") from None
