"""One slide as the sheet states it, or as the embedded cohort plans it. Standard library only."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class SlideRow:
    """One slide of the cohort.

    Attributes:
        slide_id: unique; names every file that is made of the slide.
        case_id: the patient.
        path: absolute path of the slide file; '' where there is none (imported features).
        mpp: the user's microns per pixel at level 0, which overrides the file; None: the file's.
        site: hospital, '' where unknown.
        mask: absolute path of a GeoJSON or mask image that replaces the segmentation, or ''.
        coordinates: absolute path of a TRIDENT or CLAM file that replaces the grid, or ''.
        labels: the other columns as text; '' where the sheet has no value.
        row: row in the sheet as a spreadsheet counts (the header is 1), for messages.
    """

    slide_id: str
    case_id: str
    path: str
    mpp: float | None
    site: str
    mask: str
    coordinates: str
    labels: dict[str, str]
    row: int = dataclasses.field(default=0, compare=False)
