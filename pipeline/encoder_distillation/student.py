"""The student: a small encoder, and for each teacher a head that answers as that teacher would."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.config.encoder_distillation import EncoderStudent
from pipeline.encoders import build, weights
from pipeline.encoders.registry import Model
from pipeline.encoders.taps import Taps, as_maps, find_taps, forward_levels, forward_maps
from pipeline.encoders.transforms import Transform
from pipeline.errors import ConfigError

HEAD = 64  # width of an attention head where a student's width is the config's
RIDGE = 0.3  # of the mean of the squared features, added to each


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a student's encoder is made of.

    Attributes:
        arch: timm's name, or one of `pipeline.encoders.architectures`.
        kwargs: its arguments.
        pooling: of its output.
        transform: from tiles to its input.
    """

    arch: str
    kwargs: dict[str, Any]
    pooling: str | None
    transform: Transform


def start(
    name: str, student: EncoderStudent, weights_dir: str | None, control: bool = False
) -> tuple[nn.Module, Plan]:
    """The encoder that a student starts as.

    Args:
        name: of the student, for messages.
        student: its config.
        weights_dir: folder of local weights.
        control: without a token for each teacher, which has no meaning yet.

    Raises:
        ConfigError: it has no such depth, width or tokens.
        ArtifactError: its weights are missing or damaged.
    """
    cfg = student.encoder
    network = build.make_network(name, cfg)
    if network.row is not None and network.row.loader != "timm":
        raise ConfigError(
            f"encoder_distillation.students.{name}.encoder: {network.row.title} runs with its "
            "authors' code, which cannot be trained here; take another"
        )
    source = weights.find(network.module, name, cfg, network.row, weights_dir)
    network = build.load_weights(network, name, cfg, source)
    row = network.row
    if row is not None:
        arch, kwargs = row.arch, dict(row.kwargs)
    else:
        _, size = build.timm_size(cfg)
        arch, kwargs = str(cfg.model), {"num_classes": 0, **size}
    pooling = cfg.pooling or (row.pooling if row else None)
    px = network.transform.crop
    transform = dataclasses.replace(network.transform, resize=px)
    tokens = 0 if control or student.tokens == "shared" else len(student.teachers)
    changes = _changes(name, student, network.module, tokens)
    if not changes:
        return network.module, Plan(arch, kwargs, pooling, transform)
    kwargs |= changes
    module = build.seeded(arch, cfg.seed, **kwargs)
    if cfg.weights != "random":
        module.load_state_dict(_carried(network.module, module))
    return module, Plan(arch, kwargs, "registers" if tokens else pooling, transform)


def row_of(
    name: str,
    module: nn.Module,
    plan: Plan,
    *,
    title: str,
    licence: str,
    restricted: bool,
    mpp: float,
) -> Model:
    """The registry row of a student's encoder.

    Args:
        name: the encoder's.
        module: the encoder.
        plan: what it is made of.
        title: for people.
        licence: of it and of all its teachers.
        restricted: whether one of these restricts what is trained on outputs.
        mpp: µm per pixel of its input.
    """
    anything: Any = module
    taps = find_taps(module, plan.pooling)
    px = plan.transform.crop
    device = next(module.parameters()).device
    with torch.no_grad():
        blank = torch.zeros(1, 3, px, px, device=device)
        dim = forward_levels(module.eval(), blank, taps, ("high",))["high"].shape[1]
    patch = getattr(getattr(anything, "patch_embed", None), "patch_size", 0)
    blocks = getattr(anything, "blocks", None)
    return Model(
        name=name,
        title=title,
        loader="timm",
        arch=plan.arch,
        poolings={taps.pooling: int(dim)},
        resize=px,
        crop=px,
        interp=plan.transform.interp,
        mean=plan.transform.mean,
        std=plan.transform.std,
        mpp=(round(mpp, 6),),
        depth=len(blocks) if blocks is not None else 0,
        taps=(taps.low, taps.mid),
        params=weights.count_parameters(module),
        licence=licence,
        gated=False,
        tokens=int(getattr(anything, "num_prefix_tokens", 0)),
        patch=int(patch[0] if isinstance(patch, tuple) else patch),
        kwargs=plan.kwargs,
        dtype="bf16",
        derivative_restricted=restricted,
    )


class Student(nn.Module):
    """An encoder with a head for each teacher and each size of the embedding.

    With a token for each teacher a head reads its own teacher's token, and the embedding is the
    mean of these tokens; else all heads read the one embedding. A smaller size is the embedding's
    first numbers alone, so that an embedding can be cut without training anything again.

    Sources: Ranzinger et al. 2024, "AM-RADIO", for heads; Kusupati et al. 2022, "Matryoshka
    representation learning", for sizes.

    Args:
        encoder: the small encoder.
        taps: where it is read.
        dims: teacher -> width of its features.
        per_teacher: whether it has a token for each teacher, in their order.
        sizes: smaller sizes of the embedding.
        width: of the heads' hidden layer.
        px: side of the input in pixels.
        keep_norms: batch norms go on with the means and variances that they start with. A batch is
            of few slides, whose stain would become that of the encoder.
        live: teacher -> width of its patch tokens, where these are learned, too.

    Raises:
        ConfigError: a size is not smaller than the embedding.
    """

    def __init__(
        self,
        encoder: nn.Module,
        taps: Taps,
        dims: Mapping[str, int],
        per_teacher: bool,
        sizes: Sequence[int],
        width: int,
        px: int,
        *,
        keep_norms: bool = False,
        live: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.keep_norms = keep_norms
        self.taps = taps
        self.teachers = tuple(dims)
        self.per_teacher = per_teacher
        with torch.no_grad():
            blank = torch.zeros(1, 3, px, px)
            whole = self.embed(blank)[0].shape[1]
            maps = self.look(blank)[2].shape[1] if live else 0
        self.token_heads = nn.ModuleDict(
            {name.replace(".", "_"): nn.Conv2d(maps, dim, 1) for name, dim in (live or {}).items()}
        )
        wrong = [size for size in sizes if size >= whole]
        if wrong:
            raise ConfigError(
                f"encoder_distillation: nested: {wrong[0]} is not smaller than the embedding, "
                f"{whole}"
            )
        self.sizes = (*sorted(sizes), whole)
        self.heads = nn.ModuleList(
            nn.ModuleList(Head(size, width, dim) for size in self.sizes) for dim in dims.values()
        )

    def train(self, mode: bool = True) -> Student:
        """As every module's, but for the batch norms that are kept."""
        super().train(mode)
        for module in self.encoder.modules() if self.keep_norms else ():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def embed(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The embedding, and what the head of each teacher reads.

        Args:
            images: normalised (B, 3, px, px).

        Returns:
            (B, d), and as many (B, d) as there are teachers.
        """
        if not self.per_teacher:
            found = forward_levels(self.encoder, images, self.taps, ("high",))["high"]
            return found, [found] * len(self.teachers)
        network: Any = self.encoder
        tokens = network.forward_features(images)[:, 1 : 1 + len(self.teachers)]
        return tokens.mean(1), list(tokens.unbind(1))

    def look(self, images: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """As `embed`, and the patch tokens or maps (B, C, h, w).

        Args:
            images: normalised (B, 3, px, px).
        """
        if not self.per_teacher:
            found, maps = forward_maps(self.encoder, images, self.taps)
            return found, [found] * len(self.teachers), maps
        network: Any = self.encoder
        features = network.forward_features(images)
        tokens = features[:, 1 : 1 + len(self.teachers)]
        maps = as_maps(network, features, self.taps)
        return tokens.mean(1), list(tokens.unbind(1)), maps

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, list[Tensor]]]:
        """The embedding (B, d), and for each teacher the answers (B, D), smallest size first."""
        embedding, read = self.embed(images)
        return embedding, self.say(read)

    def say(self, read: Sequence[Tensor]) -> dict[str, list[Tensor]]:
        """What each teacher's heads make of what they read, smallest size first.

        Args:
            read: as many (B, d) as there are teachers.
        """
        return {
            teacher: [one(values[:, :size]) for one, size in zip(heads, self.sizes, strict=True)]  # type: ignore[call-overload]
            for teacher, values, heads in zip(self.teachers, read, self.heads, strict=True)
        }

    def token_head(self, teacher: str) -> nn.Module:
        """From its patch tokens to a teacher's."""
        return self.token_heads[teacher.replace(".", "_")]


class Head(nn.Module):
    """From an embedding to a teacher's features: a linear map, corrected by a hidden layer.

    The correction starts at zero, and the map where a regression puts it (`start_heads`): a student
    with weights to start from need not wait for its heads.

    Args:
        size: of the embedding.
        width: of the hidden layer.
        dim: of the features.
    """

    def __init__(self, size: int, width: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, dim)
        self.hidden = nn.Sequential(
            nn.LayerNorm(size), nn.Linear(size, width), nn.GELU(), nn.Linear(width, dim)
        )
        for parameter in self.hidden[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, size) -> (B, dim)."""
        return self.linear(embedding) + self.hidden(embedding)


@torch.no_grad()
def start_heads(student: Student, views: Sequence[Tensor], targets: Mapping[str, Tensor]) -> None:
    """Put every head's linear map where ridge regression does.

    Args:
        student: whose heads are meant.
        views: for each teacher (N, d), what its head reads of some training tiles.
        targets: teacher -> (N, D), standardised.
    """
    for teacher, view, heads in zip(student.teachers, views, student.heads, strict=True):
        of_sizes: Any = heads
        target = targets[teacher].double()
        for size, one in zip(student.sizes, of_sizes, strict=True):
            seen = view[:, :size].double()
            centre, mean = seen.mean(0), target.mean(0)
            products = (seen - centre).T @ (seen - centre)
            ridge = RIDGE * products.diagonal().mean().clamp_min(1e-12)
            products.diagonal().add_(ridge)
            weight = torch.linalg.solve(products, (seen - centre).T @ (target - mean))
            one.linear.weight.copy_(weight.T)
            one.linear.bias.copy_(mean - centre @ weight)


def _changes(name: str, student: EncoderStudent, module: nn.Module, tokens: int) -> dict[str, Any]:
    """Arguments that make another depth, width or number of tokens of an architecture."""
    asked = {"depth": student.depth, "width": student.width, "tokens: per_teacher": tokens}
    wanted = [key for key, value in asked.items() if value]
    if not wanted:
        return {}
    where = f"encoder_distillation.students.{name}"
    if not isinstance(module, VisionTransformer) or module.cls_token is None:
        raise ConfigError(
            f"{where}.{wanted[0]}: only a vision transformer with a class token can be changed so, "
            f"and {student.encoder.model or name} is none"
        )
    if tokens and module.num_reg_tokens:
        raise ConfigError(f"{where}.tokens: the encoder has registers of its own; use `shared`")
    if student.depth and student.depth > len(module.blocks):
        raise ConfigError(f"{where}.depth: the encoder has {len(module.blocks)} blocks")
    changes: dict[str, Any] = {}
    if student.depth:
        changes["depth"] = student.depth
    if student.width:
        if student.width % HEAD:
            raise ConfigError(f"{where}.width: must be a multiple of {HEAD}, a head's width")
        changes |= {"embed_dim": student.width, "num_heads": student.width // HEAD}
    if tokens:
        changes["reg_tokens"] = tokens
    return changes


def _carried(old: nn.Module, new: nn.Module) -> dict[str, Tensor]:
    """The new network's parameters with those of the old one that have a place in it.

    Of a deeper network every so manyth block is taken, first and last included. Tokens that the old
    one has not keep their drawn values, and so do their positions.
    """
    state, given = new.state_dict(), old.state_dict()
    blocks: Any = new.blocks
    before: Any = old.blocks
    steps = max(1, len(blocks) - 1)
    taken = {i: round(i * (len(before) - 1) / steps) for i in range(len(blocks))}
    for name in state:
        source = name
        if name.startswith("blocks."):
            number, _, rest = name.removeprefix("blocks.").partition(".")
            source = f"blocks.{taken[int(number)]}.{rest}"
        if source not in given:
            continue
        if name == "pos_embed" and state[name].shape != given[source].shape:
            patches = given[source].shape[1] - 1
            state[name][:, :1] = given[source][:, :1]
            state[name][:, -patches:] = given[source][:, 1:]
        else:
            state[name] = given[source]
    return state
