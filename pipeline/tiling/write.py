"""The files of one tiled slide, the HDF5 last: where it is complete, the others are there."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from pipeline.config.tiling import TilingConfig
from pipeline.contracts.ledger import Record
from pipeline.files.artifacts import atomic_path, new_hdf5
from pipeline.files.checksums import checksum, seal
from pipeline.slides.mpp import MAGNIFICATION_MPP
from pipeline.slides.polygons import moved, write_geojson
from pipeline.slides.qc import encode_jpeg, picture
from pipeline.tiling.examine import Findings

RECORD = "record"
# The dataset that holds the share of each tile which an artefact covers. It is absent where the
# artefact was not judged, and in files of other tools: nothing is known there.
SHARES = {"pen": "pen_fraction", "blur": "blur_fraction", "folds": "fold_fraction"}
POWERS = (80.0, 60.0, 40.0, 20.0, 10.0, 5.0, 2.5, 1.25)


@dataclasses.dataclass(frozen=True)
class Files:
    """Where a slide's files stand."""

    tiles: Path
    tissue: Path
    picture: Path
    thumbnail: Path

    @classmethod
    def of(cls, folder: Path, slide_id: str) -> Files:
        """The files of a slide below `tiles/`."""
        return cls(
            tiles=folder / f"{slide_id}.h5",
            tissue=folder / f"{slide_id}.geojson",
            picture=folder / "qc" / f"{slide_id}.jpg",
            thumbnail=folder / "thumbnails" / f"{slide_id}.jpg",
        )

    def remove(self) -> None:
        """Take away what an earlier run left, so that nobody uses stale tiles."""
        for path in (self.tiles, self.tissue, self.picture, self.thumbnail):
            path.unlink(missing_ok=True)


def write(
    files: Files,
    found: Findings,
    record: Record,
    cfg: TilingConfig,
    slide: Path,
    identity: str,
    fingerprint: str,
) -> None:
    """Write thumbnail, picture, outlines and tiles.

    Args:
        files: paths of what is written.
        found: tiles, tissue and artefacts.
        record: the slide's record.
        cfg: the tiling section.
        slide: the slide's file.
        identity: what its content is.
        fingerprint: digest of what decides the result.

    Raises:
        OSError: the disk is full or gone: the job's failure, not the slide's.
    """
    # The tiles of an earlier run go first: a run that is killed between two of these files, and the
    # next with the earlier run's config, must not find its tiles with the outlines of this one.
    files.tiles.unlink(missing_ok=True)
    facts = found.facts
    caption = (
        f"{record.slide_id}   {facts.n_tiles} tiles of {facts.tile_um:.4g} um   "
        f"{facts.tissue_mm2:.2f} mm2   {facts.mpp:g} um/px ({facts.mpp_source})   "
        f"pen {facts.pen_fraction:.1%}   blur {facts.blur_fraction:.1%}"
    )
    image = picture(
        found.survey,
        found.tissue,
        found.masked,
        found.tiles.coords,
        found.tiles.left_out,
        found.geometry.size0,
        caption,
    )
    for path, pixels in ((files.thumbnail, found.survey.thumbnail), (files.picture, image)):
        with atomic_path(path) as temporary:
            temporary.write_bytes(encode_jpeg(pixels))
    x, y = found.frame.origin
    write_geojson(files.tissue, moved(found.polygons, -x, -y))
    trident = trident_attributes(found, cfg, record.slide_id)
    ours = {
        "mpp_level0": facts.mpp,
        "mpp_source": facts.mpp_source,
        "target_mpp": cfg.target_mpp,
        "tile_px": cfg.tile_px,
        "tile_um": facts.tile_um,
        "scene": facts.scene,
        "scanned_window": found.frame.window,
        "geojson_origin": found.frame.origin,
        "read_level": found.geometry.level,
        "read_downsample": found.geometry.downsample,
        "read_px": found.geometry.read_px,
        "read_level_width": found.geometry.level_dimensions[0],
        "read_level_height": found.geometry.level_dimensions[1],
        "slide_path": str(slide),
        "slide_identity": identity,
        "fingerprint": fingerprint,
        RECORD: json.dumps(dataclasses.asdict(record), sort_keys=True),
    }
    with new_hdf5(files.tiles, {**trident, **ours}) as file:
        # TRIDENT and what reads its files look for the attributes on the dataset.
        coords = file.create_dataset("coords", data=found.tiles.coords)
        coords.attrs.update(trident)
        seal(coords, checksum(found.tiles.coords))
        file.create_dataset("tissue_fraction", data=found.tiles.tissue)
        for name, shares in found.tiles.artefacts.items():
            file.create_dataset(SHARES[name], data=shares)
        if found.labels is not None:
            import h5py

            file.create_dataset("label", data=found.labels, dtype=h5py.string_dtype("utf-8"))


def trident_attributes(found: Findings, cfg: TilingConfig, name: str) -> dict[str, Any]:
    """The attributes that TRIDENT writes to its `coords`.

    Args:
        found: tiles, tissue and artefacts.
        cfg: the tiling section.
        name: the slide's id.
    """
    power = found.facts.magnification
    return {
        "patch_size": cfg.tile_px,
        "patch_size_level0": found.geometry.size0,
        "level0_magnification": round(power) if power else nominal_power(found.facts.mpp),
        "target_magnification": nominal_power(cfg.target_mpp),
        "overlap": found.geometry.overlap_px,
        "name": name,
        "savetodir": "",
        "level0_width": found.facts.width,
        "level0_height": found.facts.height,
    }


def nominal_power(mpp: float) -> int | float:
    """The customary objective power nearest to a scale: 0.25 µm/px is 40x."""
    wanted = MAGNIFICATION_MPP / mpp
    power = min(POWERS, key=lambda p: max(p / wanted, wanted / p))
    return int(power) if power == int(power) else power
