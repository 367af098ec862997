"""The clustering constraint: its bound, its value and gradient in the states that collapse."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.pretraining.cluster_loss import (
    assign_with_noise,
    bound,
    cluster_loss,
    spread_penalty,
)
from tests.pretraining.conftest import small_method, views_for


def simplex(k: int) -> Tensor:
    """k points of length 1, as far from each other as can be."""
    return F.normalize(torch.eye(k, dtype=torch.float64) - 1 / k, dim=1)


@pytest.mark.parametrize("faithful", [False, True])
@pytest.mark.parametrize("k", [2, 3, 10])
def test_a_simplex_reaches_the_bound(k: int, faithful: bool) -> None:
    z = simplex(k).repeat_interleave(4, 0)
    members = torch.eye(k, dtype=torch.float64).repeat_interleave(4, 0)
    found = cluster_loss(z, members, members, faithful=faithful)
    assert float(found) == pytest.approx(-1 / (k - 1), abs=1e-6)
    assert bound(k) == pytest.approx(-1 / (k - 1))


def test_no_other_centroids_are_below_the_bound() -> None:
    torch.manual_seed(0)
    for k in (2, 5):
        members = torch.eye(k).repeat_interleave(3, 0)
        for _ in range(50):
            z = torch.randn(3 * k, 8)
            assert float(cluster_loss(z, members, members)) >= bound(k) - 1e-5


def test_the_faithful_loss_is_the_published_one() -> None:
    """Written out in double precision: mean over the non-zero upper triangle, clusters alike."""
    torch.manual_seed(0)
    z, scores = torch.randn(40, 8, dtype=torch.float64), torch.randn(40, 5, dtype=torch.float64)
    members = F.one_hot(scores.argmax(1), 7).double()[:, :7]  # two clusters stay empty
    unit = z / z.norm(dim=1, keepdim=True)
    centroids = [unit[members[:, k] == 1].mean(0) for k in range(5)]
    centroids = [c / c.norm() for c in centroids]
    pairs = [float(centroids[i] @ centroids[j]) for i in range(5) for j in range(i + 1, 5)]
    found = cluster_loss(z, members, scores, faithful=True)
    assert float(found) == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)


def test_pairs_count_by_their_sizes_and_small_clusters_do_not() -> None:
    z = torch.tensor([[1.0, 0.0]] * 6 + [[0.0, 1.0]] * 3 + [[-1.0, 0.0]])
    members = F.one_hot(torch.tensor([0] * 6 + [1] * 3 + [2]), 3).float()
    assert float(cluster_loss(z, members, members)) == pytest.approx(0.0, abs=1e-6)
    sized = (18 * 0.0 + 6 * -1.0 + 3 * 0.0) / 27
    assert float(cluster_loss(z, members, members, least=1)) == pytest.approx(sized, abs=1e-6)
    alike = (0.0 - 1.0 + 0.0) / 3
    assert float(cluster_loss(z, members, members, faithful=True)) == pytest.approx(alike)


@pytest.mark.parametrize("faithful", [False, True])
def test_one_cluster_with_all_tiles_costs_1_and_can_be_left(faithful: bool) -> None:
    """However sure the assignment: a logit of 1,000 still has a gradient, but as published none."""
    torch.manual_seed(0)
    scores = torch.randn(16, 5)
    scores[:, 2] += 1000
    scores.requires_grad_()
    z = torch.randn(16, 8)
    loss = cluster_loss(z, assign_with_noise(scores, 1.0), scores, faithful=faithful)
    assert float(loss) == pytest.approx(1.0)
    (gradient,) = torch.autograd.grad(loss, scores)
    if faithful:
        assert float(gradient.abs().sum()) == 0
    else:
        # Down with the one that has all, up with the others.
        assert bool((gradient[:, 2] > 0).all()) and float(gradient[:, [0, 1, 3, 4]].max()) < 0
        assert float(gradient[:, 2].sum()) == pytest.approx(0.8, abs=1e-4)


def test_the_way_out_is_found() -> None:
    """Gradient steps lead from one dominant cluster to several, which the published loss never
    does."""
    for faithful, wanted in ((False, True), (True, False)):
        torch.manual_seed(0)
        z = torch.cat([simplex(4)[i].repeat(8, 1) for i in range(4)]).float()
        scores = (torch.randn(32, 4) * 0.1 + torch.tensor([60.0, 0, 0, 0])).requires_grad_()
        optimiser = torch.optim.SGD([scores], 20.0)
        for _ in range(200):
            members = assign_with_noise(scores, 1.0)
            optimiser.zero_grad()
            cluster_loss(z, members, scores, faithful=faithful).backward()
            optimiser.step()
        assert (len(scores.argmax(1).unique()) > 1) is wanted


def test_the_penalty_is_the_divergence_from_the_uniform_one() -> None:
    torch.manual_seed(0)
    scores = torch.randn(9, 4, dtype=torch.float64)
    mean = scores.softmax(1).mean(0)
    wanted = float((0.25 * (0.25 / mean).log()).sum())
    assert float(spread_penalty(scores)) == pytest.approx(wanted, abs=1e-6)
    assert float(spread_penalty(torch.zeros(3, 4))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ["clusiam", "clubyol"])
def test_the_clusters_gradient_reaches_the_encoder_through_the_assignment_alone(name: str) -> None:
    from pipeline.pretraining.methods.base import Moment

    method = small_method(name, alpha=1.0)
    caught: list[Tensor] = []
    method.assigner.register_forward_pre_hook(lambda m, given: caught.append(given[0]))
    torch.manual_seed(0)
    method(views_for(method), Moment(0, 0.0))["loss"].backward()
    first = [p.grad.clone() for p in method.backbone.parameters()]
    assert sum(float(g.abs().sum()) for g in first) > 0
    # With the assigner cut off nothing is left.
    method.zero_grad()
    method.assigner.register_forward_pre_hook(lambda m, given: (given[0].detach(),))
    torch.manual_seed(0)
    method(views_for(method), Moment(0, 0.0))["loss"].backward()
    left = [p.grad for p in method.backbone.parameters() if p.grad is not None]
    assert sum(float(g.abs().sum()) for g in left) == 0


@pytest.mark.parametrize(("name", "low"), [("clusiam", -2.0), ("clubyol", 0.0)])
def test_the_total_is_convex(name: str, low: float) -> None:
    from pipeline.pretraining.methods.base import Moment

    method = small_method(name, alpha=0.3)
    found = {k: float(v) for k, v in method(views_for(method), Moment(0, 0.0)).items()}
    assert found["loss"] == pytest.approx(0.7 * found["invariance"] + 0.3 * found["clusters"])
    assert low <= found["invariance"] <= low + 4


def test_noise_falls_as_the_course_goes_and_not_as_published() -> None:
    from pipeline.pretraining.methods.clusiam import Noise

    assert Noise(1.0, 0.3, 2, False).taus == (1.0, 0.3)
    assert Noise(0.5, 0.3, 2, True).taus == (1.0, 1.0)
