"""Several processes that train one network together (`torchrun`), or one alone.

Gradients are averaged once per step, after all of its parts: whatever a step does to get them, in
however many passes, works on several GPUs, too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True)
class Processes:
    """This process among all.

    Attributes:
        rank: its number.
        world: how many there are.
        device: where it computes.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all are here."""
        if self.world > 1:
            dist.barrier()

    def average(self, values: list[Tensor]) -> None:
        """Replace float tensors by their means over all processes, in one exchange."""
        if self.world == 1 or not values:
            return
        flat = torch.cat([value.detach().float().flatten() for value in values])
        dist.all_reduce(flat)
        flat /= self.world
        start = 0
        for value in values:
            value.copy_(flat[start : start + value.numel()].view_as(value))
            start += value.numel()

    def average_gradients(self, module: nn.Module) -> None:
        """Of all parameters that are trained; one that was not used here counts as zero."""
        if self.world == 1:
            return
        trained = [p for p in module.parameters() if p.requires_grad]
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.average([p.grad for p in trained if p.grad is not None])

    def average_buffers(self, module: nn.Module) -> None:
        """Running means and deviations, which every process has of its own tiles."""
        self.average([b for b in module.buffers() if b.is_floating_point()])


@contextlib.contextmanager
def processes(device: str = "auto") -> Iterator[Processes]:
    """This process among those that `torchrun` started; alone without it.

    Args:
        device: auto, cpu, cuda, cuda:1; with `torchrun` each process takes a GPU of its own.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank, local = int(os.environ.get("RANK", "0")), int(os.environ.get("LOCAL_RANK", "0"))
    gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if world == 1:
        place = device if device != "auto" else ("cuda" if gpu else "cpu")
        yield Processes(0, 1, torch.device(place))
        return
    place = f"cuda:{local}" if gpu else "cpu"
    if gpu:
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if gpu else "gloo")
    try:
        yield Processes(rank, world, torch.device(place))
    finally:
        dist.destroy_process_group()
