"""The whole config: its sections in the order of the work, and what holds between them.

A section that nothing here speaks of is found by the declaration of its stage: `pretraining` is
`PretrainingConfig` of `pipeline/config/pretraining.py`, and the stage is off where the config has
no such section.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import Field, ValidationError, create_model, model_validator

from pipeline.config.cohort import CohortConfig
from pipeline.config.controls import PLAIN, Controls, controls
from pipeline.config.encoder_distillation import EncoderDistillationConfig, Made, made
from pipeline.config.evaluation import EvaluationConfig
from pipeline.config.expanded import expanded
from pipeline.config.external import ExternalConfig
from pipeline.config.extraction import ExtractionConfig, TeacherConfig
from pipeline.config.folds import FoldsConfig
from pipeline.config.mapping import MappingConfig
from pipeline.config.models import (
    EncoderStart,
    FinetunedModel,
    FusionModel,
    LinearModel,
    ShazamV1Model,
    ShazamV2Model,
    SingleModel,
    SizableFusion,
)
from pipeline.config.pretraining import PretrainingConfig
from pipeline.config.pretraining import made as pretrained
from pipeline.config.probing import ProbingConfig
from pipeline.config.report import ReportConfig
from pipeline.config.section import Name, Section
from pipeline.config.tasks import TaskConfig
from pipeline.config.tiling import TilingConfig
from pipeline.config.training import GRID_KEYS, TrainingConfig
from pipeline.errors import nearest
from pipeline.runtime.stages import STAGES

S = TypeVar("S", bound=Section)


class Config(Section):
    """The whole config, in the order of the work."""

    cohort: CohortConfig = CohortConfig()
    tiling: TilingConfig = TilingConfig()
    extraction: ExtractionConfig = ExtractionConfig()
    mapping: MappingConfig = MappingConfig()
    tasks: dict[Name, TaskConfig] = Field(default_factory=dict)
    folds: FoldsConfig = FoldsConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    report: ReportConfig = ReportConfig()

    @model_validator(mode="after")
    def _applied_exist(self) -> Config:
        external, specs = self.section(ExternalConfig), self.model_specs()
        for name in external.models if external else ():
            if name not in specs:
                raise ValueError(
                    f"external.models: the training cohort has no model `{name}`"
                    f"{nearest(name, specs)}"
                )
        return self

    @model_validator(mode="after")
    def _references(self) -> Config:
        self._students_learn()
        teachers = set(self.mapped())
        known = teachers | {one.teacher for one in self.made()}
        for name, model in {**self.training.models, **self.training.ablations}.items():
            named: tuple[str, ...] = ()
            if isinstance(model, SingleModel | LinearModel) and model.teacher not in (
                "each",
                "all",
            ):
                named = (model.teacher,)
            elif isinstance(model, FinetunedModel):
                self._finetunes(name, model)
                named = (model.teacher,)
            elif isinstance(model, FusionModel | ShazamV1Model | ShazamV2Model):
                named = model.drop_teachers
            for teacher in named:
                single = isinstance(model, SingleModel | LinearModel)
                if teacher not in (known if single else teachers):
                    raise ValueError(
                        f"training: model `{name}` names the teacher `{teacher}`, which is not in "
                        f"extraction.teachers{nearest(teacher, teachers)}"
                    )
        for name, settings in self.extraction.teachers.items():
            tiles = self.extraction.teachers.get(settings.input or "")
            if tiles is not None and tiles.source == "slide":
                raise ValueError(
                    f"extraction.teachers.{name}.input: `{settings.input}` is a slide encoder; it "
                    "must be a teacher of tiles"
                )
        grouped = [teacher for group in self.extraction.together for teacher in group]
        for teacher in grouped:
            facts = self.extraction.teachers.get(teacher)
            if facts is None:
                raise ValueError(
                    f"extraction.together: `{teacher}` is not in extraction.teachers"
                    f"{nearest(teacher, teachers)}"
                )
            if facts.source in ("import", "slide"):
                raise ValueError(f"extraction.together: `{teacher}` is not run on tiles")
            if grouped.count(teacher) > 1:
                raise ValueError(f"extraction.together: `{teacher}` is in it twice")
        self._nested_fits()
        for name, task in self.tasks.items():
            for other in task.auxiliary:
                if other == name or other not in self.tasks:
                    raise ValueError(
                        f"tasks.{name}.auxiliary: `{other}` is not another task"
                        f"{nearest(other, set(self.tasks) - {name})}"
                    )
        self._sizes_exist()
        both = set(self.training.models) & set(self.training.ablations)
        if both:
            raise ValueError(f"training: {sorted(both)} are in both models and ablations")
        models = self.model_specs()
        if self.tasks and not teachers:
            raise ValueError(
                "extraction.teachers: empty; name at least one teacher, or let pretraining make "
                "one that serves every fold (`pool: separate` or `all`)"
            )
        chosen = self.evaluation.student != EvaluationConfig().student
        if (models or chosen) and self.evaluation.student not in models:
            raise ValueError(
                f"evaluation.student is `{self.evaluation.student}`, which is not one of the "
                f"models{nearest(self.evaluation.student, models)}"
            )
        return self

    def _finetunes(self, name: str, model: FinetunedModel) -> None:
        teachers = self.extraction.teachers
        encoders = {n for n, facts in teachers.items() if facts.source == "slide"}
        where = f"training: model `{name}`"
        if isinstance(model.encoder, str) and model.encoder not in encoders:
            raise ValueError(
                f"{where}: `{model.encoder}` is not a slide encoder (source: slide) of "
                f"extraction.teachers{nearest(model.encoder, encoders)}"
            )
        if model.teacher in encoders:
            raise ValueError(
                f"{where}: `{model.teacher}` is a slide encoder; `teacher` names the teacher of "
                "tiles that it reads"
            )

    def _nested_fits(self) -> None:
        nested = self.training.nested
        if nested is None:
            return
        if self.folds.inner is None:
            raise ValueError("training.nested needs `folds.inner`, the number of inner folds")
        specs = self.model_specs()
        for key in nested.grid:
            known = {*GRID_KEYS, *(k for model in specs.values() for k in _paths(model))}
            if key not in known:
                raise ValueError(
                    f"training.nested.grid: `{key}` is neither a training key nor one of a "
                    f"model{nearest(key, known)}"
                )
        for name, model in specs.items():
            for point in nested.points():
                try:
                    self.training.at(point, model)
                except ValidationError as error:
                    problem = error.errors()[0]
                    raise ValueError(
                        f"training.nested.grid: {point} does not fit `{name}`: "
                        f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
                    ) from None

    def _students_learn(self) -> None:
        section = self.section(EncoderDistillationConfig)
        given = self.extraction.teachers
        able = [n for n, facts in given.items() if facts.source not in ("import", "slide")]
        for name, student in section.students.items() if section else ():
            where = f"encoder_distillation.students.{name}"
            if not able:
                raise ValueError(f"{where}: there is no teacher that is run here to learn from")
            weighted = student.weights if isinstance(student.weights, dict) else {}
            for teacher in (*student.teachers, *weighted):
                if teacher not in able:
                    raise ValueError(
                        f"{where}: `{teacher}` is not a teacher that is run here"
                        f"{nearest(teacher, able)}"
                    )
        self._pools_fit()
        names: set[str] = set(given)
        for one in self.made():
            for taken in {one.name, one.teacher} & (names if one.fold == 0 else set(given)):
                raise ValueError(
                    f"{one.stage}: an encoder is called `{taken}` as another teacher is; rename "
                    f"`{one.student}`"
                )
            names.add(one.name)

    def _pools_fit(self) -> None:
        """An encoder for each outer fold needs tasks, whose folds these are."""
        for where in self.pooled_by_fold() if not self.tasks else ():
            raise ValueError(
                f"{where}.pool: `training` makes an encoder for each fold of each task, and there "
                "are no tasks; use `separate` or `all`"
            )

    def pooled_by_fold(self) -> list[str]:
        """Where the config asks for an encoder for each outer fold."""
        taught, own = self.section(EncoderDistillationConfig), self.section(PretrainingConfig)
        students = taught.students if taught else {}
        learners = own.teachers if own else {}
        pools = {f"encoder_distillation.students.{n}": one.pool for n, one in students.items()}
        pools |= {f"pretraining.teachers.{n}": one.pool for n, one in learners.items()}
        return [where for where, pool in pools.items() if pool == "training"]

    def made(self) -> list[Made]:
        """The encoders that the workflow makes, each a teacher of its own afterwards."""
        k = self.folds.k
        own = pretrained(self.section(PretrainingConfig), self.tasks, k)
        return own + made(self.section(EncoderDistillationConfig), self.tasks, k)

    def mapped(self) -> list[str]:
        """The teachers whose slides make the cohort's cases, and which models of all teachers read.

        Where the config names none, these are the encoders that are made here and serve every fold.
        """
        own = [one.name for one in self.made() if not one.control and not one.task]
        return list(self.extraction.teachers) or own

    def with_made(self) -> Config:
        """The same with the encoders that the workflow makes among the teachers; on an external
        cohort those that the training cohort's run made.

        Models that read all teachers do not read these: they are compared with their teachers.
        """
        external = self.section(ExternalConfig)
        folder = f"{external.trained if external else f'results/{self.cohort.name}'}/teachers"
        more = {
            one.name: TeacherConfig(
                source="folder", path=f"{folder}/{one.name}", weights="local",
                acknowledge_licence=True,
            )
            for one in self.made()
        }  # fmt: skip
        teachers = {**self.extraction.teachers, **more}
        extraction = self.extraction.model_copy(update={"teachers": teachers})
        return self.model_copy(update={"extraction": extraction})

    def robust(self) -> list[str]:
        """The teachers whose robustness is measured: networks of tiles; of the encoders that are
        made here those that serve all folds."""
        section = self.section(ProbingConfig)
        if section is None or section.robustness is None:
            return []
        named = self.extraction.teachers.items()
        able = [name for name, facts in named if facts.source not in ("import", "slide")]
        return able + [one.name for one in self.made() if not one.task]

    def _sizes_exist(self) -> None:
        known = {**self.training.models, **self.training.ablations}
        students = [n for n, m in known.items() if isinstance(m, ShazamV1Model | ShazamV2Model)]
        for name, model in known.items():
            sized_as = model.sized_as if isinstance(model, SizableFusion) else None
            if isinstance(sized_as, str) and sized_as not in students:
                raise ValueError(
                    f"training: model `{name}` is sized_as `{sized_as}`, which is not one of the "
                    f"students{nearest(sized_as, students)}"
                )

    def applied(self) -> list[str]:
        """The models that are trained here, or of an external cohort those that are applied."""
        external = self.section(ExternalConfig)
        every = list(self.model_specs())
        return list(external.models or every) if external else every

    def section(self, kind: type[S]) -> S | None:
        """The section of a class; None where the config has none.

        Args:
            kind: the class, e.g. `ProbingConfig`.
        """
        return next((value for _, value in self if isinstance(value, kind)), None)

    def model_specs(self, ablations: bool = True) -> dict[str, Any]:
        """Every model that will be trained, by name, spelled out as `expanded` does it.

        Controls of the student come last; the plain ones and that of the covariates are no
        ablations.
        """
        further, found = self._controls()
        shown = {found.covariates, found.with_covariates}
        more = {
            n: spec for n, spec in further.items() if ablations or spec.kind == PLAIN or n in shown
        }
        return {**self._named(ablations), **more}

    def linear_models(self) -> dict[str, Any]:
        """The linear models, each of which takes less time than a job's start."""
        specs = self.model_specs()
        return {name: spec for name, spec in specs.items() if isinstance(spec, LinearModel)}

    def controls(self) -> Controls:
        """The models that the student is taken apart with."""
        return self._controls()[1]

    def _controls(self) -> tuple[dict[str, Any], Controls]:
        if not self.evaluation.attribution:
            return {}, Controls()
        named = self._named(ablations=True)
        covariates = tuple(self.cohort.covariates)
        student, teachers = self.evaluation.student, self.mapped()
        return controls(student, named, teachers, covariates)

    def _named(self, ablations: bool) -> dict[str, Any]:
        """The models that the config names."""
        every = {**self.training.models, **self.training.ablations}
        own = dict.fromkeys(one.teacher for one in self.made())
        teachers = [*self.extraction.teachers, *own]
        found = expanded(every, teachers, list(self.cohort.covariates))
        kept = every if ablations else self.training.models
        return {name: self._started(spec) for one in kept for name, spec in found[one].items()}

    def _started(self, spec: Any) -> Any:
        """A model with the slide encoder that it starts as, if it is one."""
        if not isinstance(spec, FinetunedModel) or not isinstance(spec.encoder, str):
            return spec
        settings = self.extraction.teachers[spec.encoder]
        start = EncoderStart(
            teacher=spec.encoder,
            row=settings.model or spec.encoder,
            settings=settings,
            weights_dir=self.extraction.weights_dir,
        )
        return spec.model_copy(update={"encoder": start})


def _paths(section: Section) -> list[str]:
    """The keys of a section, those of its own sections with a dot."""
    found = []
    for key in type(section).model_fields:
        value = getattr(section, key)
        inner = [f"{key}.{path}" for path in _paths(value)] if isinstance(value, Section) else []
        found += inner or [key]
    return found


def _sections_of_stages() -> dict[str, Any]:
    """Section -> its type and default, of those that stages declare and `Config` does not name."""
    names = {name for stage in STAGES for name in stage.config} - set(Config.model_fields)
    return {name: (section_class(name) | None, None) for name in sorted(names)}


def section_class(name: str) -> type[Section]:
    """The class of a section that is found by its name.

    Args:
        name: of the section and of its file in `pipeline/config/`.
    """
    module = importlib.import_module(f"pipeline.config.{name}")
    return getattr(module, "".join(map(str.title, name.split("_"))) + "Config")


if not TYPE_CHECKING:  # a type checker knows the sections that are named above; see `section`
    Config = create_model(
        "Config",
        __base__=Config,
        __module__=__name__,
        __doc__=Config.__doc__,
        **_sections_of_stages(),
    )
