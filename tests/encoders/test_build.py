"""Teachers from the config: weights loaded strictly, or a message that says what to do."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from pipeline.config.extraction import TeacherConfig
from pipeline.encoders import build as build_module
from pipeline.encoders import registry, weight_files, weights
from pipeline.encoders.build import build, encode
from pipeline.errors import ArtifactError, ConfigError

MODEL = "resnet10t"


def _cfg(**more: Any) -> TeacherConfig:
    return TeacherConfig.model_validate(
        {"source": "timm", "model": MODEL, "weights": "random", "input_px": 32, **more}
    )


def _tiles(count: int = 3, side: int = 32) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8)


def test_random_weights_are_seeded() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    build("a", _cfg(seed=1))
    assert torch.equal(torch.random.get_rng_state(), before)  # the caller's numbers are untouched
    first = encode(build("a", _cfg(seed=1)), _tiles())
    torch.manual_seed(6)
    again = encode(build("a", _cfg(seed=1)), _tiles())
    other = encode(build("a", _cfg(seed=2)), _tiles())
    assert first.keys() == {"low", "mid", "high"}
    for level in first:
        assert first[level].dtype == torch.float16
        assert torch.equal(first[level], again[level])
    assert not torch.equal(first["high"], other["high"])


def test_tiles_of_any_side_are_resized() -> None:
    encoder = build("a", _cfg())
    assert encode(encoder, _tiles(side=50))["high"].shape == (3, 512)
    assert encoder.dims == {"low": 128, "mid": 256, "high": 512}
    assert encoder.facts["transform"].startswith("resize 32 ")


def test_operations_per_tile_are_those_of_the_architecture() -> None:
    cfg = TeacherConfig(source="timm", model="vit_tiny_patch16_224", weights="random", input_px=112)
    width, depth, patches = 192, 12, 49
    tokens = patches + 1
    embedding = 2 * patches * (3 * 16 * 16) * width
    layers = 2 * tokens * 12 * width**2  # query, key, value, projection 4, feed-forward 8
    attention = 2 * 2 * tokens**2 * width
    expected = (embedding + depth * (layers + attention)) / 1e9
    found = float(build("t", cfg).facts["gflop_per_tile"])
    assert found == pytest.approx(expected, rel=1e-4)


def test_vit_is_built_for_its_input() -> None:
    encoder = build("a", _cfg(model="vit_tiny_patch16_224", input_px=48))
    assert encoder.module.patch_embed.grid_size == (3, 3)
    with pytest.raises(ConfigError, match=r"a\.input_px: 50 is not a multiple of the patch, 16"):
        build("a", _cfg(model="vit_tiny_patch16_224", input_px=50))


def test_unknown_timm_model_suggests_one() -> None:
    with pytest.raises(ConfigError, match="no model `resnet10tt`; did you mean `resnet10t`"):
        build("a", _cfg(model="resnet10tt"))


def test_batch_composition_changes_only_the_last_bit() -> None:
    encoder = build("a", _cfg())
    tiles = _tiles(5)
    together = encode(encoder, tiles)["mid"].float()
    alone = torch.cat([encode(encoder, tiles[i : i + 1])["mid"] for i in range(5)]).float()
    torch.testing.assert_close(together, alone, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin", "anything.pth"])
def test_local_weights(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(3)
    source = timm.create_model(MODEL, num_classes=4)
    folder = tmp_path / "a"
    folder.mkdir()
    if kind.endswith("safetensors"):
        save_file(source.state_dict(), folder / kind)
    else:
        torch.save({"state_dict": source.state_dict()}, folder / kind)
    encoder = build("a", _cfg(weights="local"), weights_dir=str(tmp_path))
    assert encoder.facts["weights"] == "local"
    assert len(encoder.facts["revision"]) == 16
    torch.testing.assert_close(encoder.module.conv1[0].weight, source.conv1[0].weight)


def _local(tmp_path: Path, state: dict[str, Any], **more: Any) -> None:
    folder = tmp_path / "a"
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / "pytorch_model.bin")
    build("a", _cfg(weights="local", **more), weights_dir=str(tmp_path))


def test_checkpoint_of_another_model_lists_what_differs(tmp_path: Path) -> None:
    state = timm.create_model(MODEL, num_classes=0).state_dict()
    wrong = {**state, "surplus": torch.zeros(1), "conv1.0.weight": torch.zeros(2, 2)}
    del wrong["bn1.weight"]
    with pytest.raises(ArtifactError) as caught:
        _local(tmp_path, wrong)
    text = str(caught.value)
    assert "pytorch_model.bin: of another model" in text
    assert "missing bn1.weight" in text
    assert "left over surplus" in text
    assert "conv1.0.weight is (2, 2)" in text


@pytest.mark.parametrize("prefix", ["module.", "model.", "backbone.", "model.backbone.", "any."])
@pytest.mark.parametrize("inside", [None, "state_dict", "model_state_dict"])
def test_a_word_before_all_names_is_taken_off(
    tmp_path: Path, prefix: str, inside: str | None
) -> None:
    state = {
        f"{prefix}{name}": values
        for name, values in timm.create_model(MODEL, num_classes=0).state_dict().items()
    }
    _local(tmp_path, {inside: state, "epoch": 3} if inside else state)


def test_the_part_of_a_larger_model_is_named(tmp_path: Path) -> None:
    state = timm.create_model(MODEL, num_classes=0).state_dict()
    larger = {f"encoder.{k}": v for k, v in state.items()} | {"loss.weight": torch.zeros(2)}
    with pytest.raises(ArtifactError, match=rf"{len(state)} of its names would fit.*`encoder\.`"):
        _local(tmp_path, larger)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n", "git lfs pull"),
        ("<!DOCTYPE html><html>Login</html>", "is a web page.*token"),
        ("", "is empty"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / name).write_text(content)
    with pytest.raises(ArtifactError, match=rf"{name}: .*{says}"):
        build("a", _cfg(weights="local"), weights_dir=str(tmp_path))


def test_positions_are_never_resampled_at_load(tmp_path: Path) -> None:
    """A checkpoint made for another image size is refused, not bent into shape."""
    state = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=64).state_dict()
    with pytest.raises(ArtifactError, match=r"pos_embed is \(1, 17, 192\)"):
        _local(tmp_path, state, model="vit_tiny_patch16_224", input_px=224)
    kernels = timm.create_model("vit_tiny_patch16_224", num_classes=0, patch_size=14).state_dict()
    with pytest.raises(ArtifactError, match=r"patch_embed\.proj\.weight"):
        _local(tmp_path, kernels, model="vit_tiny_patch16_224", input_px=224)


def test_weights_for_another_input_interpolate_in_each_pass(tmp_path: Path) -> None:
    state = timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict()
    _local(tmp_path, state, model="vit_tiny_patch16_224", input_px=64)


def test_weights_in_half_precision_become_full(tmp_path: Path) -> None:
    state = timm.create_model(MODEL, num_classes=0).half().state_dict()
    folder = tmp_path / "a"
    folder.mkdir()
    save_file(state, folder / "model.safetensors")
    module = build("a", _cfg(weights="local"), weights_dir=str(tmp_path)).module
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    torch.testing.assert_close(module.conv1[0].weight, state["conv1.0.weight"].float())


def test_what_is_computed_and_not_saved_is_there_after_loading(tmp_path: Path) -> None:
    """Networks wait for their weights without memory; Swin's position index is in no checkpoint."""
    small = {"embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (3, 3, 3, 3), "img_size": 56}
    row = dataclasses.replace(
        registry.resolve("ctranspath"),
        kwargs={"base": "swin_tiny_patch4_window7_224", **small},
        crop=56,
        resize=56,
    )
    source = build_module.architecture(row, seed=5).eval()
    path = tmp_path / "model.safetensors"
    save_file({k: v.contiguous() for k, v in source.state_dict().items()}, path)
    cfg = TeacherConfig(weights="local")
    with torch.device("meta"):
        module, transform = build_module.from_registry(row, cfg)
    network = build_module.Network(row, module, transform)
    assert any(buffer.is_meta for buffer in module.buffers())
    found = build_module.load_weights(network, "a", cfg, weights.Source("local", "x", "x", path))
    assert not any(t.is_meta for t in (*found.module.buffers(), *found.module.parameters()))
    images = torch.rand(2, 3, 56, 56)
    with torch.inference_mode():
        torch.testing.assert_close(found.module.eval()(images), source(images))


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"pytorch_model\.bin: holds Python objects"):
        _local(tmp_path, {"x": Path("y")})


def test_damaged_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match=r"model\.safetensors: not a readable checkpoint"):
        build("a", _cfg(weights="local"), weights_dir=str(tmp_path))


def test_missing_local_weights_say_where_to_put_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="weights_dir is not set"):
        build("a", _cfg(weights="local"))
    with pytest.raises(ConfigError, match=f"no folder {tmp_path}/a"):
        build("a", _cfg(weights="local"), weights_dir=str(tmp_path))
    (tmp_path / "a").mkdir()
    for name in ("x.pth", "y.pth"):
        (tmp_path / "a" / name).write_bytes(b"")
    with pytest.raises(ConfigError, match=r"has 2 weights files \(there is: x\.pth, y\.pth\)"):
        build("a", _cfg(weights="local"), weights_dir=str(tmp_path))


def test_other_local_weights_have_another_identity(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    found = []
    for seed in (1, 2):
        (folder / "w.pth").write_bytes(bytes([seed]) * 5_000_000)
        found.append(weight_files.local_identity("a", _cfg(weights="local"), None, str(tmp_path)))
    assert found[0] != found[1]
    assert weight_files.local_identity("a", _cfg(), None, str(tmp_path)) == ""


def test_hub_without_access(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError

    class Gated(GatedRepoError):
        def __init__(self) -> None:
            Exception.__init__(self, "no access")

    def gated(*_: Any, **__: Any) -> str:
        raise Gated

    def offline(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", gated)
    with pytest.raises(ConfigError, match=r"access to timm/resnet10t\S* is not granted.*HF_TOKEN"):
        build("a", _cfg(weights="hub"))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(ConfigError, match=r"cannot be downloaded.*weights_dir/a/.*weights: local"):
        build("a", _cfg(weights="hub"))


def test_what_is_not_on_the_hub_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    for kind, says in (
        (RepositoryNotFoundError, "shows no repository timm/resnet10t"),
        (RevisionNotFoundError, "has no revision main; correct extraction.teachers.a.revision"),
    ):
        error = kind.__new__(kind)  # they want a response of the HTTP library

        def missing(*_: Any, error: Exception = error, **__: Any) -> str:
            raise error

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", missing)
        with pytest.raises(ConfigError, match=says) as caught:
            build("a", _cfg(weights="hub"))
        assert "ry again" not in str(caught.value)


def test_hub_records_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[str] = []

    def download(repo: str, file: str, revision: str) -> str:
        asked.append(revision)
        path = tmp_path / "snapshots" / "c0ffee" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(timm.create_model(MODEL, num_classes=0).state_dict(), path)
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    facts = build("a", _cfg(weights="hub", revision="c0ffee")).facts
    assert (facts["weights"], facts["revision"]) == ("hub", "c0ffee")
    assert asked == ["c0ffee"]


def test_bfloat16_is_near() -> None:
    exact = encode(build("a", _cfg()), _tiles())["high"].float()
    near = encode(build("a", _cfg(), precision="bf16"), _tiles())["high"].float()
    assert torch.nn.functional.cosine_similarity(exact, near).min() > 0.999
    assert not torch.equal(exact, near)
