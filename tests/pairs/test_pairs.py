"""Captions joined to tiles, the losses against plain arithmetic, and the whole stage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from pipeline.config.pairs import PairsConfig
from pipeline.contracts.paired import read_paired
from pipeline.encoders import build, open_clip_models, text_towers
from pipeline.errors import ConfigError, UserError
from pipeline.pairs import captions, stage
from pipeline.pairs.learner import HEADS, PairLearner, write_captions
from pipeline.tile_reading.grid import Grid
from pipeline.tile_training.loader import Batch
from pipeline.tile_training.processes import Processes
from pipeline.tile_training.slides import TiledSlide
from pipeline.tile_training.trainer import Pass
from tests.pairs.made import CLIP, COCA, job, results_folder

HERE = Processes(0, 1, torch.device("cpu"))
WORDS = text_towers.clip_tokeniser(12)


def slide(name: str, n: int) -> TiledSlide:
    xy = np.stack([np.arange(n) * 32, np.zeros(n, int)], 1).astype(np.int32)
    return TiledSlide(name, f"case {name}", Path(name), Grid(xy, 0, 1.0, 32, "f", {}))


def table(*rows: tuple[str, int, str]) -> pd.DataFrame:
    return pd.DataFrame([{"slide_id": s, "x": x, "y": 0, "caption": c} for s, x, c in rows])


# --- captions -------------------------------------------------------------------------------------


def test_each_slide_keeps_its_described_tiles() -> None:
    given = table(("a", 64, "nests"), ("a", 0, "glands"), ("a", 0, "ducts"), ("b", 7, "cords"))
    found = captions.join([slide("a", 3), slide("b", 2)], given, WORDS)
    assert [s.slide_id for s in found.slides] == ["a"]
    assert found.slides[0].grid.coords[:, 0].tolist() == [0, 64]
    said = [[found.texts[t] for t in own] for own in found.of[0]]
    assert said == [["glands", "ducts"], ["nests"]]
    assert found.without_tiles == 1 and found.cut == 0
    assert found.ids.shape == (4, 12)


def test_a_tile_with_two_captions_shows_both() -> None:
    given = table(("a", 0, "glands"), ("a", 0, "ducts"))
    found = captions.join([slide("a", 1)], given, WORDS)
    generator = torch.Generator().manual_seed(0)
    zeros = torch.zeros(40, dtype=torch.int64)
    assert set(found.draw(zeros, zeros, generator).tolist()) == {0, 1}


def test_long_captions_are_cut_and_counted() -> None:
    found = captions.join([slide("a", 1)], table(("a", 0, "word " * 30)), WORDS)
    assert found.cut == 1 and found.ids[0, -1] == 49407


def test_captions_of_no_tile_are_refused() -> None:
    with pytest.raises(UserError, match="no caption is of a tile"):
        captions.join([slide("a", 2)], table(("a", 5, "glands")), WORDS)


def test_words_for_sides_and_turned_tiles_do_not_go_together() -> None:
    captions.check_sides(["a bright field of uppermost grade"], flips=True)
    captions.check_sides(["tumour on the left"], flips=False)
    with pytest.raises(UserError, match="speaks of `left`"):
        captions.check_sides(["nests", "tumour on the left"], flips=True)


# --- learning -------------------------------------------------------------------------------------


def learner(config: dict[str, Any], **cfg: Any) -> PairLearner:
    given = table(*(("a", 32 * i, f"word {i}") for i in range(4)))
    pairs = captions.join([slide("a", 4)], given, WORDS)
    section = PairsConfig.model_validate(
        {"name": "t", "start": {"source": "open_clip", "model": "x", "weights": "random"},
         "objective": "coca" if "multimodal_cfg" in config else "clip", **cfg}
    )  # fmt: skip
    model = open_clip_models.make(config, seed=1)
    transform = open_clip_models.transform_of(open_clip_models.Recipe(config))
    return PairLearner(model, section, pairs, pairs, lambda: iter([_tiles()]), transform, HERE)


def _tiles() -> Batch:
    tiles = torch.randint(0, 255, (4, 16, 16, 3), generator=torch.Generator().manual_seed(1))
    return Batch(tiles.to(torch.uint8), torch.zeros(4, dtype=torch.int64), torch.arange(4))


def test_losses_are_those_of_plain_arithmetic() -> None:
    one = learner(COCA, caption_weight=3.0, contrastive_weight=0.5)
    model: Any = one.module.eval()
    images, ids = torch.randn(4, 3, 16, 16), one.pairs.ids
    with torch.no_grad():
        found = one.losses(model, images, ids)
        image = F.normalize(model.encode_image(images).double(), dim=-1)
        text = F.normalize(model.encode_text(ids).double(), dim=-1)
        logits = image @ text.T / 0.07
        own = torch.arange(4)
        wanted = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        said = model(images, ids)["logits"].double().log_softmax(-1)
        target = ids[:, 1:]
        each = said.gather(-1, target[..., None])[..., 0][target != 0]
    assert image.shape == (4, COCA["embed_dim"])
    assert float(found["contrastive"]) == pytest.approx(0.5 * float(wanted), rel=1e-4)
    assert float(found["caption"]) == pytest.approx(-3.0 * float(each.mean()), rel=1e-4)


def test_poolers_are_one_query_and_several() -> None:
    model: Any = open_clip_models.make(COCA)
    assert model.visual.attn_pool_contrastive.query.shape == (1, COCA["embed_dim"])
    assert model.visual.attn_pool.query.shape[0] == 5
    latent, tokens = model._encode_image(torch.randn(2, 3, 16, 16))
    assert latent.shape == (2, COCA["embed_dim"]) and tokens.shape == (2, 5, COCA["embed_dim"])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("config", [CLIP, COCA], ids=["clip", "coca"])
def test_four_pairs_can_be_learned(config: dict[str, Any], precision: str) -> None:
    """In bfloat16 too; until every tile finds its own caption."""
    torch.manual_seed(0)
    one = learner(config, augmentation={"flips": False, "stain": 0, "hue": 0, "brightness": 0,
                                        "blur": 0})  # fmt: skip
    optimiser = torch.optim.AdamW(one.module.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    before = one.validate(one.module.eval())
    for step in range(25):
        one.module.train()
        optimiser.zero_grad()
        found = one.backward(_tiles(), Pass(step, 1.0, generator, precision))
        optimiser.step()
    after = one.validate(one.module.eval())
    assert before["tile_to_text_1"] < 1.0 and after["tile_to_text_1"] == 1.0
    assert after["score"] > before["score"] + 0.5
    assert set(found) == {"loss", "contrastive"} | ({"caption"} if config is COCA else set())
    if config is COCA:
        assert after["caption_loss"] < 0.7 * before["caption_loss"]


def test_a_coca_says_what_it_learned() -> None:
    torch.manual_seed(0)
    one = learner(COCA, caption_weight=1.0, augmentation={"flips": False, "stain": 0, "hue": 0,
                                                         "brightness": 0, "blur": 0})  # fmt: skip
    optimiser = torch.optim.AdamW(one.module.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    for step in range(80):
        optimiser.zero_grad()
        one.backward(_tiles(), Pass(step, 1.0, generator, "fp32"))
        optimiser.step()
    from pipeline.encoders.transforms import normalise

    images = normalise(_tiles().tiles.permute(0, 3, 1, 2).float(), one.transform)
    words = text_towers.clip_words()
    said = write_captions(one.module.eval(), images, words.sot_token_id, words.eot_token_id, 12)
    assert [words.decode(ids).strip() for ids in said] == [f"word {i}" for i in range(4)]


def test_heads_alone() -> None:
    one = learner(COCA, train="heads")
    trained = {n for n, p in one.module.named_parameters() if p.requires_grad}
    assert "visual.proj" in trained and "visual.attn_pool.query" in trained
    assert "visual.attn_pool_contrastive.query" in trained and "logit_scale" in trained
    assert any(n.startswith("text_decoder.") for n in trained)
    assert not any("transformer.resblocks" in n for n in trained if "decoder" not in n)
    assert not HEADS.fullmatch("visual.conv1.weight")
    assert HEADS.fullmatch("visual.head.proj.weight")


# --- the stage ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return results_folder(tmp_path_factory.mktemp("pairs"))


@pytest.mark.parametrize("config", [CLIP, COCA], ids=["clip", "coca"])
def test_what_comes_out_is_a_teacher(root: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    one = job(root, tmp_path, config, name="lab", steps=4, held_out=0.5)
    stage.run(job=one, root=root, base=root, device="cpu")
    folder = root / "teachers/lab"
    facts = read_paired(root, "lab")
    assert (len(facts.learned_cases), len(facts.held_out_cases)) == (2, 2)
    assert not set(facts.learned_cases) & set(facts.held_out_cases)
    before, after = facts.held_out["start"], facts.held_out["learned"]
    assert set(before) == set(after) and before["score"] != after["score"]
    assert set(facts.chance) <= set(after) and (facts.judged_tiles, facts.judged_texts) == (8, 2)
    kept = pd.read_csv(folder / "curve.csv").set_index("step").loc[facts.best_step]
    assert after["score"] == pytest.approx(kept["score"], rel=1e-4)
    assert facts.steps == 4 and not (folder / "training.pt").exists()
    assert len(pd.read_csv(folder / "curve.csv")) == 2
    from pipeline.config.extraction import TeacherConfig

    settings = TeacherConfig(source="open_clip", weights="local")
    place = str(root / "teachers")
    encoder = build.build("lab", settings, levels=("high", "aligned"), weights_dir=place)
    tiles = torch.randint(0, 255, (2, 32, 32, 3), dtype=torch.uint8)
    image = build.encode(encoder, tiles)["aligned"]
    text = text_towers.encode(text_towers.build("lab", settings, place), ["dark", "pale"])
    assert image.shape == text.shape == (2, config["embed_dim"])
    if config is COCA:
        written = pd.read_csv(folder / "written.csv", keep_default_na=False)
        assert list(written.columns) == ["slide_id", "x", "y", "caption", "written"]


def test_a_training_that_was_broken_off_goes_on(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = job(root, tmp_path, CLIP, name="whole", steps=6)
    stage.run(job=whole, root=root, base=root, device="cpu")
    parts = job(root, tmp_path, CLIP, name="parts", steps=6)
    original = stage.fit

    def broken(*args: Any, **kwargs: Any) -> Any:
        original(*args, **kwargs, stop_after=4)
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "fit", broken)
    with pytest.raises(KeyboardInterrupt):
        stage.run(job=parts, root=root, base=root, device="cpu")
    assert (root / "teachers/parts/training.pt").exists()
    monkeypatch.setattr(stage, "fit", original)
    stage.run(job=parts, root=root, base=root, device="cpu")
    weights = [(root / f"teachers/{n}/model.safetensors").read_bytes() for n in ("whole", "parts")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("config", "cfg", "kind", "said"),
    [
        (CLIP, {"objective": "coca"}, UserError, "needs a model with a decoder"),
        (COCA, {"objective": "clip"}, UserError, "the model has a decoder"),
        (CLIP, {"captions": "none.csv"}, UserError, "cannot be read"),
    ],
)
def test_what_cannot_be_learned_is_said(
    root: Path, tmp_path: Path, config: dict[str, Any], cfg: dict[str, Any],
    kind: type[Exception], said: str,
) -> None:  # fmt: skip
    with pytest.raises(kind, match=said):
        stage.run(job=job(root, tmp_path, config, name="x", **cfg), root=root, base=root)


def test_a_description_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="no such description"):
        open_clip_models.read_recipe(Path("none.json"))


def test_a_start_must_be_a_model_of_open_clip() -> None:
    with pytest.raises(ValueError, match="needs source: open_clip"):
        PairsConfig.model_validate({"name": "a", "start": {"source": "registry"}})


@pytest.mark.slow
def test_two_processes_learn_the_same_model(root: Path, tmp_path: Path) -> None:
    """Under torchrun both contrast with each other's pairs and end with equal parameters."""
    one = job(root, tmp_path, CLIP, name="both", steps=3)
    code = (
        "import sys; from pathlib import Path; from pipeline.config.pairs import PairsJob; "
        "from pipeline.pairs import stage; root = Path(sys.argv[1]); "
        "stage.run(job=PairsJob.model_validate_json(sys.argv[2]), root=root, base=root, "
        "device='cpu')"
    )
    script = tmp_path / "both.py"
    script.write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2",
               "--master_port=29611", str(script), str(root), one.model_dump_json()]  # fmt: skip
    subprocess.run(command, check=True, cwd=Path.cwd(), env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert json.loads((root / "teachers/both/facts.json").read_text())["steps"] == 3
