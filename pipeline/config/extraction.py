"""`extraction:`, the teachers and how they are run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from pipeline.config.section import Count, Level, Name, Section

SLIDE_KEYS = ("input", "layers", "max_tiles")


class TeacherConfig(Section):
    """One teacher: an encoder we run (a row of the registry, whose weights are on a hub or in an
    installed Python package; any model of `timm` or `open_clip`; one of whole slides; or one that
    the pipeline made, in its folder), or imported features."""

    source: Literal["registry", "package", "timm", "open_clip", "slide", "folder", "import"] = (
        "registry"
    )
    model: str | None = None
    weights: Literal["hub", "local", "random", "package"] = "hub"
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
    input: Name | None = None
    layers: tuple[int, ...] = ()
    max_tiles: Count | None = None

    @model_validator(mode="after")
    def _complete(self) -> TeacherConfig:
        if self.source == "import" and not self.path:
            raise ValueError("source: import needs `path:`, the folder of feature files")
        if self.source == "timm" and not self.model:
            raise ValueError("source: timm needs `model:`, a timm model name")
        if self.source == "folder" and not self.path:
            raise ValueError("source: folder needs `path:`, a folder `teachers/<name>`")
        if self.source == "slide" and self.path and self.weights != "local":
            raise ValueError("a slide encoder with `path:` has its weights in that folder")
        if self.source == "folder" and self.weights != "local":
            raise ValueError("source: folder has its weights in that folder")
        if self.weights == "package" and self.source != "package":
            raise ValueError("weights: package goes with source: package")
        if self.weights == "hub" and self.source == "package":
            raise ValueError("source: package has its weights from a Python package, not a hub")
        if self.source == "open_clip" and not self.model and self.weights != "local":
            raise ValueError(
                "source: open_clip needs `model:`, e.g. ViT-B-32/laion2b_s34b_b79k or "
                "hf-hub:owner/name"
            )
        ours = [key for key in SLIDE_KEYS if getattr(self, key)]
        if self.source != "slide" and ours:
            raise ValueError(f"`{ours[0]}` is for slide encoders alone (source: slide)")
        if self.source == "slide" and (self.input_px or self.tile_px or self.target_mpp):
            raise ValueError(
                "source: slide reads features of tiles: their size is for its input teacher"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _weights_of_source(cls, data: Any) -> Any:
        own = {"package": "package", "folder": "local"}
        if isinstance(data, Mapping) and data.get("source") in own:
            return {"weights": own[data["source"]], **data}
        if isinstance(data, Mapping) and data.get("source") == "slide" and data.get("path"):
            return {"weights": "local", **data}
        return data

    @property
    def made_here(self) -> bool:
        """Whether it is a folder with weights and a row that the pipeline made."""
        return self.source == "folder" or (self.source == "slide" and bool(self.path))

    @property
    def in_registry(self) -> bool:
        """Whether a row of the registry says what it is."""
        return self.source in ("registry", "package")


class ExtractionConfig(Section):
    teachers: dict[Name, TeacherConfig] = Field(default_factory=dict)
    levels: tuple[Level, ...] = ("low", "mid", "high")
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto"
    compile: bool = False
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
                    raise ValueError("teachers: the same name is twice in the list")
                teachers = {str(t): {} for t in teachers}
            if isinstance(teachers, Mapping):
                teachers = {k: {} if v is None else v for k, v in teachers.items()}
            data = {**data, "teachers": teachers}
        return data
