"""What every MIL model promises: masks, batches, classes, small bags, scores, published sizes."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipeline.aggregators.base import Weighing, extremes
from pipeline.aggregators.build import build
from pipeline.aggregators.transmil import squares
from pipeline.config.models import aggregators
from pipeline.errors import ConfigError

DIM = 24
ALL = tuple(aggregators())
# Every registered model, with the published form of those that have one.
FORMS = [
    pytest.param(name, {"faithful": True} if faithful else {}, id=name + faithful * "-faithful")
    for name, entry in aggregators().items()
    for faithful in (False, True)
    if not faithful or "faithful" in {key.name for key in entry.keys}
]


def model(name: str, out: int = 3, **arguments: Any) -> nn.Module:
    torch.manual_seed(0)
    own = {key.name for key in aggregators()[name].keys}
    small = {"d_model": 16} if "d_model" in own and not arguments else {}
    return build(name, DIM, out, **small, **arguments).eval()


def test_an_unknown_model_is_told_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean `abmil`"):
        build("abmill", 4, 1)


@pytest.mark.parametrize("name", ALL)
def test_what_was_read_from_the_file_is_the_constructor(name: str) -> None:
    entry = aggregators()[name]
    arguments = list(inspect.signature(entry.load()).parameters.values())
    assert [a.name for a in arguments[:2]] == ["dim", "out"]
    assert all(a.kind is a.KEYWORD_ONLY for a in arguments[2:])
    read = [(key.name, key.default) for key in entry.keys]
    assert [(a.name, a.default) for a in arguments[2:]] == read


@pytest.mark.parametrize(("name", "form"), FORMS)
@settings(max_examples=8, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 14), min_size=1, max_size=4),
    extra=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_output_does_not_depend_on_padding(
    name: str, form: dict[str, bool], sizes: list[int], extra: int, seed: int
) -> None:
    torch.manual_seed(seed)
    net = model(name, **form)
    bags = [torch.randn(n, DIM) for n in sizes]
    width = max(sizes) + extra
    x = torch.full((len(bags), width, DIM), 1e4)  # what lies in padding must not be seen
    mask = torch.ones(len(bags), width, dtype=torch.bool)
    for i, bag in enumerate(bags):
        x[i, : len(bag)], mask[i, : len(bag)] = bag, False
    together = net(x, mask)
    for i, bag in enumerate(bags):
        alone = net(bag[None], None)
        assert torch.allclose(together.out[i], alone.out[0], atol=2e-5, rtol=1e-4)
        if alone.scores is not None:
            here = together.scores[i]
            assert torch.allclose(here[: len(bag)], alone.scores[0], atol=2e-5, rtol=1e-3)
            assert (here[len(bag) :] == 0).all()


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_output_does_not_depend_on_the_order_of_tiles(name: str, form: dict[str, bool]) -> None:
    net, x, order = model(name, **form), torch.randn(2, 9, DIM), torch.randperm(9)
    if net.ordered:
        pytest.skip("says that it does")
    as_it_is, turned = net(x), net(x[:, order])
    assert torch.allclose(as_it_is.out, turned.out, atol=2e-5, rtol=1e-4)
    if as_it_is.scores is not None:
        assert torch.allclose(as_it_is.scores[:, order], turned.scores, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_a_bag_of_one_tile_is_finite_and_gets_a_gradient(name: str, form: dict[str, bool]) -> None:
    net, x = model(name, **form), torch.randn(2, 1, DIM, requires_grad=True)
    bag = net(x)
    bag.out.sum().backward()
    assert torch.isfinite(bag.out).all()
    assert x.grad is not None
    assert (x.grad.abs().sum(2) > 0).all()


@pytest.mark.parametrize("name", ALL)
def test_one_that_weighs_tiles_takes_an_emphasis(name: str) -> None:
    """A tile of emphasis log 3 counts as if it stood in the bag three times."""
    net, x = model(name), torch.randn(1, 5, DIM)
    if not isinstance(net, Weighing):
        pytest.skip("does not pool by weights alone")
    emphasis = torch.tensor([[0.0, 0.0, 0.0, 0.0, 2.0]]).log1p()
    thrice = torch.cat([x, x[:, 4:], x[:, 4:]], dim=1)
    assert torch.allclose(net(x, None, emphasis).out, net(thrice).out, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_shapes_and_gradients(name: str) -> None:
    net = model(name, out=4)
    x = torch.randn(2, 6, DIM)
    bag = net(x, torch.zeros(2, 6, dtype=torch.bool))
    assert bag.out.shape == (2, 4)
    if bag.scores is not None:
        assert bag.scores.shape == (2, 6)
        assert (bag.scores >= 0).all()
    bag.out.sum().backward()
    unused = {n for n, p in net.named_parameters() if p.grad is None}
    assert not {n for n in unused if not n.startswith("instances")}


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_an_empty_bag_is_finite_forward_and_backward(name: str, form: dict[str, bool]) -> None:
    net = model(name, **form)
    x = torch.randn(2, 5, DIM, requires_grad=True)
    mask = torch.tensor([[False] * 5, [True] * 5])
    out = net(x, mask).out
    assert torch.isfinite(out).all()
    out.sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert (x.grad[1] == 0).all()


@pytest.mark.parametrize("name", ALL)
def test_two_passes_agree(name: str) -> None:
    net, x = model(name), torch.randn(3, 7, DIM)
    assert torch.equal(net(x).out, net(x).out)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("mean_pool", 769),
        ("chowder", 109_570),
        ("gated_abmil", 156_418),
        ("dsmil", 549_742),
        ("hiptmil", 705_410),
        ("transmil", 53_683_969),
    ],
)
def test_faithful_models_have_the_published_sizes(name: str, parameters: int) -> None:
    """Phikon's benchmark at 768 features and one output."""
    net = build(name, 768, 1, faithful=True)
    assert sum(p.numel() for p in net.parameters()) == parameters


def test_faithful_abmil_is_the_single_teacher_baseline_of_shazam() -> None:
    net = build("abmil", 1024, 4, faithful=True)
    assert sum(p.numel() for p in net.parameters()) == 148_356


def test_extremes_repeat_the_last_of_a_small_bag() -> None:
    scores = torch.tensor([[[3.0], [1.0], [2.0], [9.0]]])
    mask = torch.tensor([[False, False, False, True]])
    assert extremes(scores, mask, 5, largest=True)[0, :, 0].tolist() == [3, 2, 1, 1, 1]
    assert extremes(scores, mask, 2, largest=False)[0, :, 0].tolist() == [1, 2]


def test_the_published_dsmil_at_equal_weights() -> None:
    """Filiot et al. 2023, written out for one bag: queries are multiplied as they are."""
    net: Any = build("dsmil", 12, 1, faithful=True).eval()
    x = torch.randn(1, 7, 12)
    score = net.score(x[0])[:, 0]
    query = net.query(x[0])
    weights = torch.softmax(query @ query[score.argmax()], dim=0)
    expected = 0.5 * (score.max() + net.head(weights @ x[0])[0])
    torch.testing.assert_close(net(x).out[0, 0], expected)


def test_dsmil_gives_each_class_its_own_output() -> None:
    net = model("dsmil", out=3)
    assert net(torch.randn(1, 5, DIM)).out.shape == (1, 3)
    assert len(set(net(torch.randn(1, 5, DIM)).out[0].tolist())) == 3


def test_squares_use_each_bags_own_side() -> None:
    mask = torch.tensor([[False] * 5 + [True] * 4, [False] * 9])
    source, outside, side = squares(mask)
    assert side == 3
    assert source[0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert not outside.any()
    source, outside, side = squares(torch.tensor([[False] * 3 + [True] * 6, [False] * 9]))
    assert outside[0].tolist() == [False, False, True, False, False, True, True, True, True]
    assert source[0].tolist() == [0, 1, 0, 2, 0, 0, 0, 0, 0]


def test_clam_pulls_attended_tiles_to_the_bags_class() -> None:
    torch.manual_seed(0)
    net = build("clam_sb", DIM, 2, d_model=16, dropout=0.0)
    x, labels = torch.randn(4, 9, DIM), torch.tensor([0, 1, 1, 0])
    mask = torch.zeros(4, 9, dtype=torch.bool)
    mask[0, 1:] = True  # one tile: no instances to tell apart
    loss = net.instance_loss(net(x, mask), mask, labels)
    assert loss is not None
    loss.backward()
    touched = net.instances.weight.grad.view(2, 2, -1).abs().sum((1, 2))
    assert (touched > 0).all()
    alone = net.instance_loss(net(x[:1], mask[:1]), mask[:1], labels[:1])
    assert alone is not None
    assert float(alone.detach()) == 0.0
