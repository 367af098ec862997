"""Feature files for other tools: CLAM, TRIDENT, STAMP and HIPT read what is written here.

| tool | files | features | coordinates |
|---|---|---|---|
| `clam` | `pt_files/`, `h5_files/`, `patches/` | float32 | level-0 px, read at `patch_level` |
| `trident` | `<mag>x_<px>px_<overlap>px_overlap/features_<teacher>/` | float32 | level-0 px |
| `stamp` | `<teacher>/` | float16, `feats` | µm |
| `hipt` | `<slide>.pt` | float32 (regions, 256, 384), zeros where a region has no tissue | none |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.bags.files import FeatureFile, open_features, read_coords, read_level
from pipeline.contracts import ledger
from pipeline.errors import ArtifactError, UserError
from pipeline.files.artifacts import atomic_path
from pipeline.files.hdf5 import read_hdf5, write_hdf5
from pipeline.runtime import progress

Tool = Literal["clam", "trident", "stamp", "hipt"]
PLACES = 256  # patches of a region of HIPT


def run(*, root: Path, teacher: str, tool: Tool, out: Path, level: str = "high") -> list[Path]:
    """Export all slides of a teacher.

    Args:
        root: the cohort's results folder.
        teacher: whose features; must have been extracted here.
        tool: the tool that will read it.
        out: the folder to write to.
        level: low, mid or high.

    Returns:
        the folders and files made, for a message.

    Raises:
        UserError: the teacher has no features here.
        ArtifactError: a feature file is damaged or lacks the level.
    """
    # `a+b/manifest` speaks of teachers that were extracted together.
    manifests = sorted(
        path
        for path in (root / "features").glob("*/manifest/*.json")
        if teacher in path.parent.parent.name.split("+")
    )
    stage = f"extraction/{teacher}"
    found = [r for r in ledger.read_manifests(manifests) if (r.stage, r.status) == (stage, "ok")]
    records = list({record.slide_id: record for record in found}.values())
    if not records:
        raise UserError(f"teacher `{teacher}` has no features in {root}; run the extraction first")
    made: list[Path] = []
    for record in progress.counted(records, "slides"):
        made += export(root / record.path, record.slide_id, teacher, tool, out, level)
    return made


def export(
    path: Path, slide_id: str, teacher: str, tool: Tool, out: Path, level: str = "high"
) -> list[Path]:
    """Export one slide's feature file.

    Args:
        path: the feature file.
        slide_id: the slide.
        teacher: the teacher's name.
        tool: for which tool.
        out: the folder to write to.
        level: which of the file's levels.

    Raises:
        ArtifactError: the file is damaged, lacks the level, or has no coordinates.
    """
    file = open_features(path)
    if tool == "hipt":
        return [_hipt(file, slide_id, out)]
    coords = read_coords(file)
    if coords is None:
        raise ArtifactError(f"{path}: has no pixel coordinates, which {tool} needs")
    features = read_level(file, level)
    return _WRITERS[tool](features, coords, grid_attributes(file), slide_id, teacher, out)


def grid_attributes(file: FeatureFile) -> dict[str, Any]:
    """What a feature file says of its tiles: sizes, scale, level.

    Raises:
        ArtifactError: it says too little for other tools to read the tiles.
    """
    with read_hdf5(file.path) as handle:
        found = dict(handle["coords"].attrs)
    needed = {"patch_size", "patch_size_level0", "tile_px", "target_mpp", "mpp_level0"}
    missing = needed - found.keys()
    if missing:
        raise ArtifactError(f"{file.path}: its coordinates lack {sorted(missing)}")
    return found


def _hipt(file: FeatureFile, slide_id: str, out: Path) -> Path:
    """Regions as HIPT's own training reads them; the marks of places without tissue are left out.

    Raises:
        ArtifactError: the file's rows are no regions.
    """
    import torch

    with read_hdf5(file.path) as handle:
        pooling = handle.attrs.get("pooling")
    if pooling != "patches":
        raise ArtifactError(
            f"{file.path}: its rows are no regions of {PLACES} patches; HIPT's layout needs a "
            "teacher hipt_vit4k with pooling: patches"
        )
    rows = torch.from_numpy(read_level(file)[:, :-PLACES].astype(np.float32))
    path = out / f"{slide_id}.pt"
    with atomic_path(path) as temporary:
        torch.save(rows.unflatten(1, (PLACES, -1)).contiguous(), temporary)
    return path


def _clam(
    features: np.ndarray,
    coords: np.ndarray,
    grid: Mapping[str, Any],
    slide_id: str,
    teacher: str,
    out: Path,
) -> list[Path]:
    import torch

    values = features.astype(np.float32)
    tensor, data, patches = (
        out / folder / f"{slide_id}.{suffix}"
        for folder, suffix in (("pt_files", "pt"), ("h5_files", "h5"), ("patches", "h5"))
    )
    with atomic_path(tensor) as temporary:
        torch.save(torch.from_numpy(values), temporary)
    _write_hdf5(data, {"features": values, "coords": coords}, {})
    downsample = float(grid["read_downsample"])
    level_dim = np.array(
        [round(int(grid[side]) / downsample) for side in ("level0_width", "level0_height")]
    )
    attributes = {
        "patch_size": int(grid["read_px"]),
        "patch_level": int(grid["read_level"]),
        "downsample": np.array([downsample, downsample]),
        "downsampled_level_dim": level_dim,
        "level_dim": level_dim,
        "name": slide_id,
        "save_path": "",
    }
    _write_hdf5(patches, {"coords": coords}, {"coords": attributes})
    return [tensor, data, patches]


def _trident(
    features: np.ndarray,
    coords: np.ndarray,
    grid: Mapping[str, Any],
    slide_id: str,
    teacher: str,
    out: Path,
) -> list[Path]:
    folder = f"{grid['target_magnification']}x_{grid['patch_size']}px_{grid['overlap']}px_overlap"
    path = out / folder / f"features_{teacher}" / f"{slide_id}.h5"
    named = {"name": slide_id, "savetodir": ""}
    keys = (
        *("patch_size", "patch_size_level0", "level0_magnification", "target_magnification"),
        *("overlap", "level0_width", "level0_height"),
    )
    _write_hdf5(
        path,
        {"features": features.astype(np.float32), "coords": coords.astype(np.int64)},
        {
            "features": {**named, "encoder": teacher},
            "coords": {**{key: grid[key] for key in keys}, **named},
        },
    )
    return [path]


def _stamp(
    features: np.ndarray,
    coords: np.ndarray,
    grid: Mapping[str, Any],
    slide_id: str,
    teacher: str,
    out: Path,
) -> list[Path]:
    path = out / teacher / f"{slide_id}.h5"
    attributes = {
        "extractor": teacher,
        "unit": "um",
        "tile_size_um": float(grid["patch_size_level0"]) * float(grid["mpp_level0"]),
        "tile_size_px": int(grid["tile_px"]),
        "feat_type": "tile",
    }
    microns = coords.astype(np.float64) * float(grid["mpp_level0"])
    _write_hdf5(path, {"feats": features.astype(np.float16), "coords": microns}, {"": attributes})
    return [path]


_WRITERS: dict[str, Callable[..., list[Path]]] = {
    "clam": _clam,
    "trident": _trident,
    "stamp": _stamp,
}


def _write_hdf5(
    path: Path,
    datasets: Mapping[str, np.ndarray],
    attributes: Mapping[str, Mapping[str, Any]],
) -> None:
    """Datasets with their attributes (the file's own under the empty name)."""
    with atomic_path(path) as temporary, write_hdf5(temporary) as file:
        for name, values in datasets.items():
            file.create_dataset(name, data=values)
        for name, facts in attributes.items():
            (file[name] if name else file).attrs.update(facts)
