"""The learner: alarms fire in runs that are made to collapse, and the last sound step is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load_file

from pipeline.config.pretraining import AnyTeacher, PretrainedTeacher
from pipeline.encoders.transforms import Transform, normalise
from pipeline.errors import UserError
from pipeline.pretraining.learner import SelfSupervised, found_again
from pipeline.tile_training.loader import Batch
from pipeline.tile_training.trainer import Pass
from tests.pretraining.conftest import small_method

TRANSFORM = Transform(32, 32, "bilinear", (0.7, 0.5, 0.7), (0.2, 0.2, 0.2))


def config(**keys: Any) -> PretrainedTeacher:
    course = {
        "steps": 20, "batch_size": 8, "tiles_per_visit": 8, "validate_every": 1,
        **keys.pop("course", {}),
    }  # fmt: skip
    found: PretrainedTeacher = TypeAdapter(AnyTeacher).validate_python({"course": course, **keys})
    return found


def batch(count: int = 24, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    colours = torch.randint(0, 200, (count, 1, 1, 3), generator=generator)
    tiles = colours + torch.randint(0, 56, (count, 32, 32, 3), generator=generator)
    return Batch(tiles.to(torch.uint8), torch.zeros(count).long(), torch.arange(count))


def learner(folder: Path | None = None, then: str = "go_back", **keys: Any) -> SelfSupervised:
    cfg = config(alarms={"then": then, "after": 0.0}, **keys)
    return SelfSupervised(
        small_method(cfg.method), "mine", cfg, TRANSFORM, lambda: iter([batch()]), folder
    )


def test_a_pass_adds_its_share_of_the_gradient() -> None:
    one = learner()
    gradients = []
    for share in (1.0, 0.25):
        one.module.zero_grad()
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(0)
        losses = one.backward(batch(), Pass(0, share, generator, "fp32"))
        gradients.append(one.module.backbone.conv.weight.grad.clone())
    assert set(losses) == {"loss", "invariance", "clusters"}
    torch.testing.assert_close(gradients[1], 0.25 * gradients[0])


def collapse(one: SelfSupervised, how: str) -> None:
    """Make a network what its training could make it."""
    last = one.module.assigner[-1]
    with torch.no_grad():
        if how == "features":
            one.module.backbone.norm.weight.zero_()
            one.module.backbone.norm.bias.fill_(1.0)
        elif how == "dominant":
            last.weight.mul_(1e-4)
            last.bias[2] += 100
        else:
            last.weight.zero_()
            last.bias.zero_()


def sound(one: SelfSupervised) -> None:
    """Clusters that say something: large logits, of different tiles different ones."""
    module, last = one.module.eval(), one.module.assigner[-1]
    images = normalise(batch().tiles.permute(0, 3, 1, 2).float(), TRANSFORM)
    with torch.no_grad():
        hidden = module.assigner[:-1](module.projector(module.features(images)))
        last.weight.mul_(40 / hidden.std())
        last.bias.copy_(-last.weight @ hidden.mean(0))


@pytest.mark.parametrize("how", ["features", "dominant", "uniform"])
def test_an_alarm_ends_the_run_at_the_last_sound_step(how: str) -> None:
    one = learner()
    sound(one)
    one.stepped(3)
    module = one.module.eval()
    assert one.validate(module)["score"] == 4.0 and not one.ended() and one.sound == 4
    collapse(one, how)
    one.stepped(4)
    signs = one.validate(module)
    assert signs["score"] == -1.0 and one.ended() and one.sound == 4
    assert how in {alarm["name"] for alarm in one.raised}
    assert {alarm["step"] for alarm in one.raised} == {5}
    again = learner()
    again.restore(one.state())
    assert again.ended() and again.raised == one.raised


def trained(lead: float, decay: float, **keys: Any) -> set[str]:
    """The alarms after 30 steps of CluSiam: one logit begins with a lead, and weight decay pulls
    at all of them."""
    cfg = config(alarms={"then": "go_on", "after": 0.0})
    method = small_method("clusiam", **keys)
    one = SelfSupervised(method, "mine", cfg, TRANSFORM, lambda: iter([batch()]))
    with torch.no_grad():
        method.assigner[-1].bias[2] += lead
    others = [p for name, p in method.named_parameters() if not name.startswith("assigner.")]
    pulled = {"params": list(method.assigner.parameters()), "weight_decay": decay}
    optimiser = torch.optim.SGD([{"params": others}, pulled], 0.05, momentum=0.9)
    generator = torch.Generator()
    for step in range(30):
        torch.manual_seed(step)
        generator.manual_seed(step)
        optimiser.zero_grad()
        one.backward(batch(), Pass(step, 1.0, generator, "fp32"))
        optimiser.step()
        one.stepped(step)
    one.validate(method.eval())
    return {alarm["name"] for alarm in one.raised}


def test_runs_that_are_made_to_collapse_set_off_their_alarm() -> None:
    """As published, a cluster that has all tiles keeps them: no gradient leads out. Ours leaves
    that state. And where the clusters' loss does not count, their logits fade until noise
    decides."""
    assert trained(12.0, 0.0, faithful=True) == {"dominant"}
    assert trained(12.0, 0.0) == set()
    assert trained(0.0, 1.0, alpha=0.0) == {"uniform"}


def test_an_alarm_can_stop_the_run_or_only_be_told() -> None:
    one = learner(then="stop")
    collapse(one, "dominant")
    one.stepped(9)
    with pytest.raises(UserError, match=r"mine: collapsed at step 10: one cluster has all tiles"):
        one.validate(one.module.eval())
    one = learner(then="go_on")
    collapse(one, "dominant")
    one.stepped(9)
    assert one.validate(one.module.eval())["score"] == 10.0
    assert not one.ended() and one.raised


def test_before_the_time_for_alarms_nothing_ends() -> None:
    one = learner()
    one.cfg = one.cfg.model_copy(
        update={"alarms": one.cfg.alarms.model_copy(update={"after": 0.5})}
    )
    collapse(one, "uniform")
    one.stepped(4)
    assert one.validate(one.module.eval())["score"] == -1.0 and not one.ended() and one.raised
    one.stepped(14)
    one.validate(one.module.eval())
    assert one.ended()


def test_checkpoints_are_kept_every_so_often(tmp_path: Path) -> None:
    one = learner(tmp_path, keep_every=4)
    for step in range(12):
        one.stepped(step)
        one.validate(one.module.eval())
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == [f"{step:08d}.safetensors" for step in (4, 8, 12)]
    kept = load_file(tmp_path / "checkpoints" / names[0])
    assert set(kept) == set(one.module.backbone.state_dict())


def test_tiles_are_found_again_by_their_views() -> None:
    torch.manual_seed(0)
    features = torch.randn(50, 16)
    assert found_again(features, features + 0.01 * torch.randn(50, 16)) == 1.0
    assert found_again(features, torch.randn(50, 16)) < 0.3


def test_the_config_takes_a_methods_own_keys() -> None:
    assert config(method="dinov2", centring="mean").arguments()["centring"] == "mean"
    assert config().method == "clusiam"
    with pytest.raises(ValidationError, match="centring"):
        config(method="simsiam", centring="mean")
    with pytest.raises(ValidationError, match="faithful: true has its own"):
        config(method="clusiam", faithful=True, tau=0.5)
    with pytest.raises(ValidationError, match="no network that could learn"):
        config(encoder={"source": "import", "path": "x"})
