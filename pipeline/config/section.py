"""What every section of the config is made of."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Level = Literal["low", "mid", "high"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
Weight = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Width = Annotated[int, Field(ge=8)]


class Section(BaseModel):
    """A part of the config: immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    def canonical(self) -> str:
        """Sorted, compact JSON: equal configs give equal text whatever the YAML's order."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
