"""What a job of a slide encoder is told; its settings stand among `extraction.teachers`."""

from __future__ import annotations

from typing import Any

from pipeline.config.extraction import ExtractionConfig
from pipeline.config.section import Section


class SlideEncodersJob(Section):
    """One slide encoder, of one chunk.

    Attributes:
        extraction: with this teacher alone.
        input: the tile teacher that it reads.
        manifests: folder of `features/` with that teacher's manifests.
        facts: the encoder's row of the registry, and which file its local weights are.
    """

    extraction: ExtractionConfig
    input: str
    manifests: str
    facts: dict[str, Any]
