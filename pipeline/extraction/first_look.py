"""What imported feature files say of themselves, compared before any work starts.

Their numbers are read by the import's own job; a folder with files of two encoders or widths is
refused here, when the workflow is parsed. Each file is opened once, and again when it has changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.contracts.ledger import Record
from pipeline.contracts.same_features import DIMS, ENCODER, check_same_features
from pipeline.errors import ArtifactError
from pipeline.files.recall import Recall, file_state

LIGHT = (".h5", ".hdf5", ".npy")  # those of torch would need torch


def check_alike(teacher: str, files: Mapping[str, Path | None], recall: Recall) -> None:
    """Compare the widths of a teacher's files, and the encoders that they name.

    Args:
        teacher: its name.
        files: slide_id to file; what is missing or damaged is for the ledger, not for this.
        recall: what earlier parses found.

    Raises:
        ArtifactError: the files differ; lists those of the smaller groups.
    """
    records = []
    for slide_id, path in files.items():
        if path is None or path.suffix.lower() not in LIGHT or not path.is_file():
            continue
        state, settled = file_state(path)
        said = recall.answer(f"features of {state}", partial(_says, path), keep=settled)
        if said is not None:
            facts = {DIMS: said[0], ENCODER: said[1]}
            records.append(Record(slide_id, teacher, "ok", path=str(path), facts=facts))
    check_same_features(teacher, records)


def _says(path: Path) -> list[Any] | None:
    """Widths by level, and the encoder; None of a file that cannot be used."""
    from pipeline.bags.files import open_features

    try:
        found = open_features(path)
    except ArtifactError:
        return None
    return [found.dims, found.encoder]
