"""`tiling:`, the tissue and the grid of tiles over it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.section import Fraction, Section


class TissueConfig(Section):
    method: Literal["otsu", "clam", "entropy", "learned"] = "otsu"
    clam_preset: Literal["default", "tcga", "bwh_biopsy", "bwh_resection"] = "default"
    weights: str | None = None
    segmentation_mpp: float = Field(8.0, gt=0)
    min_area_um2: float = Field(5_000.0, ge=0)
    min_hole_um2: float = Field(10_000.0, ge=0)
    remove_pen: bool = True
    remove_blur: bool = True
    remove_folds: bool = False

    @model_validator(mode="after")
    def _weights_given(self) -> TissueConfig:
        if self.method == "learned" and not self.weights:
            raise ValueError("method: learned needs `weights:`, a segmentation checkpoint")
        return self


class TilingConfig(Section):
    tile_px: int = Field(224, ge=16, le=8192)
    target_mpp: float = Field(0.5, ge=0.05, le=10)
    mpp_tolerance: float = Field(0.05, ge=0, le=0.5)
    overlap_px: int = Field(0, ge=0)
    min_tissue_fraction: Fraction = 0.5
    max_pen_fraction: Fraction = 0.05
    max_blur_fraction: Fraction = 0.25
    max_fold_fraction: Fraction = 0.25
    max_tiles: int | None = Field(None, ge=1)
    mpp_policy: Literal["error", "default", "reject"] = "error"
    default_mpp: float | None = Field(None, ge=0.1, le=10)
    mpp_range: tuple[float, float] = (0.1, 10.0)
    mpp_magnification_factor: float = Field(3.0, ge=1.1)
    scene: Annotated[int, Field(ge=0)] | Literal["largest"] = "largest"
    geojson_origin: Literal["bounds", "slide"] = "bounds"
    unusual_colours: Literal["warn", "refuse", "accept"] = "warn"
    tissue: TissueConfig = TissueConfig()
    seed: int = 0

    @model_validator(mode="after")
    def _consistent(self) -> TilingConfig:
        if self.overlap_px >= self.tile_px:
            raise ValueError("overlap_px must be smaller than tile_px, or the grid never advances")
        if self.mpp_policy == "default" and self.default_mpp is None:
            raise ValueError("mpp_policy: default needs `default_mpp:` (µm per pixel)")
        if self.mpp_range[0] >= self.mpp_range[1]:
            raise ValueError("mpp_range: the first value must be smaller than the second")
        return self
