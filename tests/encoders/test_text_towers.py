"""Text towers of the registry, their words, and prompts that are too long."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pipeline.config.extraction import TeacherConfig
from pipeline.encoders import registry, text_towers
from pipeline.encoders.registry import Model
from pipeline.encoders.weights import count_parameters
from pipeline.errors import ConfigError, UserError

# Published: parameters of the text tower in millions.
PUBLISHED = {"plip": 63.43, "conch": 110.13, "keep": 109.48}
SMALL = {
    "plip": {"width": 32, "heads": 2, "layers": 2, "output_dim": 16},
    "conch": {"width": 32, "heads": 2, "layers": 2, "output_dim": 16, "vocab_size": 64},
    "keep": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "vocab_size": 64,
    },
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> dict[str, Model]:
    """The registry with small text towers of the same kinds."""
    rows = dict(registry.models())
    for name, kwargs in SMALL.items():
        text = rows[name].text
        made = text | {"kwargs": text["kwargs"] | kwargs}
        rows[name] = dataclasses.replace(rows[name], text=made)
    monkeypatch.setattr(registry, "models", lambda: rows)
    return rows


def teacher(**facts: Any) -> TeacherConfig:
    return TeacherConfig(acknowledge_licence=True, **facts)


def words(folder: Path, file: str, marks: tuple[str, str], vocabulary: list[str]) -> None:
    """A tokeniser's file of whole words."""
    tokenizers = pytest.importorskip("tokenizers")
    known = {word: i for i, word in enumerate(["<pad>", *marks, "<unk>", *vocabulary])}
    model = tokenizers.models.WordLevel(known, unk_token="<unk>")
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / file))


@pytest.mark.parametrize("name", PUBLISHED)
def test_towers_are_as_large_as_published(name: str) -> None:
    with torch.device("meta"):
        module, _ = text_towers._module(
            name, teacher(weights="random"), registry.models()[name], None
        )
    assert count_parameters(module.text) / 1e6 == pytest.approx(PUBLISHED[name], abs=0.01)


@pytest.mark.parametrize("name", ["plip", "conch", "keep"])
def test_a_tower_is_filled_from_the_file_of_the_whole_model(
    tmp_path: Path, small: dict[str, Model], name: str
) -> None:
    row = small[name]
    folder = tmp_path / name
    if name == "plip":
        saved, tower = _plip_file(row)
    else:
        facts = row.text["words"]
        words(folder, facts["file"], (facts["opens"], facts["closes"]), ["pink", "stroma"])
        module, _ = text_towers._module(name, teacher(seed=9), row, None)
        tower = module.eval()
        saved = {f"text.{k}": v for k, v in module.text.state_dict().items()}
        saved |= {"logit_scale": torch.tensor(2.0), "visual.proj": torch.zeros(2, 2)}
    folder.mkdir(exist_ok=True)
    save_file({k: v.contiguous() for k, v in saved.items()}, folder / "model.safetensors")
    built = text_towers.build(name, teacher(weights="local"), str(tmp_path))
    assert built.scale == pytest.approx(float(torch.tensor(2.0).exp()))
    ids = text_towers.tokens(built.tokeniser, "pink stroma")[None]
    with torch.inference_mode():
        wanted = torch.nn.functional.normalize(tower(ids).float(), dim=-1)
    torch.testing.assert_close(text_towers.encode(built, ["pink stroma"]), wanted)
    if name == "keep":  # lower case alone, as its authors call it
        assert torch.equal(text_towers.tokens(built.tokeniser, "PINK Stroma"), ids[0])
    if name != "plip":
        assert ids[0, :5].tolist() == [1, 4, 5, 2, 0]
        assert len(ids[0]) == row.text["words"]["context"]


def _plip_file(row: Model) -> tuple[dict[str, torch.Tensor], Any]:
    """A CLIP of transformers with the small text tower, and the tower itself."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    facts = row.text["kwargs"]
    config = transformers.CLIPConfig(
        text_config={
            "hidden_size": facts["width"],
            "intermediate_size": 4 * facts["width"],
            "num_hidden_layers": facts["layers"],
            "num_attention_heads": facts["heads"],
            "eos_token_id": 49407,
        },
        vision_config={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1},
        projection_dim=facts["output_dim"],
    )
    model = transformers.CLIPModel(config).eval()
    state = dict(model.state_dict()) | {"logit_scale": torch.tensor(2.0)}

    def tower(ids: torch.Tensor) -> torch.Tensor:
        pooled = model.text_model(input_ids=ids).pooler_output
        return model.text_projection(pooled)

    return state, tower


def test_a_prompt_longer_than_the_context_is_refused(small: dict[str, Model]) -> None:
    tower = text_towers.build("plip", teacher(weights="random"))
    text = "tumour " * 75
    assert text_towers.encode(tower, [text]).shape == (1, 16)
    with pytest.raises(UserError, match=r"has 78 tokens, its text tower takes 77"):
        text_towers.encode(tower, ["stroma", text + "x"])
    cut = text_towers.tokens(tower.tokeniser, text + "x", cut=True)
    assert cut[-1] == 49407 and len(cut) == 77


def test_rows_are_unit_vectors_whatever_the_batch(small: dict[str, Model]) -> None:
    tower = text_towers.build("plip", teacher(weights="random", seed=4))
    texts = [f"a picture of number {i}" for i in range(text_towers.BATCH + 3)]
    found = text_towers.encode(tower, texts)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(len(texts)))
    torch.testing.assert_close(found[-1:], text_towers.encode(tower, texts[-1:]))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("musk", "authors' package alone"),
        ("conch_v1_5", "has no text tower"),
        ("conch", "nor in the package `conch`"),
    ],
)
def test_what_has_no_words_says_so(small: dict[str, Model], name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        text_towers.build(name, teacher(weights="random"))


def test_words_of_another_model_are_refused(tmp_path: Path, small: dict[str, Model]) -> None:
    words(tmp_path / "conch", "conch_byte_level_bpe_uncased.json", ("[CLS]", "[SEP]"), ["pink"])
    with pytest.raises(ConfigError, match="knows no <start_of_text>"):
        text_towers.build("conch", teacher(weights="random"), str(tmp_path))


def test_who_speaks() -> None:
    assert registry.speaks("plip", TeacherConfig())
    assert registry.speaks("x", TeacherConfig(source="open_clip", model="ViT-B-32/openai"))
    assert not registry.speaks("uni", TeacherConfig())
    assert not registry.speaks("x", TeacherConfig(source="timm", model="resnet10t"))
    assert registry.levels_of("plip", TeacherConfig(), ("high",)) == ("high", "aligned")
