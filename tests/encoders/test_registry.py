"""The registry: facts that fit the architectures they describe, and names that can be found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.config.extraction import TeacherConfig
from pipeline.encoders import registry
from pipeline.encoders.build import architecture, describe, from_registry, make_network
from pipeline.encoders.registry import Model
from pipeline.encoders.taps import find_taps, forward_levels, tap_blocks
from pipeline.encoders.weights import count_parameters
from pipeline.errors import ConfigError

ROWS = registry.models()
BUILT = [row for row in ROWS.values() if row.loader == "timm"]

ENVIRONMENTS = Path(registry.__file__).parents[2] / "envs"

# Published: parameters in millions, output dimension, input pixels, block taps. Written down here
# a second time, so that a slip in the registry does not confirm itself.
PUBLISHED = {
    "uni": (303.35, 1024, 224, (7, 15)),
    "uni2_h": (681.39, 1536, 224, (7, 15)),
    "virchow": (631.23, 2560, 224, (10, 20)),
    "virchow2": (631.24, 2560, 224, (10, 20)),
    "gigapath": (1134.95, 1536, 224, (13, 26)),
    "h_optimus_0": (1134.77, 1536, 224, (13, 26)),
    "h_optimus_1": (1134.77, 1536, 224, (13, 26)),
    "h0_mini": (85.74, 768, 224, (3, 7)),
    "hibou_b": (85.74, 768, 224, (3, 7)),
    "hibou_l": (303.66, 1024, 224, (7, 15)),
    "phikon": (85.80, 768, 224, (3, 7)),
    "phikon_v2": (303.35, 1024, 224, (7, 15)),
    "plip": (87.85, 512, 224, (3, 7)),
    "ctranspath": (27.52, 768, 224, (1, 2)),
    "chief_ctranspath": (27.52, 768, 224, (1, 2)),
    "hipt_vit256": (21.67, 384, 256, (3, 7)),
    "longvit_patches": (1.18, 64 * 384, 256, (0, 0)),
    "kaiko_s16": (21.67, 384, 224, (3, 7)),
    "kaiko_s8": (21.67, 384, 224, (3, 7)),
    "kaiko_b16": (85.80, 768, 224, (3, 7)),
    "kaiko_b8": (85.81, 768, 224, (3, 7)),
    "kaiko_l14": (304.37, 1024, 224, (7, 15)),
    "midnight_12k": (1134.77, 3072, 224, (13, 26)),
    "open_midnight": (1134.77, 1536, 224, (13, 26)),
    "lunit_s16": (21.67, 384, 224, (3, 7)),
    "lunit_s8": (21.67, 384, 224, (3, 7)),
    "gpfm": (303.23, 1024, 224, (7, 15)),
    "keep": (304.73, 768, 224, (7, 15)),
    "gigapath_flash": (21.68, 384, 224, (3, 7)),
    # 90.39 M with the pooler for captions (256 queries of 768 channels, 2.56 M), which is left out.
    "conch": (90.39 - 2.5636, 512, 448, (3, 7)),
    "conch_v1_5": (306.11, 768, 448, (7, 15)),
    # 675.2 M with the language branch, which is left out.
    "musk": (304.99, 1024, 384, (7, 15)),
    "resnet50": (23.51, 2048, 224, (2, 3)),
    # 4.65, 5.42 and 6.09 M with the classifier of 1000 classes (1.281 M), which is left out.
    "efficientnet_lite0": (4.652 - 1.281, 1280, 224, (2, 3)),
    "efficientnet_lite1": (5.416 - 1.281, 1280, 240, (2, 3)),
    "efficientnet_lite2": (6.092 - 1.281, 1280, 260, (2, 3)),
}
LEVELS = ("low", "mid", "high")
STATISTICS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "optimus": ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517)),
}
NORMALISED = {
    "imagenet": "uni uni2_h virchow virchow2 gigapath phikon phikon_v2 ctranspath gpfm keep "
    "chief_ctranspath open_midnight resnet50 conch_v1_5 gigapath_flash longvit_patches",
    "half": "hipt_vit256 kaiko_s16 kaiko_s8 kaiko_b16 kaiko_b8 kaiko_l14 midnight_12k musk "
    "efficientnet_lite0 efficientnet_lite1 efficientnet_lite2",
    "optimus": "h_optimus_0 h_optimus_1 h0_mini",
}


@pytest.mark.parametrize("row", BUILT, ids=lambda row: row.name)
def test_row_fits_its_architecture(row: Model) -> None:
    """Built without memory for weights: parameters, tokens, patch, and the size of every level."""
    params, dim, px, taps = PUBLISHED[row.name]
    with torch.device("meta"):
        module = architecture(row).eval()
        where = find_taps(module, row.pooling, row.taps)
        images = torch.empty(2, 3, row.crop, row.crop)
        levels = forward_levels(module, images, where, LEVELS if row.depth else ("high",))
    assert levels["high"].shape == (2, row.dim)
    if row.tokens:
        width = levels["low"].shape[1] // (2 if row.pooling == "cls_mean" else 1)
        assert levels["mid"].shape == levels["low"].shape
        for pooling, wanted in row.poolings.items():
            assert pooling in ("proj", "model") or wanted == width * (
                2 if pooling == "cls_mean" else 1
            )
    assert count_parameters(module) == row.params
    assert row.params / 1e6 == pytest.approx(params, abs=0.006)
    assert (row.dim, row.crop, row.taps) == (dim, px, taps)
    assert getattr(module, "num_prefix_tokens", 0) == row.tokens
    if row.patch:
        assert module.patch_embed.patch_size == (row.patch, row.patch)
        assert len(getattr(module, "blocks", [])) == row.depth
        assert row.crop % row.patch == 0


def test_a_model_without_blocks_has_one_level() -> None:
    assert {row.name for row in ROWS.values() if not row.depth} == {"longvit_patches"}
    given = TeacherConfig(weights="random")
    assert registry.levels_of("longvit_patches", given, LEVELS) == ("high",)
    assert registry.levels_of("uni", given, LEVELS) == LEVELS


def test_every_row_is_published_or_runs_its_authors_code_in_an_environment_of_its_own() -> None:
    remote = {name for name, row in ROWS.items() if row.loader == "remote"}
    assert PUBLISHED.keys() | remote == ROWS.keys()
    for name in remote:
        assert ROWS[name].package
        assert (ENVIRONMENTS / f"{ROWS[name].env}.yaml").is_file()
        assert len(ROWS[name].revision) == 40


def test_normalisation_is_the_authors() -> None:
    for name, rows in NORMALISED.items():
        for row in rows.split():
            assert (ROWS[row].mean, ROWS[row].std) == STATISTICS[name], row
    assert ROWS["conch"].mean == ROWS["plip"].mean
    assert ROWS["conch"].mean[0] == pytest.approx(0.48145, abs=1e-5)
    assert ROWS["lunit_s8"].mean[0] == pytest.approx(0.70323, abs=1e-5)
    assert ROWS["hibou_l"].std[2] == pytest.approx(0.1816)


def test_resizing_is_the_authors() -> None:
    """Where the authors state one; the side that is resized to, and the middle that is kept."""
    bicubic = "gigapath gigapath_flash hibou_b hibou_l conch musk keep"
    for name in bicubic.split():
        assert ROWS[name].interp == "bicubic", name
    assert ROWS["conch_v1_5"].interp == "bilinear"
    sizes = {name: (ROWS[name].resize, ROWS[name].crop) for name in ROWS}
    odd = {
        "gigapath": (256, 224),
        "gigapath_flash": (256, 224),
        "hipt_vit256": (256, 256),
        "longvit_patches": (256, 256),
        "conch": (448, 448),
        "conch_v1_5": (448, 448),
        "musk": (384, 384),
        "efficientnet_lite1": (240, 240),
        "efficientnet_lite2": (260, 260),
    }
    assert sizes == dict.fromkeys(ROWS, (224, 224)) | odd


@pytest.mark.parametrize(
    ("name", "pooling", "dim"),
    [
        *(("virchow2", None, 2560), ("virchow2", "cls", 1280)),
        *(("midnight_12k", None, 3072), ("midnight_12k", "cls", 1536)),
        *(("h0_mini", None, 768), ("h0_mini", "cls_mean", 1536)),
        *(("conch", None, 512), ("conch", "cls", 768)),
    ],
)
def test_pooling_is_the_authors_or_the_configs(name: str, pooling: str | None, dim: int) -> None:
    settings = TeacherConfig(pooling=pooling, acknowledge_licence=True)
    network = make_network(name, settings)
    assert network.row is not None
    taps = find_taps(network.module.eval(), settings.pooling or network.row.pooling, (3, 7))
    images = torch.empty(1, 3, network.transform.crop, network.transform.crop, device="meta")
    assert forward_levels(network.module, images, taps, ("high",))["high"].shape == (1, dim)


def test_gigapath_is_resized_then_cropped_with_patch_16() -> None:
    row = ROWS["gigapath"]
    with torch.device("meta"):
        module, transform = from_registry(row, TeacherConfig())
    assert (transform.resize, transform.crop, transform.interp) == (256, 224, "bicubic")
    assert module.patch_embed.proj.weight.shape[-1] == 16
    assert describe(transform).startswith("resize 256 bicubic, centre crop 224, normalise 0.485")


def test_registers_are_counted() -> None:
    tokens = {name: ROWS[name].tokens for name in ("virchow", "virchow2", "h0_mini", "uni2_h")}
    assert tokens == {"virchow": 1, "virchow2": 5, "h0_mini": 5, "uni2_h": 9}


def test_restricted_licences() -> None:
    restricted = {name for name, row in ROWS.items() if row.derivative_restricted}
    assert restricted >= {
        *("uni", "uni2_h", "virchow2", "h_optimus_1", "h0_mini"),
        *("conch", "conch_v1_5", "musk", "rudolfv_2"),
    }
    assert not restricted & {"virchow", "gigapath", "h_optimus_0", "midnight_12k", "phikon_v2"}


def test_taps_of_the_rule() -> None:
    assert tap_blocks(24) == (7, 15)
    assert tap_blocks(40) == (13, 26)
    assert tap_blocks(12) == (3, 7)
    assert tap_blocks(4) == (1, 2)  # stages
    assert tap_blocks(5) == (2, 3)  # a stem and four stages


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("uni2-h", "uni2_h"),
        ("MahmoodLab/UNI2-h", "uni2_h"),
        ("Virchow-2", "virchow2"),
        ("hoptimus1", "h_optimus_1"),
        ("prov-gigapath", "gigapath"),
        ("phikonv2", "phikon_v2"),
        ("conchv1_5", "conch_v1_5"),
    ],
)
def test_unknown_name_suggests_the_nearest(asked: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"`{asked}`.*did you mean.*`{meant}`"):
        registry.resolve(asked)


def test_check_refuses_what_cannot_run() -> None:
    with pytest.raises(ConfigError, match=r"licence of UNI2-h.*uni2_h\.acknowledge_licence: true"):
        registry.check("uni2_h", TeacherConfig())
    assert registry.check("uni2_h", TeacherConfig(acknowledge_licence=True)).dim == 1536
    assert registry.check("conch", TeacherConfig(acknowledge_licence=True)).pooling == "model"
    with pytest.raises(ConfigError, match=r"teachers\.gigapath\.pooling.*cls, cls_mean"):
        registry.check("gigapath", TeacherConfig(pooling="mean"))
    assert registry.check("mine", TeacherConfig(model="gigapath")).name == "gigapath"


def test_row_that_lacks_a_fact_names_itself() -> None:
    row = {"title": "X", "stats": "half", "pooling": {"cls": 3}, "taps": [1, 2], "mpp": [0.5]}
    statistics = {"half": [[0.5] * 3, [0.5] * 3]}
    with pytest.raises(ConfigError, match=r"registry\.yaml: mine.*crop"):
        registry._row("mine", row, statistics)
    with pytest.raises(ConfigError, match=r"registry\.yaml: mine.*dimension"):
        registry._row("mine", {**row, "crop": 224, "dimension": 3}, statistics)


def test_registry_imports_no_torch() -> None:
    code = (
        "import sys; from pipeline.encoders import registry; registry.models();"
        "sys.exit(any(m in sys.modules for m in ('torch', 'timm', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
