"""The typed config: one model per stage section.

`config/config.yaml` says in comments what every key means; this file says what it may be. Unknown
keys are errors, and the message names the key, where it stands and the nearest valid one. Nothing
here imports torch, so that reading the config costs a dry-run nothing.
"""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import ConfigError

Level = Literal["low", "mid", "high"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
Weight = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]

# More values than the config of the largest study, far fewer than an alias of aliases makes.
MAX_VALUES = 200_000


class Section(BaseModel):
    """A part of the config: immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def canonical(self) -> str:
        """Sorted, compact JSON: equal configs give equal text whatever the YAML's order."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


# --- cohort ---------------------------------------------------------------------------------------


class SyntheticConfig(Section):
    """The embedded cohort: H&E-like slides drawn from a hidden state per case."""

    cases: int = Field(52, ge=12, le=1000)
    two_slide_fraction: Fraction = 0.2
    pen_fraction: Fraction = 0.08
    censoring: Fraction = 0.3
    slide_px: tuple[int, int] = (2000, 3200)
    broken_slides: bool = True
    seed: int = 7

    @model_validator(mode="after")
    def _sensible(self) -> SyntheticConfig:
        low, high = self.slide_px
        if not 256 <= low <= high <= 20_000:
            raise ValueError("slide_px: smallest and largest side, from 256 to 20000 pixels")
        if self.censoring > 0.95:
            raise ValueError("censoring: at most 0.95, or there is no event to learn from")
        return self


class ColumnsConfig(Section):
    """The sheet's column names for what the pipeline needs to know of a slide."""

    slide_id: str = "slide_id"
    case_id: str = "case_id"
    path: str = "path"
    mpp: str = "mpp"
    site: str = "site"
    mask: str = "mask"
    coordinates: str = "coordinates"


class CohortConfig(Section):
    name: Name = "demo"
    source: Literal["synthetic", "sheet"] = "synthetic"
    sheet: str | None = None
    slide_root: str | None = None
    columns: ColumnsConfig = ColumnsConfig()
    missing_files: Literal["error", "ledger"] = "error"
    chunks: int = Field(2, ge=1, le=10_000)
    synthetic: SyntheticConfig = SyntheticConfig()

    @model_validator(mode="after")
    def _sheet_given(self) -> CohortConfig:
        if self.source == "sheet" and not self.sheet:
            raise ValueError("source: sheet needs `sheet:`, the path of the slide table")
        return self


# --- tiling ---------------------------------------------------------------------------------------


class TissueConfig(Section):
    method: Literal["otsu", "clam", "entropy", "learned"] = "otsu"
    clam_preset: Literal["default", "tcga", "bwh_biopsy", "bwh_resection"] = "default"
    weights: str | None = None
    segmentation_mpp: float = Field(8.0, gt=0)
    min_area_um2: float = Field(20_000.0, ge=0)
    min_hole_um2: float = Field(10_000.0, ge=0)
    remove_pen: bool = True
    remove_blur: bool = True
    remove_folds: bool = False

    @model_validator(mode="after")
    def _weights_given(self) -> TissueConfig:
        if self.method == "learned" and not self.weights:
            raise ValueError("method: learned needs `weights:`, a segmentation checkpoint")
        return self


class TilingConfig(Section):
    tile_px: int = Field(224, ge=16, le=8192)
    target_mpp: float = Field(0.5, ge=0.05, le=10)
    mpp_tolerance: float = Field(0.05, ge=0, le=0.5)
    overlap_px: int = Field(0, ge=0)
    min_tissue_fraction: Fraction = 0.5
    max_tiles: int | None = Field(None, ge=1)
    mpp_policy: Literal["error", "default", "reject"] = "error"
    default_mpp: float | None = Field(None, ge=0.05, le=10)
    mpp_range: tuple[float, float] = (0.05, 10.0)
    mpp_magnification_factor: float = Field(3.0, ge=1.1)
    tissue: TissueConfig = TissueConfig()
    seed: int = 0

    @model_validator(mode="after")
    def _consistent(self) -> TilingConfig:
        if self.overlap_px >= self.tile_px:
            raise ValueError("overlap_px must be smaller than tile_px, or the grid never advances")
        if self.mpp_policy == "default" and self.default_mpp is None:
            raise ValueError("mpp_policy: default needs `default_mpp:` (µm per pixel)")
        if self.mpp_range[0] >= self.mpp_range[1]:
            raise ValueError("mpp_range: the first value must be smaller than the second")
        return self


# --- extraction -----------------------------------------------------------------------------------


class TeacherConfig(Section):
    """One teacher: an encoder we run (`registry`, or any `timm` model), or imported features."""

    source: Literal["registry", "timm", "import"] = "registry"
    model: str | None = None
    weights: Literal["hub", "local", "random"] = "hub"
    seed: int = 0
    pooling: str | None = None
    input_px: int | None = Field(None, ge=16, le=4096)
    tile_px: int | None = Field(None, ge=16, le=8192)
    target_mpp: float | None = Field(None, ge=0.05, le=10)
    path: str | None = None
    pattern: str = "{slide_id}.h5"
    table: str | None = None
    revision: str | None = None
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    acknowledge_licence: bool = False

    @model_validator(mode="after")
    def _complete(self) -> TeacherConfig:
        if self.source == "import" and not self.path:
            raise ValueError("source: import needs `path:`, the folder of feature files")
        if self.source == "timm" and not self.model:
            raise ValueError("source: timm needs `model:`, a timm model name")
        return self


class ExtractionConfig(Section):
    teachers: dict[Name, TeacherConfig] = Field(default_factory=dict)
    levels: tuple[Level, ...] = ("low", "mid", "high")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    batch_size: int | Literal["auto"] = "auto"
    weights_dir: str | None = None
    decode: Literal["auto", "cpu", "gpu"] = "auto"
    on_bad_tile: Literal["fail", "drop"] = "fail"
    together: tuple[tuple[Name, ...], ...] = ()

    @model_validator(mode="after")
    def _high_level(self) -> ExtractionConfig:
        if "high" not in self.levels:
            raise ValueError("levels: `high` is what other tools and the teachers' models read")
        return self

    @model_validator(mode="before")
    @classmethod
    def _teachers_by_name(cls, data: Any) -> Any:
        """`teachers: [uni2_h, virchow2]` is short for a mapping with empty values."""
        if isinstance(data, Mapping) and "teachers" in data:
            teachers = data["teachers"]
            if isinstance(teachers, list | tuple):
                if len(set(map(str, teachers))) != len(teachers):
                    raise ValueError("teachers: the same name stands twice in the list")
                teachers = {str(t): {} for t in teachers}
            if isinstance(teachers, Mapping):
                teachers = {k: {} if v is None else v for k, v in teachers.items()}
            data = {**data, "teachers": teachers}
        return data


# --- mapping, folds -------------------------------------------------------------------------------


class MappingConfig(Section):
    max_failed_fraction: Fraction = 0.2
    cases: Literal["intersection", "union"] = "intersection"


class FoldsConfig(Section):
    k: int = Field(5, ge=2, le=50)
    validation_fraction: float = Field(0.2, gt=0, lt=0.9)
    group_by: Literal["case", "site"] = "case"
    inner: int | None = Field(None, ge=2, le=50)
    seed: int = 1
    import_dir: str | None = None
    allow_validation_is_test: bool = False


# --- probing --------------------------------------------------------------------------------------


class ProbingConfig(Section):
    """How well each teacher's tiles tell tissue classes apart, without any training of ours."""

    annotations: str | None = None
    level: Level = "high"
    folds: int = Field(5, ge=2, le=50)
    tiles_per_slide: int | None = Field(200, ge=1)
    min_cover: Fraction = 0.5
    members: int = Field(30, ge=0)
    neighbours: tuple[Annotated[int, Field(ge=1)], ...] = (1, 20)
    shots: tuple[Annotated[int, Field(ge=1)], ...] = (1, 5, 20)
    episodes: int = Field(50, ge=2)
    portions: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (1.0,)
    bootstraps: int = Field(500, ge=50)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    seed: int = 0

    @model_validator(mode="after")
    def _pattern(self) -> ProbingConfig:
        if self.annotations is not None and "{slide_id}" not in self.annotations:
            raise ValueError("annotations: the path needs {slide_id}, one file a slide")
        return self


# --- tasks ----------------------------------------------------------------------------------------


class SurvivalTask(Section):
    type: Literal["survival"]
    time: str
    event: str
    unit: str = "months"
    loss: Literal["nll", "cox", "ranking"] = "nll"
    bins: int = Field(4, ge=2, le=30)
    alpha: Fraction = 0.4
    ties: Literal["breslow", "efron"] = "efron"
    auxiliary: dict[Name, Weight] = Field(default_factory=dict)


class ClassificationTask(Section):
    type: Literal["classification"]
    label: str
    classes: list[str] | None = None
    class_weights: bool = True
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    auxiliary: dict[Name, Weight] = Field(default_factory=dict)


class RegressionTask(Section):
    type: Literal["regression"]
    targets: list[str] = Field(min_length=1)
    auxiliary: dict[Name, Weight] = Field(default_factory=dict)


TaskConfig = Annotated[
    SurvivalTask | ClassificationTask | RegressionTask, Field(discriminator="type")
]


# --- training -------------------------------------------------------------------------------------

AGGREGATORS = (
    "mean_pool",
    "max_pool",
    "abmil",
    "gated_abmil",
    "clam_sb",
    "dsmil",
    "chowder",
    "transmil",
    "hiptmil",
    "transformer",
)
Aggregator = Literal[
    "mean_pool",
    "max_pool",
    "abmil",
    "gated_abmil",
    "clam_sb",
    "dsmil",
    "chowder",
    "transmil",
    "hiptmil",
    "transformer",
]


class DistillationConfig(Section):
    """What the student learns from its teachers' features besides the labels."""

    weight: float = Field(0.05, ge=0)
    targets: Literal["whitened", "learned", "attached"] = "whitened"
    huber_delta: float = Field(1.0, gt=0)
    prediction_weight: float = Field(0.0, ge=0)


class SingleModel(Section):
    """One teacher, one aggregator. `teacher: each` makes one model per teacher."""

    kind: Literal["single"]
    teacher: str = "each"
    aggregator: Aggregator = "abmil"
    level: Level = "high"
    d_model: int = Field(128, ge=8)
    dropout: Fraction = 0.25
    faithful: bool = False


class ShazamV1Model(Section):
    kind: Literal["shazam_v1"]
    d_model: int = Field(128, ge=8)
    layers: int = Field(2, ge=1)
    heads: int = Field(1, ge=1)
    dropout: Fraction = 0.25
    teacher_dropout: Fraction = 0.2
    distillation: DistillationConfig = DistillationConfig()

    @model_validator(mode="after")
    def _no_predictions(self) -> ShazamV1Model:
        if self.distillation.prediction_weight:
            raise ValueError(
                "distillation.prediction_weight: only `shazam_v2` with a `fallback` has "
                "the teachers' out-of-fold predictions to learn from"
            )
        return self


class ShazamV2Model(Section):
    kind: Literal["shazam_v2"]
    d_model: int = Field(128, ge=8)
    layers: int = Field(2, ge=1)
    heads: int = Field(1, ge=1)
    levels: tuple[Level, ...] = ("low", "mid", "high")
    gate: Literal["after_norm", "before_norm", "off"] = "after_norm"
    dropout: Fraction = 0.25
    teacher_dropout: Fraction = 0.2
    drop_teachers: tuple[str, ...] = ()
    fallback: Literal["both", "stacked", "joint", "off"] = "both"
    faithful: bool = False
    distillation: DistillationConfig = DistillationConfig()

    @model_validator(mode="after")
    def _predictions(self) -> ShazamV2Model:
        if self.distillation.prediction_weight and (self.fallback == "off" or self.faithful):
            raise ValueError(
                "distillation.prediction_weight: the teachers' out-of-fold predictions come from "
                "`fallback`, which is off"
            )
        return self


class FusionModel(Section):
    """All teachers: `concat` of pooled vectors before the head, or `mean` of per-teacher heads.

    `sized_as` names a student: d_model is then chosen so that both have as many parameters. In
    `Config.model_specs` the name is replaced by that student's config.
    """

    kind: Literal["concat", "mean"]
    aggregator: Aggregator = "abmil"
    level: Level = "high"
    d_model: int = Field(128, ge=8)
    dropout: Fraction = 0.25
    faithful: bool = False
    sized_as: Name | ShazamV1Model | ShazamV2Model | None = None


ModelConfig = Annotated[
    SingleModel | FusionModel | ShazamV1Model | ShazamV2Model,
    Field(discriminator="kind"),
]


GRID_KEYS = (
    "learning_rate",
    "weight_decay",
    "batch_size",
    "tiles_per_step",
    "max_tiles_per_case",
    "standardise",
)


class NestedConfig(Section):
    """Nested cross-validation: what is tried on the inner folds, and what decides."""

    grid: dict[str, tuple[bool | int | float | str | None, ...]] = {
        "learning_rate": (1e-3, 1e-4),
        "weight_decay": (0.0, 1e-4),
    }
    criterion: Literal["metric", "loss"] = "metric"

    @model_validator(mode="after")
    def _values(self) -> NestedConfig:
        for key, values in self.grid.items():
            if not values:
                raise ValueError(f"grid.{key}: an empty list leaves nothing to try")
        return self

    def points(self) -> list[dict[str, Any]]:
        """Every combination of the grid's values, the last key fastest."""
        return [
            dict(zip(self.grid, values, strict=True))
            for values in itertools.product(*self.grid.values())
        ]


class TrainingConfig(Section):
    models: dict[Name, ModelConfig] = Field(default_factory=dict)
    ablations: dict[Name, ModelConfig] = Field(default_factory=dict)
    epochs: int = Field(60, ge=1)
    patience: int = Field(15, ge=1)
    batch_size: int = Field(16, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    max_tiles_per_case: int | None = Field(4096, ge=1)
    tiles_per_step: int | None = Field(None, ge=1)
    standardise: bool = True
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    attention_cases_per_fold: int = Field(2, ge=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    nested: NestedConfig | None = None
    tensorboard: bool = False

    def at(self, point: Mapping[str, Any], model: Any) -> tuple[TrainingConfig, Any]:
        """Training settings and model at a point of the nested grid.

        A key is one of GRID_KEYS or a key of the model (`distillation.weight`); one that the model
        does not have leaves it as it is.

        Raises:
            ValidationError: a value is not one that the key takes.
        """
        own = {key: value for key, value in point.items() if key in GRID_KEYS}
        settings = TrainingConfig.model_validate({**self.model_dump(), **own})
        spec = model.model_dump()
        for key, value in point.items():
            *path, last = key.split(".")
            node: Any = spec
            for part in path:
                node = node.get(part) if isinstance(node, dict) else None
            if key not in own and isinstance(node, dict) and last in node:
                node[last] = value
        return settings, type(model).model_validate(spec)


# --- evaluation, report ---------------------------------------------------------------------------


class EvaluationConfig(Section):
    student: str = "shazam_v2"
    bootstraps: int = Field(1000, ge=50)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    cutoff: Literal["median", "tertiles"] = "median"
    horizons: tuple[float, ...] = ()
    seed: int = 0


class ReportConfig(Section):
    title: str = "Shazam report"
    thumbnails: int = Field(12, ge=0)
    attention_cases: int = Field(4, ge=0)


class Config(Section):
    """The whole config, in the order of the work."""

    cohort: CohortConfig = CohortConfig()
    tiling: TilingConfig = TilingConfig()
    extraction: ExtractionConfig = ExtractionConfig()
    mapping: MappingConfig = MappingConfig()
    probing: ProbingConfig | None = None
    tasks: dict[Name, TaskConfig] = Field(default_factory=dict)
    folds: FoldsConfig = FoldsConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    report: ReportConfig = ReportConfig()

    @model_validator(mode="after")
    def _references(self) -> Config:
        teachers = set(self.extraction.teachers)
        for name, model in {**self.training.models, **self.training.ablations}.items():
            named: tuple[str, ...] = ()
            if isinstance(model, SingleModel) and model.teacher != "each":
                named = (model.teacher,)
            elif isinstance(model, ShazamV2Model):
                named = model.drop_teachers
            for teacher in named:
                if teacher not in teachers:
                    raise ValueError(
                        f"training: model `{name}` names the teacher `{teacher}`, which is not in "
                        f"extraction.teachers{nearest(teacher, teachers)}"
                    )
        grouped = [teacher for group in self.extraction.together for teacher in group]
        for teacher in grouped:
            facts = self.extraction.teachers.get(teacher)
            if facts is None:
                raise ValueError(
                    f"extraction.together: `{teacher}` is not in extraction.teachers"
                    f"{nearest(teacher, teachers)}"
                )
            if facts.source == "import":
                raise ValueError(f"extraction.together: `{teacher}` is imported, not run on tiles")
            if grouped.count(teacher) > 1:
                raise ValueError(f"extraction.together: `{teacher}` stands in it twice")
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
            raise ValueError(f"training: {sorted(both)} stand in both models and ablations")
        models = self.model_specs()
        if models and self.evaluation.student not in models:
            raise ValueError(
                f"evaluation.student is `{self.evaluation.student}`, which is not one of the "
                f"models{nearest(self.evaluation.student, models)}"
            )
        return self

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

    def _sizes_exist(self) -> None:
        known = {**self.training.models, **self.training.ablations}
        students = [n for n, m in known.items() if isinstance(m, ShazamV1Model | ShazamV2Model)]
        for name, model in known.items():
            sized_as = model.sized_as if isinstance(model, FusionModel) else None
            if isinstance(sized_as, str) and sized_as not in students:
                raise ValueError(
                    f"training: model `{name}` is sized_as `{sized_as}`, which is not one of the "
                    f"students{nearest(sized_as, students)}"
                )

    def model_specs(self, ablations: bool = True) -> dict[str, Any]:
        """Every model that will be trained, by name, with `teacher: each` expanded.

        A single model that is expanded is called `<name>_<teacher>`. A fusion that is `sized_as` a
        student carries that student's config.
        """
        specs: dict[str, Any] = {}
        named = {**self.training.models, **(self.training.ablations if ablations else {})}
        for name, model in named.items():
            if isinstance(model, SingleModel) and model.teacher == "each":
                for teacher in self.extraction.teachers:
                    specs[f"{name}_{teacher}"] = model.model_copy(update={"teacher": teacher})
            elif isinstance(model, FusionModel) and isinstance(model.sized_as, str):
                student = {**self.training.models, **self.training.ablations}[model.sized_as]
                specs[name] = model.model_copy(update={"sized_as": student})
            else:
                specs[name] = model
        return specs


def _paths(section: Section) -> list[str]:
    """The keys of a section, those of its own sections with a dot."""
    found = []
    for key in type(section).model_fields:
        value = getattr(section, key)
        inner = [f"{key}.{path}" for path in _paths(value)] if isinstance(value, Section) else []
        found += inner or [key]
    return found


# --- reading --------------------------------------------------------------------------------------


def nearest(word: str, known: Any) -> str:
    """` (did you mean …?)` with the closest known word, or the list of what is known."""
    known = sorted(map(str, known))
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean `{close[0]}`?"
    return f"; known: {', '.join(known[:40])}" if known else ""


def parse(data: Mapping[str, Any], source: str = "config") -> Config:
    """Check a config that was read from YAML.

    Raises:
        ConfigError: a key is unknown, missing or of the wrong kind. All findings are listed.
    """
    if not _is_small(data):
        raise ConfigError(
            f"{source}: more than {MAX_VALUES:,} values, as YAML aliases of aliases make; write "
            "out what is meant"
        )
    try:
        return Config.model_validate(dict(data))
    except ValidationError as error:
        raise ConfigError(_explain(error, source)) from None


def _is_small(data: Any) -> bool:
    """Whether the values, with aliases spelt out, are few; counted no further than the limit."""
    todo, seen = [data], 0
    while todo:
        value = todo.pop()
        seen += 1
        if seen > MAX_VALUES:
            return False
        if isinstance(value, Mapping):
            todo += value.values()
        elif isinstance(value, list | tuple):
            todo += value
    return True


def load(path: str | Path) -> Config:
    """Read and check a YAML config file.

    Raises:
        ConfigError: the file is missing, is not YAML, or does not fit the schema.
    """
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(data, Mapping):
        raise ConfigError(f"{path}: a config is a mapping of sections, this is {type(data)}")
    return parse(data, str(path))


def _explain(error: ValidationError, source: str) -> str:
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"]) or "top level"
        if item["type"] == "extra_forbidden":
            hint = nearest(str(item["loc"][-1]), _known_keys(item["loc"][:-1]))
            lines.append(f"{where}: unknown key{hint}")
        else:
            given = item.get("input")
            shown = f" (given: {given!r})" if isinstance(given, str | int | float) else ""
            lines.append(f"{where}: {item['msg'].removeprefix('Value error, ')}{shown}")
    return f"{source}: {len(lines)} problem(s)\n" + "\n".join(f"  - {line}" for line in lines)


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    """The keys that are allowed at a location of the schema (walks the JSON schema)."""
    schema = Config.model_json_schema()
    node: Any = schema
    for part in location:
        node = _resolve(node, schema)
        options = node.get("oneOf") or node.get("anyOf")
        if options:
            tagged = [o for o in options if str(part) in json.dumps(_tags(_resolve(o, schema)))]
            node = (tagged or options)[0]
            if tagged:
                continue
            node = _resolve(node, schema)
        if part in node.get("properties", {}):
            node = node["properties"][part]
        elif node.get("patternProperties"):
            (node,) = node["patternProperties"].values()
        elif isinstance(node.get("additionalProperties"), dict):
            node = node["additionalProperties"]
    return list(_resolve(node, schema).get("properties", {}))


def _resolve(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    return node


def _tags(node: dict[str, Any]) -> list[Any]:
    properties = node.get("properties", {})
    tag = properties.get("type") or properties.get("kind") or {}
    return [tag.get("const"), *tag.get("enum", [])]
