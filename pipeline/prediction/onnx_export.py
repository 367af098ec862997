"""Encoders and models of a file as ONNX, each compared with PyTorch before it is believed.

An encoder's input is `images`, float32 (tiles, 3, side, side), resized, cropped and normalised as
its line in `onnx.json` says; its outputs are the levels. A model's inputs are the features of one
case, float32 (1, tiles, width), one input a teacher and level, `<teacher>.<level>`; its output is
what its head in the card speaks of. Tiling, calibration and the mean over the models stay outside.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.aggregators.network import Network
from pipeline.bags.batch import Batch
from pipeline.encoders.build import Encoder, describe
from pipeline.encoders.taps import forward_levels
from pipeline.errors import ArtifactError, ConfigError, UserError
from pipeline.files.artifacts import atomic_path, write_json
from pipeline.prediction.encoders import open_encoder
from pipeline.prediction.model_file import ModelFile, member_prefix, models
from pipeline.runtime import progress

CPU = torch.device("cpu")
OPSET = 18
TRACED, TRIED = (2, 7), (3, 19)  # tiles of an encoder's and of a model's example, and of the test
TOLERANCE = 1e-3  # of the largest absolute value of an output


@dataclasses.dataclass(frozen=True)
class Parity:
    """One ONNX file, compared with PyTorch on another number of tiles than it was traced with.

    Attributes:
        file: its name.
        inputs, outputs: names.
        transform: of an encoder's images; empty for a model.
        difference: the largest, of the largest absolute value of the output.
    """

    file: str
    inputs: list[str]
    outputs: list[str]
    transform: str
    difference: float


class Levels(nn.Module):
    """An encoder as a function of images.

    Args:
        encoder: on the CPU.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.module = encoder.module
        self.taps, self.levels = encoder.taps, encoder.levels

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        found = forward_levels(self.module, images, self.taps, self.levels)
        return tuple(found[level].float() for level in self.levels)


class OneCase(nn.Module):
    """A model as a function of the features of one case that has all its teachers.

    Args:
        network: in evaluation mode, on the CPU.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        dims = network.shape.dims
        self.places = [(t, level) for t, own in enumerate(dims) for level in own]

    def forward(self, *features: Tensor) -> Tensor:
        given: list[dict[str, Tensor]] = [{} for _ in self.network.shape.dims]
        for (t, level), values in zip(self.places, features, strict=True):
            given[t][level] = values
        first = [next(iter(own.values())) for own in given]
        masks = tuple(torch.zeros_like(x[..., 0], dtype=torch.bool) for x in first)
        case = torch.zeros(1, dtype=torch.int64)
        present = torch.ones(1, len(given), dtype=torch.bool)
        out: Tensor = self.network(Batch(case, tuple(given), masks, masks, present)).out
        return out


def write_onnx(file: ModelFile, folder: Path, weights_dir: str | None = None) -> list[Parity]:
    """Write `<encoder>.onnx` and `fold_<k>.seed_<s>.onnx`, and what each is to `onnx.json`.

    Args:
        file: the model file.
        folder: where to.
        weights_dir: folder of encoder weights that are not in the file.

    Raises:
        UserError: the model is a stack of others.
        ConfigError: onnx or onnxruntime is not installed, or a network has a part that ONNX lacks.
        ArtifactError: what was written gives other numbers than PyTorch.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError:
        raise ConfigError(
            "--onnx needs two more packages: pip install 'shazam-pathology[onnx]'"
        ) from None
    onnxruntime.set_default_logger_severity(3)
    card, found = file.card, []
    if any(member.stack for member in card.members):
        raise UserError(
            f"--onnx: `{card.model_name}` is a regression on other models or on covariates, which "
            "is in the file as plain numbers; write those that it reads as ONNX, one by one"
        )
    for one in progress.counted(card.encoders, "encoders as ONNX"):
        encoder = open_encoder(file, one, weights_dir, CPU)
        side = encoder.transform.crop
        named = f"{one.name}.onnx"
        made = Levels(encoder).eval()
        tried: list[tuple[Tensor, ...]] = [
            (torch.rand(n, 3, side, side),) for n in (TRACED[0], TRIED[0])
        ]
        off = _write(made, folder / named, tried, ["images"], list(encoder.levels), 0)
        found.append(
            Parity(named, ["images"], list(encoder.levels), describe(encoder.transform), off)
        )
    for model in progress.counted(models(file, None, CPU), "models as ONNX"):
        case = OneCase(model.network).eval()
        names = [f"{card.teachers[t]}.{level}" for t, level in case.places]
        widths = [card.dims[t][level] for t, level in case.places]
        examples = [tuple(torch.randn(1, n, w) for w in widths) for n in (TRACED[1], TRIED[1])]
        named = f"{member_prefix(model.member)}.onnx"
        off = _write(case, folder / named, examples, names, ["out"], 1)
        found.append(Parity(named, names, ["out"], "", off))
    write_json(folder / "onnx.json", [dataclasses.asdict(one) for one in found])
    return found


def _write(
    module: nn.Module,
    path: Path,
    examples: Sequence[tuple[Tensor, ...]],
    inputs: list[str],
    outputs: list[str],
    tiles: int,
) -> float:
    """Trace a module with the first example, and compare with PyTorch on the second.

    Args:
        module: in evaluation mode.
        path: the file to write.
        examples: inputs of two sizes.
        inputs, outputs: their names.
        tiles: which dimension of the inputs counts tiles, and may have any size.

    Returns:
        the largest difference, of the largest absolute value of the output.
    """
    import onnxruntime

    axes = {name: {tiles: "tiles"} for name in inputs}
    if tiles == 0:
        axes |= {name: {0: "tiles"} for name in outputs}
    with atomic_path(path) as temporary:
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    module,
                    examples[0],
                    str(temporary),
                    input_names=inputs,
                    output_names=outputs,
                    dynamic_axes=axes,
                    opset_version=OPSET,
                    dynamo=False,
                )
        except (torch.onnx.errors.UnsupportedOperatorError, RuntimeError) as error:
            said = str(error).splitlines()[0]
            raise ConfigError(f"{path.name}: cannot be written as ONNX ({said})") from None
        session = onnxruntime.InferenceSession(str(temporary), providers=["CPUExecutionProvider"])
        off = _difference(session, module, inputs, examples[1])
        if not off <= TOLERANCE:
            raise ArtifactError(
                f"{path.name}: as ONNX it gives other numbers than PyTorch (off by {off:.2g} of "
                "the largest); nothing was written"
            )
    return off


def _difference(
    session: Any, module: nn.Module, inputs: list[str], example: tuple[Tensor, ...]
) -> float:
    """The largest difference between ONNX and PyTorch, of the largest absolute value."""
    with torch.no_grad():
        said = module(*example)
    wanted = said if isinstance(said, tuple) else (said,)
    known = {one.name for one in session.get_inputs()}
    given = {
        name: value.numpy() for name, value in zip(inputs, example, strict=True) if name in known
    }
    off = 0.0
    for here, there in zip(wanted, session.run(None, given), strict=True):
        scale = max(float(here.abs().max()), 1e-6)
        off = max(off, float(np.abs(here.numpy() - there).max()) / scale)
    return off
