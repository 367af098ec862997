"""Two processes on the CPU learn what one would from both their tiles."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.config.pretraining import PretrainingConfig
from pipeline.config.pretraining import PretrainingJob as Job
from pipeline.contracts.pretrained import read_pretrained
from tests.pretraining.test_pretraining_stage import config, six_slides

REPOSITORY = Path(__file__).parents[2]

# Projections stand for a network's: what is common to the processes comes after it. Each process
# has every second pair of views, as no loss depends on the order of tiles.
SCRIPT = """
import sys, torch
from torch import nn
from pipeline.pretraining.heads import balanced
from pipeline.pretraining.methods.base import Moment, gathered
from pipeline.pretraining.cluster_loss import cluster_loss
from pipeline.tile_training.processes import processes
from tests.pretraining.conftest import small_method

torch.set_num_threads(1)
found = {}

class Given(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.head = nn.Linear(12, width)
        self.num_features = width
    def forward(self, x):
        return self.head(x)

def plain(name, **keys):
    method = small_method(name, **keys)
    torch.manual_seed(1)
    method.trunk, method.projector = nn.Identity(), Given(32)
    for one in method.modules():
        if isinstance(one, nn.BatchNorm1d):  # of the CPU, each process has its own
            one.eval()
    return method

with processes("cpu") as here:
    whole = torch.randn(2, 16, 12, generator=torch.Generator().manual_seed(0))
    mine = whole[:, here.rank::here.world]
    for name in ("simclr", "barlow_twins", "swav"):
        keys = {"small_crops": 0, "queue": 0, "frozen": 0.0} if name == "swav" else {}
        method = plain(name, **keys)
        loss = method(list(mine), Moment(1, 0.5))["loss"]
        loss.backward()
        here.average_gradients(method)
        total = loss.detach().reshape(1).clone()
        here.average([total])
        found[name] = total
        found[name + " gradient"] = method.projector.head.weight.grad
    z, weight = mine.flatten(0, 1), torch.linspace(-1, 1, 48).reshape(12, 4).requires_grad_()
    scores = z @ weight
    members = nn.functional.one_hot(scores.argmax(1), 4) + scores.softmax(1)
    members = members - scores.softmax(1).detach()
    loss = cluster_loss(gathered(z), gathered(members), gathered(scores))
    (found["clusters gradient"],) = torch.autograd.grad(loss, weight)
    here.average([found["clusters gradient"]])
    found["clusters"] = loss.detach()
    mean = (balanced(z[:, :6], 0.5) / 0.5).softmax(1).square().mean().reshape(1)
    here.average([mean])
    found["balanced"] = mean
    queue = small_method("pcl")
    queue.push(z.repeat(1, 3)[:, :32])
    found["queue"] = queue.queue[: int(queue.filled)].sort(0).values
    dino = small_method("dino", small_crops=0)
    dino.distil.update_center(z.repeat(1, 2)[:, :24].reshape(2, -1, 24))
    found["centre"] = dino.distil.center.flatten()
    if here.first:
        torch.save(found, sys.argv[1])
"""


def together(world: int, *command: str) -> None:
    run = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *run, *command], env=environment, timeout=400, cwd=REPOSITORY,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.slow
def test_losses_and_gradients_are_those_of_all_tiles_together(tmp_path: Path) -> None:
    script = tmp_path / "gather.py"
    script.write_text(SCRIPT)
    for world in (1, 2):
        together(world, str(script), str(tmp_path / f"{world}.pt"))
    alone, both = (torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in (1, 2))
    assert set(alone) == set(both) and len(alone) == 11
    for name, value in alone.items():
        torch.testing.assert_close(both[name], value, atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.slow
def test_torchrun_makes_one_teacher_of_two_processes(tmp_path: Path) -> None:
    root = six_slides(tmp_path)
    job = Job(pretraining=PretrainingConfig(teachers={"mine": config()}))
    together(
        2, "-m", "pipeline", "pretraining", "--cfg", json.dumps(json.loads(job.canonical())),
        "--root", str(root), "--teacher", "mine", "--workers", "2",
    )  # fmt: skip
    facts = read_pretrained(root, "mine")
    assert facts.steps == 6 and facts.images == 6 * 8 * 2
    assert (root / "teachers" / "mine" / "model.safetensors").is_file()
