"""What every section of the config is made of."""

from __future__ import annotations

import json
from collections.abc import Set
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

    def canonical(self, exclude: Set[str] = frozenset()) -> str:
        """Sorted, compact JSON: equal configs give equal text whatever the YAML's order.

        Keys with their default value are left out, so that a new key makes no result stale. Who
        changes a default, therefore, raises the version of what it decides.

        Args:
            exclude: keys of this section to leave out.
        """
        facts = self.model_dump(mode="json", exclude_defaults=True, exclude=set(exclude))
        return json.dumps(facts, sort_keys=True, separators=(",", ":"))
