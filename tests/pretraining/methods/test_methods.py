"""Every method: its loss is the paper's, and gradients go where the paper lets them."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config.pretraining import methods
from pipeline.pretraining.heads import balanced, temperature_at
from pipeline.pretraining.methods.base import Method, Moment, MomentumMethod, momentum_at
from pipeline.pretraining.methods.pcl import concentration
from tests.pretraining.conftest import small_method, views_for

NAMES = sorted(methods())
FIRST = Moment(0, 0.0)
MIDDLE = Moment(5, 0.5)


def test_all_that_the_field_compares_are_there() -> None:
    wanted = {
        "barlow_twins", "byol", "clubyol", "clusiam", "dino", "dinov2", "ibot", "mae", "pcl",
        "simclr", "simsiam", "swav",
    }  # fmt: skip
    assert set(NAMES) == wanted


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_from_what_it_sees(name: str) -> None:
    """On two batches seen again and again the loss falls, and all that learns has gradients."""
    method = small_method(name)
    optimiser = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], 3e-3)
    losses = []
    for step in range(20):
        torch.manual_seed(step)
        found = method(views_for(method, seed=step % 2), Moment(step, 0.2))
        optimiser.zero_grad()
        found["loss"].backward()
        optimiser.step()
        method.after_step(Moment(step, 0.2))
        losses.append(found["loss"].item())
    assert all(math.isfinite(loss) for loss in losses)
    lacking = [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert not lacking
    if not isinstance(method, MomentumMethod):  # whose task moves with the teacher
        assert sum(losses[-4:]) < sum(losses[:4])


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_held_once_and_can_be_copied(name: str) -> None:
    """Averages follow a state dict name by name: one that is there twice would be moved twice."""
    method = small_method(name)
    method(views_for(method), FIRST)["loss"].backward()
    state = method.state_dict()
    assert len({v.data_ptr() for v in state.values()}) == len(state)
    again = copy.deepcopy(method)
    assert again.backbone is not method.backbone
    assert set(method.backbone.state_dict()) == set(again.backbone.state_dict())


@pytest.mark.parametrize(
    "name", [n for n in NAMES if issubclass(methods()[n].load(), MomentumMethod)]
)
def test_no_gradient_reaches_a_momentum_teacher_and_it_follows(name: str) -> None:
    method = small_method(name, momentum=0.75, final_momentum=0.75)
    assert isinstance(method, MomentumMethod)
    method(views_for(method), MIDDLE)["loss"].backward()
    for teacher, student in method.pairs():
        assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.add_(1.0)
    before = [copy.deepcopy(teacher) for teacher, _ in method.pairs()]
    method.after_step(MIDDLE)
    for old, (teacher, student) in zip(before, method.pairs(), strict=True):
        for was, now, goal in zip(
            old.parameters(), teacher.parameters(), student.parameters(), strict=True
        ):
            torch.testing.assert_close(now, 0.75 * was + 0.25 * goal)
        for was, now, goal in zip(old.buffers(), teacher.buffers(), student.buffers(), strict=True):
            if was.is_floating_point():
                torch.testing.assert_close(now, 0.75 * was + 0.25 * goal)


def test_a_faithful_clubyol_leaves_running_means_to_the_teacher() -> None:
    method = small_method("clubyol", faithful=True)
    method(views_for(method), MIDDLE)
    assert isinstance(method, MomentumMethod) and (method.momentum, method.final_momentum) == (
        0.99, 0.99,
    )  # fmt: skip
    teacher, student = method.pairs()[0]
    with torch.no_grad():
        student.get_buffer("norm.running_mean").add_(1.0)
    before = teacher.get_buffer("norm.running_mean").clone()
    method.after_step(MIDDLE)
    assert torch.equal(teacher.get_buffer("norm.running_mean"), before)


def _cos(a: Tensor, b: Tensor) -> Tensor:
    a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    return (a * b).sum(1).mean()


def test_simsiam_is_the_papers_equation_and_stops_the_gradient() -> None:
    method = small_method("simsiam").double()
    views = [v.double() for v in views_for(method)]
    z = [method.projector(method.backbone(v)) for v in views]
    p = [method.predictor(one) for one in z]
    wanted = -0.5 * (_cos(p[0], z[1].detach()) + _cos(p[1], z[0].detach()))
    gradients = torch.autograd.grad(wanted, list(method.parameters()))
    loss = method(views, FIRST)["loss"]
    assert float(loss) == pytest.approx(float(wanted), abs=1e-6)
    for one, other in zip(
        torch.autograd.grad(loss, list(method.parameters())), gradients, strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_byol_is_the_papers_equation() -> None:
    method = small_method("byol").double()
    with torch.no_grad():
        method.teacher_projector.layers[0].weight.add_(0.1)
    views = [v.double() for v in views_for(method)]
    p = [method.predictor(method.projector(method.backbone(v))) for v in views]
    t = [method.teacher_projector(method.teacher_backbone(v)) for v in views]

    def squared(a: Tensor, b: Tensor) -> Tensor:
        return (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean()

    wanted = squared(p[0], t[1]) + squared(p[1], t[0])
    assert method(views, FIRST)["loss"].item() == pytest.approx(float(wanted), abs=1e-5)


def test_simclr_is_the_papers_equation() -> None:
    method = small_method("simclr", temperature=0.3).double()
    views = [v.double() for v in views_for(method)]
    z = F.normalize(torch.cat([method.projector(method.backbone(v)) for v in views]), dim=1)
    scores = z @ z.t() / 0.3
    total = 0.0
    for i in range(16):
        others = [k for k in range(16) if k != i]
        total += float(torch.logsumexp(scores[i, others], 0) - scores[i, (i + 8) % 16])
    assert method(views, FIRST)["loss"].item() == pytest.approx(total / 16, abs=1e-5)


def test_barlow_twins_is_the_papers_equation() -> None:
    method = small_method("barlow_twins").double()
    views = [v.double() for v in views_for(method)]
    a, b = (method.projector(method.backbone(v)) for v in views)
    a, b = ((x - x.mean(0)) / x.std(0, correction=0) for x in (a, b))
    c = a.t() @ b / 8
    on = (c.diagonal() - 1).square().sum()
    off = c.square().sum() - c.diagonal().square().sum()
    found = method(views, FIRST)["loss"].item()
    assert found == pytest.approx(float(on + 0.005 * off), rel=1e-3)


def _code(scores: Tensor, epsilon: float) -> Tensor:
    """Sinkhorn–Knopp, written out in double precision: rows are tiles."""
    q = (scores.double() / epsilon).exp().t()
    for _ in range(3):
        q = q / q.sum(1, keepdim=True) / len(q)
        q = q / q.sum(0, keepdim=True) / q.shape[1]
    return (q * q.shape[1]).t()


def _swapped(scores: list[Tensor], codes: list[Tensor]) -> float:
    total = 0.0
    for i, code in enumerate(codes):
        for j, other in enumerate(scores):
            if i != j:
                total -= float((code * (other.double() / 0.1).log_softmax(1)).sum(1).mean())
    return total / (len(codes) * (len(scores) - 1))


def test_swav_swaps_balanced_codes() -> None:
    method = small_method("swav", small_crops=1, frozen=0.0)
    views = views_for(method)
    loss = method(views, MIDDLE)["loss"].item()
    weight = method.prototypes.weight
    assert method.prototypes.bias is None
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(24))
    scores = [method.project(method.backbone(v)) @ weight.t() for v in views]
    assert loss == pytest.approx(_swapped(scores, [_code(s, 0.05) for s in scores[:2]]), abs=1e-3)


def test_swavs_queue_of_earlier_tiles_balances_the_codes() -> None:
    """More prototypes than tiles of a batch: the latest tiles are as many as are needed."""
    method = small_method("swav", small_crops=0, frozen=0.0, queue=16, queue_from=0.3)
    early, first, second, now = (views_for(method, seed=seed) for seed in range(4))
    method(early, Moment(0, 0.0))
    assert int(method.filled) == 8 and method.earlier() is None
    for views in (first, second):
        method(views, Moment(0, 0.1))
    weight = method.prototypes.weight.detach()

    def projected(views: list[Tensor]) -> list[Tensor]:
        return [method.project(method.backbone(v)) for v in views]

    # The oldest went first: what is in it are the tiles of the two latest steps.
    for view, rows in enumerate(method.queue):
        kept = torch.cat([projected(second)[view], projected(first)[view]])
        torch.testing.assert_close(rows, kept, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        scores = [one @ weight.t() for one in projected(now)]
        earlier = [one @ weight.t() for one in method.queue]
    codes = [_code(torch.cat(both), 0.05)[:8] for both in zip(scores, earlier, strict=True)]
    loss = method(now, MIDDLE)["loss"].item()
    assert loss == pytest.approx(_swapped(scores, codes), abs=1e-3)
    assert loss != pytest.approx(_swapped(scores, [_code(s, 0.05) for s in scores]), abs=1e-3)


def test_swav_prototypes_stay_for_a_while() -> None:
    method = small_method("swav", frozen=0.5)
    method(views_for(method), Moment(0, 0.4))["loss"].backward()
    assert method.prototypes.weight.grad is None
    method(views_for(method), Moment(0, 0.6))["loss"].backward()
    assert method.prototypes.weight.grad is not None


def test_dino_is_the_papers_equation_with_a_running_centre() -> None:
    method = small_method("dino", small_crops=1, teacher_warm_up=0.0, frozen=0.0)
    views = views_for(method)
    for _ in range(2):  # the second time there is a centre
        centre = method.distil.center.flatten().clone()
        loss = method(views, MIDDLE)["loss"].item()
    student = [method.head(method.backbone(v)) for v in views]
    teacher = [method.teacher_head(method.teacher_backbone(v)) for v in views[:2]]
    total = 0.0
    for i, t in enumerate(teacher):
        for j, s in enumerate(student):
            if i != j:
                target = ((t - centre) / 0.04).softmax(1)
                total -= float((target * (s / 0.1).log_softmax(1)).sum(1).mean())
    assert loss == pytest.approx(total / 4, abs=1e-4)
    seen = torch.cat(teacher).mean(0)
    torch.testing.assert_close(method.distil.center.flatten(), 0.9 * centre + 0.1 * seen)


@pytest.mark.parametrize("name", ["dino", "ibot", "dinov2"])
def test_prototypes_stay_for_a_while_and_have_length_1(name: str) -> None:
    method = small_method(name, frozen=0.5)
    before = method.head.last_layer.weight.detach().clone()
    torch.testing.assert_close(before.norm(dim=1), torch.ones(len(before)))
    method(views_for(method), Moment(0, 0.4))["loss"].backward()
    direction = method.head.last_layer.parametrizations.weight.original1
    assert direction.grad is None
    method(views_for(method), Moment(0, 0.6))["loss"].backward()
    assert direction.grad is not None and float(direction.grad.abs().sum()) > 0


def test_dinov2s_centring_is_sinkhorn_knopp() -> None:
    """The reference alternates sums of rows and of columns in double precision."""
    torch.manual_seed(0)
    scores = torch.randn(20, 6) * 0.1
    q = (scores.double() / 0.05).exp()
    for _ in range(3):
        q = q / q.sum(0, keepdim=True)
        q = q / q.sum(1, keepdim=True)
    found = (balanced(scores, 0.05) / 0.05).softmax(1)
    torch.testing.assert_close(found.double(), q, atol=1e-5, rtol=1e-4)


def test_dinov2_takes_balanced_targets_and_no_centre() -> None:
    method = small_method("dinov2", small_crops=0, koleo=0.0, teacher_warm_up=0.0)
    views = views_for(method)
    torch.manual_seed(3)
    found = method(views, MIDDLE)
    assert float(method.distil.center.abs().sum()) == 0
    assert float(method.patches.center.value.abs().sum()) == 0
    assert float(found["loss"]) == pytest.approx(float(found["image"] + found["patches"]), abs=1e-5)
    plain = small_method("dinov2", small_crops=0, centring="mean", teacher_warm_up=0.0)
    torch.manual_seed(3)
    other = plain(views, MIDDLE)
    assert float(plain.distil.center.abs().sum()) > 0
    assert float(other["image"]) != pytest.approx(float(found["image"]), abs=1e-4)


def test_koleo_pushes_the_nearest_apart() -> None:
    method = small_method("dinov2", koleo=0.5)
    x = torch.randn(6, 4, dtype=torch.float64)
    unit = F.normalize(x, dim=1)
    apart = torch.cdist(unit, unit) + 9 * torch.eye(6, dtype=torch.float64)
    wanted = -apart.min(1).values.log().mean()
    found = method.further((x, x))["koleo"]
    assert float(found) == pytest.approx(float(2 * 0.5 * wanted), abs=1e-5)


@pytest.mark.parametrize("name", ["ibot", "dinov2"])
def test_patches_that_were_not_masked_teach_nothing(name: str) -> None:
    """The patches' loss depends on the student's masked tokens alone."""
    method = small_method(name, small_crops=0, shared_head=False)
    caught: list[Tensor] = []
    assert isinstance(method.own, nn.Module)
    method.own.register_forward_hook(lambda m, given, out: caught.append(given[0]))
    masks: list[Tensor] = []
    method.trunk.register_forward_hook(lambda m, given, out: masks.append(given[1]))
    method(views_for(method), MIDDLE)
    assert len(caught[0]) == int(masks[0].sum()) > 0


def test_mae_sees_the_visible_patches_and_rebuilds_the_masked_ones() -> None:
    method = small_method("mae", masked=0.75).eval()
    (images,) = views_for(method, 2)
    kept = torch.tensor([[0, 5, 10, 15]] * 2)
    masked = torch.tensor([[i for i in range(16) if i not in (0, 5, 10, 15)]] * 2)
    rebuilt = method.rebuild(images, kept, masked)
    assert rebuilt.shape == (2, 12, 8 * 8 * 3)
    changed = images.clone()
    changed[:, :, 8:16, 0:8] += 1.0  # patch 4, masked
    torch.testing.assert_close(method.rebuild(changed, kept, masked), rebuilt)
    assert not torch.allclose(
        method.pixels(changed, masked)[:, 3], method.pixels(images, masked)[:, 3] + 1
    )
    changed = images.clone()
    changed[:, :, 0:8, 0:8] *= 2.0  # patch 0, visible
    assert not torch.allclose(method.rebuild(changed, kept, masked), rebuilt)
    torch.testing.assert_close(method.pixels(changed, masked), method.pixels(images, masked))
    pixels = method.pixels(images, masked)
    torch.testing.assert_close(pixels.mean(-1), torch.zeros(2, 12), atol=1e-5, rtol=0)
    row = images[0, :, 0:8, 8:16].permute(1, 2, 0).flatten()  # patch 1, the first masked one
    torch.testing.assert_close(pixels[0, 0], (row - row.mean()) / row.std(), atol=1e-4, rtol=1e-4)


def test_pcls_concentration_is_the_papers_equation() -> None:
    points = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.0, -1.0], [0.1, -0.9]])
    centroids = torch.tensor([[0.9, 0.3], [0.0, 1.0], [0.0, -1.0]])
    labels = torch.tensor([0, 0, 1, 2, 2])
    apart = (points - centroids[labels]).norm(dim=1)
    raw = [
        float(apart[:2].sum()) / (2 * math.log(12)),
        0.0,
        float(apart[3:].sum()) / (2 * math.log(12)),
    ]
    raw[1] = max(raw)  # a cluster of one tile
    phi = torch.tensor(raw)
    phi = phi.clamp(phi.quantile(0.1), phi.quantile(0.9))
    found = concentration(points, centroids, labels, 0.2, 10.0)
    torch.testing.assert_close(found, 0.2 * phi / phi.mean())
    assert float(found.mean()) == pytest.approx(0.2)


def test_pcls_loss_is_infonce_and_the_mean_over_clusterings() -> None:
    method = small_method("pcl")
    keys = F.normalize(torch.randn(32, 32), dim=1)
    method.push(keys)
    method.cluster(0)
    queries, targets = F.normalize(torch.randn(2, 4, 32), dim=2)
    scores = torch.cat([(queries * targets).sum(1, keepdim=True), queries @ keys.t()], 1) / 0.2
    wanted = -scores.log_softmax(1)[:, 0].mean()
    torch.testing.assert_close(method.contrast(queries, targets), wanted)
    total = 0.0
    for k in (4, 6):
        c, phi = getattr(method, f"centroids_{k}"), getattr(method, f"concentration_{k}")
        s = (targets @ c.t()).argmax(1)
        logits = queries @ c.t() / phi
        total += float(-logits.log_softmax(1)[torch.arange(4), s].mean()) / 2
    assert float(method.prototypes(queries, targets)) == pytest.approx(total, abs=1e-5)


def test_pcls_queue_forgets_the_oldest() -> None:
    method = small_method("pcl")
    for value in range(5):
        method.push(torch.full((10, 32), float(value)))
    assert sorted(method.queue[:, 0].unique().tolist()) == [1.0, 2.0, 3.0, 4.0]
    assert int((method.queue[:, 0] == 4).sum()) == 10


def test_pcls_prototypes_are_of_a_whole_epochs_features() -> None:
    """Two far groups, of which one came so early that it is no negative any more."""
    method = small_method("pcl", queue=8, bank=40, clusters=(2,))
    groups = F.normalize(torch.randn(2, 1, 32), dim=2) + 0.01 * torch.randn(2, 20, 32)
    early, late = F.normalize(groups, dim=2)
    method.push(early)
    method.push(late)
    torch.testing.assert_close(method.latest(8), late[-8:])
    method.cluster(0)
    centroids = method.centroids_2
    means = F.normalize(torch.stack([early.mean(0), late.mean(0)]), dim=1)
    assert sorted((means @ centroids.t()).argmax(1).tolist()) == [0, 1]
    assert float((means @ centroids.t()).max(1).values.min()) > 0.99
    query = late[:3]
    negatives = torch.cat([(query * query).sum(1, keepdim=True), query @ late[-8:].t()], 1) / 0.2
    wanted = -negatives.log_softmax(1)[:, 0].mean()
    torch.testing.assert_close(method.contrast(query, query), wanted)


def test_pcls_clusters_keep_their_places_from_one_clustering_to_the_next() -> None:
    """Else their averages over steps, which the maps are painted by, would be of nothing."""
    method = small_method("pcl", clusters=(4,), queue=64)
    centres = F.normalize(torch.randn(4, 1, 32), dim=2)
    for seed in range(3):
        points = centres + 0.05 * torch.randn(4, 16, 32)
        method.push(F.normalize(points, dim=2).flatten(0, 1))
        before = method.centroids_4.clone()
        method.cluster(seed)
        if seed:
            assert (before @ method.centroids_4.t()).argmax(1).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("name", NAMES)
def test_a_step_in_bf16_is_near_the_one_in_fp32(name: str) -> None:
    """Losses are computed in float32, whatever the network runs in; gradients are finite."""
    losses = []
    for enabled in (False, True):
        method = small_method(name)
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = method(views_for(method), MIDDLE)["loss"]
        assert loss.dtype == torch.float32
        loss.backward()
        gradients = [p.grad for p in method.parameters() if p.grad is not None]
        assert all(bool(g.isfinite().all()) for g in gradients)
        assert sum(float(g.abs().sum()) for g in gradients) > 0
        losses.append(float(loss.detach()))
    assert losses[1] == pytest.approx(losses[0], rel=0.1, abs=0.1)


def test_momentum_and_temperature_rise_as_said() -> None:
    assert momentum_at(0.9, 1.0, 0.0) == pytest.approx(0.9)
    assert momentum_at(0.9, 1.0, 0.5) == pytest.approx(0.95)
    assert momentum_at(0.9, 1.0, 1.0) == pytest.approx(1.0)
    assert temperature_at(0.04, 0.07, 0.3, 0.15) == pytest.approx(0.055)
    assert temperature_at(0.04, 0.07, 0.3, 0.9) == temperature_at(0.04, 0.07, 0.0, 0.0) == 0.07


@pytest.mark.parametrize("name", NAMES)
def test_features_are_the_exported_backbones(name: str) -> None:
    """What is watched in training is what the teacher gives afterwards."""
    from pipeline.encoders.taps import find_taps, forward_levels

    method: Method = small_method(name).eval()
    (images, *_) = views_for(method, 2)
    if name not in ("mae", "ibot", "dinov2"):
        return
    taps = find_taps(method.backbone, method.pooling)
    high = forward_levels(method.backbone, images, taps, ("high",))["high"]
    torch.testing.assert_close(method.features(images), high, atol=1e-5, rtol=1e-4)
