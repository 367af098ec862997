"""Rows of slide encoders: facts that fit what is built, weights loaded strictly, and refusals that
say what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.config.extraction import TeacherConfig
from pipeline.config.whole import Config
from pipeline.encoders import teachers, tile_scales
from pipeline.encoders.slide_level import build as building
from pipeline.encoders.slide_level import inputs, remote
from pipeline.encoders.slide_level.build import build, encode, seeded
from pipeline.encoders.slide_level.registry import SlideModel, check, resolve, slide_models
from pipeline.encoders.weights import count_parameters
from pipeline.errors import ArtifactError, ConfigError, SlideError

ROWS = slide_models()
BUILT = [row for row in ROWS.values() if row.loader == "timm"]
FLASH = "gigapath_flash_slide"
# Published, in millions; written down a second time, so that a slip does not confirm itself.
PUBLISHED = {
    "gigapath_slide": (86.33, 768),
    FLASH: (21.5, 384),
    "hipt_vit4k": (2.78, 192),
    "madeleine": (5.0, 512),
}


def cfg(**more: Any) -> TeacherConfig:
    return TeacherConfig.model_validate({"source": "slide", "weights": "random", **more})


def whole(**encoders: dict[str, Any]) -> Config:
    return Config.model_validate({"extraction": {"teachers": encoders}})


def square(side: int, step: int = 256) -> np.ndarray:
    return np.array([(x, y) for y in range(side) for x in range(side)]) * step


@pytest.mark.parametrize("row", BUILT, ids=lambda row: row.name)
def test_rows_say_what_is_built(row: SlideModel) -> None:
    with torch.device("meta"):
        module = seeded(row, row.input_dim)
    assert count_parameters(module) == row.params
    assert row.input in teachers.registry.models()
    if row.name in PUBLISHED:
        params, dim = PUBLISHED[row.name]
        assert (round(row.params / 1e6, 2 if params != 21.5 else 1), row.dim) == (params, dim)
    wanted = {**row.kwargs}.get("segments", [])
    assert wanted == sorted(wanted) and len(wanted) in (0, 5)


def test_the_list_of_teachers_has_them() -> None:
    found = {teacher.name: teacher for teacher in teachers.list_teachers()}
    assert found["gigapath_slide"].input == "slide: gigapath"
    assert found["elf"].ready == "cannot be run here"


def test_random_weights_are_seeded_and_fit_any_input() -> None:
    features = np.random.default_rng(0).standard_normal((16, 12)).astype(np.float16)
    made = {
        seed: encode(build(FLASH, cfg(seed=seed), 12), features, square(4), 256).values
        for seed in (1, 2)
    }
    again = encode(build(FLASH, cfg(seed=1), 12), features, square(4), 256).values
    assert made[1].shape == (1, 384) and made[1].dtype == np.float16
    assert np.array_equal(made[1], again) and not np.array_equal(made[1], made[2])


def test_layers_and_pooling_are_those_of_the_network() -> None:
    features = np.random.default_rng(0).standard_normal((16, 12)).astype(np.float16)
    encoder = build(FLASH, cfg(layers=[0, 12], pooling="cls"), 12)
    found = encode(encoder, features, square(4), 256).values
    cells = torch.from_numpy(square(4) // 256)[None]
    with torch.no_grad():
        x = torch.from_numpy(features).float()[None]
        wanted = encoder.module(x, cells, layers=(0, 12), pooling="cls")
    assert encoder.width == 768
    np.testing.assert_allclose(found, wanted.numpy(), atol=2e-3)


@pytest.mark.parametrize("name", [FLASH, "hipt_vit4k", "longvit_1024", "chief", "madeleine"])
def test_a_checkpoint_of_the_published_keys_is_loaded_key_by_key(tmp_path: Path, name: str) -> None:
    row = resolve(name)
    state = {k: v.clone() for k, v in seeded(row, row.input_dim, 7).state_dict().items()}
    folder = tmp_path / name
    folder.mkdir()
    if name == FLASH:
        torch.save({"model": state}, folder / row.file)
    elif name == "chief":  # with what its pre-training remembered and classified
        other = {"classifiers.weight": torch.zeros(2, 512), "hard_neg_mem3.queue": torch.zeros(3)}
        torch.save(state | other, folder / row.file)
    elif name == "madeleine":
        torch.save({f"module.{k}": v for k, v in state.items()}, folder / row.file)
    else:  # as DINO's trainer saves it, with a projection head besides
        backbone = {f"module.backbone.{k}": v for k, v in state.items()}
        head = {"module.head.mlp.0.weight": torch.zeros(2, 192)}
        torch.save({"teacher": backbone | head}, folder / row.file)
    given = cfg(weights="local", acknowledge_licence=True)
    encoder = build(name, given, row.input_dim, weights_dir=str(tmp_path))
    assert all(torch.equal(v, state[k]) for k, v in encoder.module.state_dict().items())
    steps = list(teachers.check_teacher(name, given, str(tmp_path)))
    assert all(step.ok is not False for step in steps) and "keys" in {s.name for s in steps}


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        (FLASH, {"cls_token": None}, "missing cls_token"),
        (FLASH, {"decoder.weight": torch.zeros(3)}, "left over decoder.weight"),
        (FLASH, {"patch_embed.proj.weight": torch.zeros(384, 1536)}, r"patch_embed.*\(384, 1536\)"),
        ("hipt_vit4k", {"pos_embed": torch.zeros(1, 257, 192)}, r"pos_embed is \(1, 257, 192\)"),
        (
            "longvit_4096",
            {"pos_embed": torch.zeros(1, 4096, 384)},
            r"pos_embed is \(1, 4096, 384\)",
        ),
        ("longvit_1024", {"patch_embed.proj.weight": torch.zeros(384, 3, 16, 16)}, "16, 16"),
        ("chief", {"attention_net.0.bias": None}, "missing attention_net.0.bias"),
        ("madeleine", {"projector.weight": torch.zeros(512, 512)}, r"projector.*\(512, 512\)"),
    ],
)
def test_a_checkpoint_of_another_patch_grid_or_model_is_refused(
    tmp_path: Path, name: str, change: dict[str, Any], says: str
) -> None:
    row = resolve(name)
    state = dict(seeded(row, row.input_dim).state_dict()) | change
    (tmp_path / name).mkdir()
    kept = {k: v.contiguous() for k, v in state.items() if v is not None}
    save_file(kept, tmp_path / name / "model.safetensors")
    given = cfg(weights="local", acknowledge_licence=True)
    with pytest.raises(ArtifactError, match=says):
        build(name, given, row.input_dim, weights_dir=str(tmp_path))


def test_trained_weights_take_the_features_that_they_were_trained_on_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trained on the 384 features of `gigapath_flash`"):
        build(FLASH, cfg(weights="local"), 1024, weights_dir=str(tmp_path))


@pytest.mark.parametrize(
    ("name", "more", "says"),
    [
        ("gigapath_slid", {}, "did you mean `gigapath_slide`"),
        ("elf", {}, "cannot be run here: it reads five tile encoders"),
        ("madeleine", {}, "acknowledge_licence"),
        ("chief", {"weights": "hub"}, "weights_dir/chief"),
        ("titan", {"weights": "hub"}, "acknowledge_licence"),
        ("titan", {"acknowledge_licence": True}, "set weights: hub"),
        ("hipt_vit4k", {"weights": "hub"}, "weights_dir/hipt_vit4k"),
        ("hipt_vit4k", {"layers": [3]}, "none to choose from"),
        (FLASH, {"layers": [13]}, r"0 \(its input\) to 12"),
        (FLASH, {"pooling": "regions"}, "it has mean, cls"),
    ],
)
def test_what_cannot_run_is_refused_before_any_work(
    name: str, more: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        check(name, cfg(**more))


def test_the_tile_encoder_comes_along_with_the_tiles_it_needs() -> None:
    config = whole(gigapath_slide={"source": "slide", "weights": "random", "seed": 3})
    brought = inputs.tile_teachers(config)["gigapath"]
    assert (brought.weights, brought.seed, brought.tile_px, brought.target_mpp) == (
        "random", 3, 256, 0.5,
    )  # fmt: skip
    assert inputs.brought_along(config) == ["gigapath"]
    assert tile_scales.groups(config) == [("gigapath",)]
    assert tile_scales.feature_folders(config) == ["gigapath_slide"]
    assert list(tile_scales.scales(config)) == ["256px_0.5mpp"]
    named = whole(gigapath={}, gigapath_slide={"source": "slide"})
    assert not inputs.brought_along(named)


def test_two_ways_of_bringing_the_same_encoder_are_refused() -> None:
    config = whole(
        a={"source": "slide", "model": "gigapath_slide", "weights": "random"},
        b={"source": "slide", "model": "gigapath_slide", "weights": "random", "seed": 1},
    )
    with pytest.raises(ConfigError, match="name `gigapath` in"):
        inputs.tile_teachers(config)


@pytest.mark.parametrize(
    ("tiles", "encoder", "says"),
    [
        ({}, {}, "tiles of 256 px at 0.5 µm/px, but `gigapath` sees 224 px"),
        ({"tile_px": 256, "pooling": "cls_mean"}, {}, "but `gigapath` gives 3072"),
        ({"tile_px": 256}, {}, ""),
        ({}, {"weights": "random"}, ""),
    ],
)
def test_tiles_and_features_are_those_of_the_training(
    tiles: dict[str, Any], encoder: dict[str, Any], says: str
) -> None:
    config = whole(gigapath=tiles, gigapath_slide={"source": "slide", **encoder})
    if not says:
        tile_scales.check_inputs(config)
        return
    with pytest.raises(ConfigError, match=says):
        tile_scales.check_inputs(config)


@pytest.mark.parametrize(
    ("teacher", "says"),
    [
        ({"source": "registry", "layers": [1]}, "`layers` is for slide encoders alone"),
        ({"source": "slide", "tile_px": 256}, "for its input teacher"),
        ({"source": "slide", "input": "b"}, "must be a teacher of tiles"),
    ],
)
def test_keys_that_do_not_belong_together_are_refused(teacher: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        whole(a=teacher, b={"source": "slide", "model": FLASH})


TUNED = {"kind": "finetuned", "encoder": "slides", "teacher": "tiles"}


@pytest.mark.parametrize(
    ("model", "encoder", "says"),
    [
        ({}, "gigapath_slide", ""),
        ({"encoder": "tiles"}, "gigapath_slide", "not a slide encoder"),
        ({"teacher": "slides"}, "gigapath_slide", "the teacher of tiles"),
        ({"layers": [13]}, "gigapath_slide", "layers .13.: .* has 12"),
        ({}, "hipt_vit4k", "hipt_lgp_fc"),
    ],
)
def test_what_can_be_fine_tuned_is_known_before_any_work(
    model: dict[str, Any], encoder: str, says: str
) -> None:
    teachers = {
        "tiles": {"source": "timm", "model": "resnet10t", "weights": "random"},
        "slides": {"source": "slide", "model": encoder, "weights": "random", "seed": 9,
                   "input": "tiles"},
    }  # fmt: skip

    def parse() -> Config:
        config = Config.model_validate(
            {
                "extraction": {"teachers": teachers},
                "training": {"models": {"tuned": TUNED | model}},
                "evaluation": {"student": "tuned"},
            }
        )
        tile_scales.check_finetuned(config)
        return config

    if says:
        with pytest.raises((ConfigError, ValueError), match=says):
            parse()
        return
    start = parse().model_specs()["tuned"].encoder
    assert (start.teacher, start.row, start.settings.seed) == ("slides", encoder, 9)


def test_regions_are_marked_and_kept() -> None:
    coords = square(20, 300) + np.array([40, 60])
    features = np.random.default_rng(0).standard_normal((400, 384)).astype(np.float16)
    by = {
        pooling: encode(build("hipt_vit4k", cfg(pooling=pooling), 384), features, coords, 300)
        for pooling in ("regions", "mean", "patches")
    }
    found = by["regions"]
    assert found.corners is not None and found.patches is not None
    assert found.corners.tolist() == [[40, 60], [4840, 60], [40, 4860], [4840, 4860]]
    assert found.patches.tolist() == [256, 64, 64, 16]
    np.testing.assert_allclose(by["mean"].values[0], found.values.astype(float).mean(0), atol=2e-3)
    assert by["patches"].values.shape == (4, 256 * 385)
    np.testing.assert_array_equal(by["patches"].values[1, :384], features[16])
    assert (by["patches"].values[:, -256:] > 0).sum(1).tolist() == [256, 64, 64, 16]


class TheirTitan(torch.nn.Module):
    """What TITAN's code offers, as its card says."""

    def encode_slide_from_patch_features(
        self, features: torch.Tensor, coords: torch.Tensor, side: torch.Tensor
    ) -> torch.Tensor:
        assert features.shape[:2] == coords.shape[:2] and coords.shape[-1] == 2
        return features.mean(1) * side


def test_titan_is_asked_as_its_card_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "load", lambda row, revision: TheirTitan())
    settings = cfg(weights="hub", acknowledge_licence=True, revision="a" * 40)
    encoder = build("titan", settings, 768)
    features = np.full((9, 768), 0.5, np.float16)
    found = encode(encoder, features, square(3, 512), 512).values
    assert found.shape == (1, 768) and np.all(found == 256)


def test_numbers_that_are_none_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build(FLASH, cfg(), 4)
    monkeypatch.setattr(building, "view", lambda *_: (torch.full((1, 2), torch.nan), None))
    with pytest.raises(SlideError, match="NaN"):
        encode(encoder, np.ones((1, 4)), square(1), 256)
