"""`vision_language:`, what a slide says when it is asked in words."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from pipeline.config.section import Name, Section
from pipeline.config.tasks import TaskConfig

MARK = "{}"
EMBEDDED = "embedded"  # captions that put the embedded cohort's hidden states into words
# Sentences around a class's name. Several are averaged, since one wording alone decides too much.
TEMPLATES = (
    "{}",
    "{}.",
    "a slide of {}",
    "tissue with {}",
    "histology of {}",
    "this field shows {}",
    "{} is seen here",
    "a micrograph of {}",
    "H&E stain of {}",
    "{}, haematoxylin and eosin",
    "a tile of {} under the microscope",
    "features of {} are present",
)
Synonyms = Annotated[tuple[str, ...], Field(min_length=1)]


class VisionLanguageConfig(Section):
    """Zero-shot predictions, maps and retrieval with the teachers that have a text tower."""

    prompts: dict[Name, dict[str, Synonyms]] = Field(default_factory=dict)
    templates: tuple[str, ...] = Field(TEMPLATES, min_length=1)
    top_k: tuple[Annotated[int, Field(ge=0)], ...] = Field((1, 5, 10, 50, 100), min_length=1)
    smoothing: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 8), min_length=1)
    draws: int = Field(50, ge=2)
    shots: tuple[Annotated[int, Field(ge=1)], ...] = (1, 2, 4, 8, 16)
    episodes: int = Field(20, ge=2)
    maps: int = Field(4, ge=0)
    retrieved: int = Field(8, ge=1)
    tissue: dict[str, Synonyms] = Field(default_factory=dict)
    captions: str | None = None
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _one_synonym(cls, data: Any) -> Any:
        """`glandular: glands` is short for a list of one."""

        def listed(classes: Any) -> Any:
            if not isinstance(classes, dict):
                return classes
            return {str(k): [v] if isinstance(v, str) else v for k, v in classes.items()}

        if isinstance(data, dict):
            data = dict(data)
            if isinstance(data.get("prompts"), dict):
                data["prompts"] = {task: listed(c) for task, c in data["prompts"].items()}
            if "tissue" in data:
                data["tissue"] = listed(data["tissue"])
        return data

    @model_validator(mode="after")
    def _prompts(self) -> VisionLanguageConfig:
        for template in self.templates:
            if template.count(MARK) != 1:
                raise ValueError(
                    f"templates: `{template}` must have {MARK} once, where the class's name goes"
                )
        for where, classes in {**self.prompts, "tissue": self.tissue}.items():
            if len(classes) == 1:
                raise ValueError(f"{where}: one class alone cannot be told from others")
            for name, synonyms in classes.items():
                if not all(word.strip() for word in synonyms):
                    raise ValueError(f"{where}: class `{name}` has an empty synonym")
        return self


class VisionLanguageJob(Section):
    """One teacher, asked in words.

    Attributes:
        teachers: its settings by its name.
        weights_dir: folder of local weights.
        tasks: those with prompts.
        seeds: under which its predictions stand beside those of trained models.
        facts: its row of the registry.
        captions: digest of the file of captions.
        embedded: folder of the embedded cohort, where its hidden states are put into words.
        tiles: the folder of the teacher's tiles, where they are.
    """

    vision_language: VisionLanguageConfig
    teachers: dict[Name, Any]
    weights_dir: str | None
    tasks: dict[Name, TaskConfig]
    seeds: tuple[int, ...]
    facts: dict[str, Any]
    captions: str = ""
    embedded: str = ""
    tiles: str = ""
