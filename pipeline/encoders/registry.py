"""The models that the pipeline knows, as rows of facts in `registry.yaml`; no torch, no timm.

The Snakefile checks teacher names here at parse time, so that this imports nothing slow.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping, Set
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import yaml

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.config.extraction import TeacherConfig

PATH = Path(__file__).with_name("registry.yaml")
ROW = "row.json"  # of an encoder that the pipeline made, beside its weights

# What a model's weights file may be called.
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")

# Facts of a row that people read or that decide whether it may run, and where its weights are.
WORDS = {"title", "licence", "gated", "derivative_restricted", "note", "mpp", "params", "package"}
PLACES = {"hf_id", "revision", "file", "distribution", "url", "sha256"}

# The level that a vision-language teacher has besides the others: its projection, to length 1, as
# text is compared with it.
ALIGNED = "aligned"

Loader = Literal["timm", "remote", "none"]
Pooling = Literal["cls", "cls_mean", "mean", "registers", "stage", "proj", "model"]
R = TypeVar("R", bound="Row")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """What the row of any model says, of tiles or of slides.

    Attributes:
        name: the teacher's name in the config.
        title: its name as its authors write it.
        loader: `timm` (built here), `remote` (its authors' code, in the environment `env`), or
            `none` (cannot be run here; the note says why).
        arch: timm architecture, or a builder's name of `pipeline.encoders.architectures`; of a
            slide encoder one of `pipeline.encoders.slide_level.build`.
        kwargs: arguments for the architecture.
        hf_id: repository on the Hugging Face hub; empty if its weights are elsewhere.
        revision: commit of that repository; `main` where no commit could be verified.
        file: the weights' file name; empty for the usual ones.
        distribution: the package of the Python package index that holds the weights.
        layout: how the checkpoint names its parameters (`pipeline.encoders.checkpoint_layouts`).
        url: where the weights are if not on the hub.
        package: what it runs with, for `loader: remote`.
        env: its environment in `envs`, where that is not the one of all others.
        poolings: pooling to output dimension; the first is the authors'.
        params: parameters of what is built.
        dtype: precision that peers run it in, used for `precision: auto` on a GPU.
        licence: in short.
        gated: whether the hub asks for approval; None where sources disagree.
        derivative_restricted: the licence restricts models that are trained on outputs.
        sha256: of the weights file; empty where unknown.
        note: what a user should know.
        text: its text tower, for `pipeline.encoders.text_towers`; empty of a model without words.
    """

    name: str
    title: str
    loader: Loader
    arch: str
    poolings: dict[str, int]
    params: int
    licence: str
    gated: bool | None
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    hf_id: str = ""
    revision: str = "main"
    file: str = ""
    distribution: str = ""
    layout: str = "timm"
    url: str = ""
    package: str = ""
    env: str = ""
    dtype: Literal["fp32", "fp16", "bf16"] = "fp16"
    derivative_restricted: bool = False
    sha256: str = ""
    note: str = ""
    text: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def pooling(self) -> str:
        """The authors' pooling."""
        return next(iter(self.poolings))

    @property
    def dim(self) -> int:
        """Output dimension with the authors' pooling."""
        return self.poolings[self.pooling]

    def facts(self, leave_out: Set[str] = WORDS) -> dict[str, Any]:
        """The row as plain values, without those that are as for most models: another word in a
        note, or a new kind of fact, makes no features stale."""
        return {
            field.name: value
            for field in dataclasses.fields(self)
            if field.name not in leave_out
            and (value := getattr(self, field.name)) not in _defaults(field)
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model(Row):
    """A tile encoder: everything needed to build it, feed it and read it, without its weights.

    Attributes:
        resize, crop: tile side in pixels after resizing, and after the centre crop.
        interp: bilinear or bicubic.
        mean, std: per channel, for values in 0…1.
        mpp: µm per pixel that the authors use, e.g. (0.5,).
        tokens: prefix tokens (class and registers) before the patch tokens; 0 for CNNs and Swin.
        patch: side of a patch in pixels; 0 for CNNs.
        depth: blocks, or stages; 0: none, so that there is the level `high` alone.
        taps: 0-based blocks (stages) after which `low` and `mid` are taken.
    """

    resize: int
    crop: int
    interp: Literal["bilinear", "bicubic"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    mpp: tuple[float, ...]
    depth: int
    taps: tuple[int, int]
    tokens: int = 0
    patch: int = 0


@lru_cache(maxsize=1)
def models() -> dict[str, Model]:
    """All rows of `registry.yaml` by name.

    Raises:
        ConfigError: a row lacks a fact or has an unknown one; names the row.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    data = yaml.load(PATH.read_text(), Loader=loader)
    return {name: _row(name, row, data["statistics"]) for name, row in data["models"].items()}


def resolve(name: str) -> Model:
    """The row of a model.

    Raises:
        ConfigError: there is none; suggests the nearest names.
    """
    return nearest_row(
        name,
        models(),
        "no such model in the registry",
        "`python -m pipeline teachers` lists all; any timm model goes by `source: timm` with "
        "`model:`",
    )


def nearest_row(name: str, known: Mapping[str, R], problem: str, remedy: str) -> R:
    """The row of a name.

    Args:
        name: a teacher's name, or the `model:` of one.
        known: rows by name.
        problem, remedy: of the message where there is none.

    Raises:
        ConfigError: there is none; suggests the nearest names.
    """
    if name in known:
        return known[name]
    wanted = _plain(name)
    same = [k for k in known if _plain(k) == wanted]
    close = same or [
        k
        for k in known
        if _plain(k) in difflib.get_close_matches(wanted, map(_plain, known), n=3, cutoff=0.55)
    ]
    hint = f"did you mean {' or '.join(f'`{k}`' for k in close)}?" if close else "it is not known."
    raise ConfigError(f"teacher `{name}`: {problem}; {hint} {remedy}")


def row_of(name: str, cfg: TeacherConfig) -> Model | None:
    """The row of a configured teacher; None of one that has none, e.g. any model of timm.

    Args:
        name: the teacher's name in the config.
        cfg: its settings.

    Raises:
        ConfigError: there is no such model, or the folder has no row.
    """
    if cfg.source == "folder":
        return read_row(Path(str(cfg.path)).expanduser())
    return resolve(cfg.model or name) if cfg.in_registry else None


def read_row(folder: Path) -> Model:
    """The row of an encoder that the pipeline made.

    Args:
        folder: `teachers/<name>`.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    path = folder / ROW
    try:
        facts = json.loads(path.read_text())
        for name in ("mean", "std", "mpp", "taps"):
            facts[name] = tuple(facts[name])
        return Model(**facts)
    except FileNotFoundError:
        raise ConfigError(
            f"{folder}: no {ROW}, so it is no encoder that the pipeline made; give a folder "
            "`teachers/<name>` of a cohort's results"
        ) from None
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path}: damaged ({error}); make the encoder again") from None


def check(name: str, cfg: TeacherConfig) -> Model | None:
    """The row of a configured teacher, if it can be run as it is configured.

    Called when the workflow is parsed, so that nothing starts that must fail later.

    Returns:
        None of a teacher without a row.

    Raises:
        ConfigError: there is no such model, its licence restricts what is trained on its outputs
            and that is not acknowledged, or it has no such pooling.
    """
    row = row_of(name, cfg)
    if row is None:
        return None
    where = f"extraction.teachers.{name}"
    check_terms(name, cfg, row)
    if row.loader == "remote" and cfg.weights != "hub":
        raise ConfigError(
            f"{where}.weights: {row.title} runs with its authors' code, which comes from the hub "
            "with its weights; set weights: hub (they are fetched once, into the hub's cache)"
        )
    if cfg.weights == "package" and not row.distribution:
        raise ConfigError(
            f"{where}.source: no Python package has the weights of {row.title}; use "
            "source: registry"
        )
    if cfg.weights == "hub" and row.distribution and not row.hf_id:
        raise ConfigError(
            f"{where}.source: the weights of {row.title} are in the Python package "
            f"{row.distribution}; set source: package"
        )
    return row


def check_terms(name: str, cfg: TeacherConfig, row: Row) -> None:
    """What holds for any row: its licence is acknowledged, and it has the pooling.

    Args:
        name: the teacher's name.
        cfg: its settings.
        row: its row.

    Raises:
        ConfigError: it is not, or has not.
    """
    where = f"extraction.teachers.{name}"
    if row.derivative_restricted and not cfg.acknowledge_licence:
        raise ConfigError(
            f"teacher `{name}`: the licence of {row.title} ({row.licence}) restricts models that "
            "are trained on its outputs, which a distilled student is. Read it, and if your use is "
            f"covered set {where}.acknowledge_licence: true"
        )
    if cfg.pooling and cfg.pooling not in row.poolings:
        raise ConfigError(
            f"{where}.pooling: `{cfg.pooling}` is not a pooling of {row.title}; it has "
            f"{', '.join(row.poolings)}"
        )


def speaks(name: str, cfg: TeacherConfig) -> bool:
    """Whether a teacher has a text tower, so that its features can be asked for in words.

    Args:
        name: its name in the config.
        cfg: its settings.
    """
    if cfg.source == "open_clip":
        return True
    return cfg.in_registry and bool(resolve(cfg.model or name).text)


def levels_of(name: str, cfg: TeacherConfig, levels: tuple[str, ...]) -> tuple[str, ...]:
    """The levels that a teacher's files have.

    Args:
        name: its name in the config.
        cfg: its settings.
        levels: those of the config, which all teachers with blocks or stages have.
    """
    if cfg.in_registry and not resolve(cfg.model or name).depth:
        return ("high",)
    return (*levels, ALIGNED) if speaks(name, cfg) else levels


def _defaults(field: dataclasses.Field[Any]) -> list[Any]:
    if field.default_factory is not dataclasses.MISSING:
        return [field.default_factory()]
    return [] if field.default is dataclasses.MISSING else [field.default]


def _plain(name: str) -> str:
    """Lower case, letters and digits only, the hub's owner left out: `owner/UNI2-h` -> `uni2h`."""
    return "".join(c for c in name.rpartition("/")[2].lower() if c.isalnum())


def _row(name: str, row: Mapping[str, Any], statistics: Mapping[str, Any]) -> Model:
    facts = {**row}
    where = f"{PATH.name}: {name}"
    try:
        facts["mean"], facts["std"] = map(tuple, statistics[facts.pop("stats")])
        facts["poolings"] = dict(facts.pop("pooling"))
        facts["taps"] = tuple(facts["taps"])
        facts["mpp"] = tuple(facts["mpp"])
        facts.setdefault("resize", facts["crop"])
        return Model(name=name, **facts)
    except KeyError as error:
        raise ConfigError(f"{where}: lacks {error}") from None
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from None
