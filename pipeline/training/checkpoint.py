"""A trained model on disk: safetensors for the weights, JSON for everything else.

`fold_<k>/seed_<s>/` is complete when its meta.json is there, which is written last. The JSON holds
all that is needed to build the model again; no Python objects are stored.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter
from safetensors.torch import load_file, save

from pipeline.aggregators.network import Network, Shape
from pipeline.config.models import ModelConfig
from pipeline.contracts.model_meta import FILE, ModelMeta, read_meta, write_meta
from pipeline.errors import ArtifactError
from pipeline.files.artifacts import atomic_path
from pipeline.training.head import Head
from pipeline.training.models import build_network
from pipeline.training.tasks import from_facts

WEIGHTS = "weights.safetensors"


def save_checkpoint(folder: Path, network: Network, meta: ModelMeta) -> None:
    """Write the weights without what only training needs, then meta.json.

    Args:
        folder: of the fold and seed.
        network: trained.
        meta: what is written as meta.json.
    """
    state = {
        name: value.detach().cpu().contiguous().clone()
        for name, value in network.state_dict().items()
        if not name.startswith(network.training_only)
    }
    with atomic_path(folder / WEIGHTS) as temporary:
        # The library's own writing goes through a temporary file that a kill leaves behind.
        temporary.write_bytes(save(state))
    write_meta(folder, meta)


def load_checkpoint(folder: str | Path) -> tuple[Network, Head, ModelMeta]:
    """Build the model of a fold and seed again.

    Args:
        folder: `models/<task>/<model>/fold_<k>/seed_<s>`.

    Returns:
        the network in evaluation mode on the CPU, the task head, and meta.json.

    Raises:
        ArtifactError: a file is missing or damaged, or the weights do not fit the description.
    """
    folder = Path(folder)
    meta = read_meta(folder)
    model = TypeAdapter(ModelConfig).validate_python(meta.model)
    shape = Shape(tuple(meta.teachers), tuple(meta.dims), meta.outputs)
    network = build_network(model, shape)
    try:
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, RuntimeError) as error:
        raise ArtifactError(f"{folder / WEIGHTS}: does not fit its {FILE} ({error})") from None
    return network.eval(), from_facts(meta.head), meta
