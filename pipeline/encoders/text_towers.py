"""Text towers: from prompts to unit vectors beside the image features of the same teacher.

A tower is built and filled apart from the image tower, of the same weights file, since the two are
needed by different stages. Three kinds: `clip`, open_clip's text transformer with CLIP's own words
(also for a CLIP of transformers); `conch`, the same with a class token and CONCH's words; `keep`,
a BERT.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config.extraction import TeacherConfig
from pipeline.encoders import open_clip_models, registry, weight_files, weights
from pipeline.encoders.registry import Model
from pipeline.errors import ConfigError, UserError

# Raised when features of the same text change. 1: the first. 2: KEEP reads lower case alone.
VERSION = 2

BATCH = 64
SCALE = 100.0  # of cosines before a softmax, where the file has none: CLIP's at the end of training
Words = Callable[[str], list[int]]


@dataclasses.dataclass(frozen=True)
class Tokeniser:
    """From a text to token ids.

    Attributes:
        words: a text's tokens, with those that open and close it.
        context: tokens that the tower takes.
        pad: the id that fills a row.
    """

    words: Words
    context: int
    pad: int = 0


@dataclasses.dataclass(frozen=True)
class TextTower:
    """A teacher's text tower that is ready to run.

    Attributes:
        name: the teacher's name in the config.
        forward: token ids int64 (n, context) -> features (n, D).
        tokeniser: of its words.
        scale: what cosines are multiplied by before a softmax.
        revision: of its weights.
    """

    name: str
    forward: Callable[[Tensor], Tensor]
    tokeniser: Tokeniser
    scale: float
    revision: str


def build(name: str, cfg: TeacherConfig, weights_dir: str | None = None) -> TextTower:
    """Build a teacher's text tower and load its weights, on the CPU.

    Args:
        name: the teacher's name in the config.
        cfg: its settings.
        weights_dir: folder of local weights, one subfolder per teacher.

    Raises:
        ConfigError: the teacher has no text tower that can be built here, or no weights.
        ArtifactError: the weights are damaged or of another model.
    """
    row = registry.check(name, cfg)
    if not registry.speaks(name, cfg):
        raise ConfigError(f"teacher `{name}`: has no text tower; {_speaking()}")
    module, layout = _module(name, cfg, row, weights_dir)
    source = weights.find(module, name, cfg, row, weights_dir)
    if source.path is not None:
        weights.fill(module, source.path, layout)
    module = module.eval().requires_grad_(False)
    tokeniser = _tokeniser(name, cfg, row, weights_dir, module)
    scale = float(module.logit_scale.detach().float().exp()) if source.path else SCALE
    return TextTower(name, module, tokeniser, scale, source.revision)


@torch.inference_mode()
def encode(tower: TextTower, texts: Sequence[str], cut: bool = False) -> Tensor:
    """Texts as unit vectors.

    Args:
        tower: of `build`.
        texts: any number.
        cut: whether texts that are longer than the tower's context are cut.

    Returns:
        float32 (n, D), each of length 1.

    Raises:
        UserError: a text has more tokens than the tower takes, and is not to be cut: it would lose
            its end, where the diagnosis often stands.
    """
    rows = [tokens(tower.tokeniser, text, tower.name, cut) for text in texts]
    parts = [
        F.normalize(tower.forward(torch.stack(rows[start : start + BATCH])).float(), dim=-1)
        for start in range(0, len(rows), BATCH)
    ]
    return torch.cat(parts) if parts else torch.empty(0, 0)


def too_long(tokeniser: Tokeniser, texts: Iterable[str]) -> int:
    """How many texts have more tokens than the tower takes."""
    return sum(len(tokeniser.words(text)) > tokeniser.context for text in texts)


def tokens(tokeniser: Tokeniser, text: str, name: str = "", cut: bool = False) -> Tensor:
    """A text as one padded row of token ids.

    Args:
        tokeniser: of the tower.
        text: the text.
        name: the teacher's name, for the message.
        cut: whether a text that is too long is cut, its closing token kept.

    Returns:
        int64 (context,).

    Raises:
        UserError: it is too long, and not to be cut.
    """
    found = tokeniser.words(text)
    if len(found) > tokeniser.context:
        if not cut:
            raise UserError(
                f"teacher `{name}`: the text {text!r} has {len(found)} tokens, its text tower "
                f"takes {tokeniser.context}; shorten it"
            )
        found = [*found[: tokeniser.context - 1], found[-1]]
    row = torch.full((tokeniser.context,), tokeniser.pad, dtype=torch.int64)
    row[: len(found)] = torch.tensor(found)
    return row


@lru_cache(maxsize=1)
def clip_words() -> Any:
    """CLIP's tokeniser, whose vocabulary comes with open_clip."""
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


def clip_tokeniser(context: int) -> Tokeniser:
    """CLIP's words for a tower that takes so many tokens."""
    words = clip_words()

    def split(text: str) -> list[int]:
        return [words.sot_token_id, *words.encode(text), words.eot_token_id]

    return Tokeniser(split, context)


class OpenClipText(nn.Module):
    """open_clip's text tower and the scale of its cosines, named as in its files.

    Args:
        text: the tower.
        scale: the model's `logit_scale`.
    """

    def __init__(self, text: Any, scale: nn.Parameter | None = None) -> None:
        super().__init__()
        self.text = text
        self.logit_scale = scale if scale is not None else nn.Parameter(torch.tensor(0.0))

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids (n, context) -> features (n, D)."""
        found = self.text(ids)
        return found[0] if isinstance(found, tuple) else found


class KeepText(nn.Module):
    """KEEP's text tower: the pooled output of a BERT.

    Args:
        kwargs: of transformers' `BertConfig`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        self.text = BertModel(BertConfig(**kwargs))
        self.logit_scale = nn.Parameter(torch.tensor(0.0))

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids (n, context), 0 where padded -> features (n, D)."""
        return self.text(ids, attention_mask=(ids != 0).long()).pooler_output


def _module(
    name: str, cfg: TeacherConfig, row: Model | None, weights_dir: str | None
) -> tuple[Any, str]:
    if row is None:
        recipe = open_clip_models.find_recipe(name, cfg, weights_dir)
        model: Any = open_clip_models.make(recipe.config, cfg.seed)
        module = OpenClipText(model.text, model.logit_scale)
        facts = {"hf_hub_id": recipe.hf_id, "hf_hub_filename": recipe.file}
        module.pretrained_cfg = facts  # type: ignore[assignment]
        return module, "open_clip_text"
    kind, kwargs = row.text["kind"], dict(row.text["kwargs"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.seed)
        if kind == "keep":
            _need(name, "transformers", "the extra `words`")
            return KeepText(**kwargs), row.text["layout"]
        if kind == "musk":
            raise ConfigError(
                f"teacher `{name}`: {row.title}'s text tower runs with its authors' package alone, "
                "which is not on the package index; its image features can be used as any "
                f"teacher's. Teachers with words here: {_speaking()}"
            )
        from open_clip.transformer import QuickGELU, TextTransformer

        act = QuickGELU if kwargs.pop("quick_gelu", False) else nn.GELU
        return OpenClipText(TextTransformer(act_layer=act, **kwargs)), row.text["layout"]


def _tokeniser(
    name: str, cfg: TeacherConfig, row: Model | None, weights_dir: str | None, module: Any
) -> Tokeniser:
    kind = row.text["kind"] if row else "clip"
    if kind == "clip":
        return clip_tokeniser(int(module.text.context_length))
    assert row is not None
    facts: Mapping[str, Any] = row.text["words"]
    _need(name, "tokenizers", "the extra `words`")
    from tokenizers import Tokenizer

    read = Tokenizer.from_file(str(_words_file(name, cfg, row, facts["file"], weights_dir)))
    read.no_padding()
    read.no_truncation()

    opens, closes = (read.token_to_id(facts[key]) for key in ("opens", "closes"))
    if opens is None or closes is None:
        raise ConfigError(
            f"teacher `{name}`: {facts['file']} knows no {facts['opens']} or {facts['closes']}, so "
            f"that it is not the vocabulary of {row.title}"
        )

    lower = bool(facts.get("lower"))  # as the authors call it, whatever the file says

    def split(text: str) -> list[int]:
        read_as = text.lower() if lower else text
        return [opens, *read.encode(read_as, add_special_tokens=False).ids, closes]

    return Tokeniser(split, int(facts["context"]))


def _words_file(
    name: str, cfg: TeacherConfig, row: Model, file: str, weights_dir: str | None
) -> Path:
    """The tokeniser's JSON: beside local weights, in the authors' package, or on the hub."""
    if weights_dir and (path := Path(weights_dir).expanduser() / name / file).is_file():
        return path
    package = row.text["words"].get("package", "")
    found = importlib.util.find_spec(package) if package else None
    for folder in (found.submodule_search_locations if found else None) or ():
        for path in sorted(Path(folder).rglob(file)):
            return path
    if cfg.weights == "hub" and not package:
        from huggingface_hub import hf_hub_download

        revision = weight_files.wanted_revision(cfg, row)
        return Path(hf_hub_download(row.hf_id, file, revision=revision))
    raise ConfigError(
        f"teacher `{name}`: the words of {row.title}'s text tower, {file}, are neither in "
        f"extraction.weights_dir/{name}/"
        + (f" nor in the package `{package}`" if package else "")
        + "; copy the file there"
    )


def _need(name: str, package: str, how: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"teacher `{name}`: its text tower needs {package}, which is not installed; install "
            f"{how} of this package"
        )


def _speaking() -> str:
    rows = [row.name for row in registry.models().values() if row.text]
    return f"{', '.join(rows)}, and every model with source: open_clip"
