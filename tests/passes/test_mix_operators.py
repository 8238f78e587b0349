"""mix-operators: exact to the bit at the start, alpha alive, candidates that start near the present operator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.layers import Choice
from tests.passes.claims import (
    assert_exact,
    assert_exports,
    assert_narrow,
    assert_reloads,
    gradients,
    grown,
    stirred,
)
from tests.rewrite.small_models import Forward


def net(dims: int = 2, **options: Any) -> nn.Module:
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims - 1]
    options = {"padding": 1, **options}
    model = Forward(
        lambda m, x: m.head(m.act(m.norm(m.conv(x))).flatten(2).mean(2)),
        conv=conv(4, 4, 3, **options), norm=norm(4), act=nn.ReLU(inplace=True), head=nn.Linear(4, 4),
    )  # fmt: skip
    return stirred(model)


def graph(dims: int = 2, dtype: torch.dtype = torch.float64, **options: Any) -> Graph:
    return gg.trace(net(dims, **options).to(dtype), torch.randn(2, 4, *(7,) * dims, dtype=dtype))


def choice(graph: Graph) -> Choice:
    (found,) = [part for part in graph.module.modules() if isinstance(part, Choice)]
    return found


ALL = "conv-1, conv-5, separable-3, separable-5, dilated-3, max-pool, average-pool, identity, none"


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_exact_to_the_bit_in_both_modes(dims: int) -> None:
    base = graph(dims)
    choices = ALL if dims < 3 else ALL.replace("average-pool, ", "")
    child = grown(base, f"mix-operators(conv, choices=[{choices}])")
    assert_exact(base, child, batches=(1, 3))
    assert choice(child).weights().tolist() == [1.0] + [0.0] * len(choices.split(","))


def test_what_would_refuse_small_inputs_is_no_candidate() -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Conv3d(2, 3, 1), nn.Flatten(), nn.Linear(3, 2))
    base = gg.trace(model, torch.randn(2, 2, 4, 4, 4))
    (offered,) = [m for m in base.mutations("mix-operators") if m.site_name == "1"]
    assert "average-pool" not in str(offered)
    assert "max-pool" in str(offered)
    assert_exact(base, grown(base, str(offered)), batches=(2,))
    with pytest.raises(gg.Declined, match="smaller than the window"):
        gg.apply(base, "mix-operators(1, choices=[average-pool])")


@pytest.mark.parametrize(
    ("site", "choices"),
    [
        ("act", "gelu, silu, tanh, prelu, identity, none"),
        ("head", "low-rank, identity, none"),
    ],
)
def test_activations_and_linear_maps(site: str, choices: str) -> None:
    base = graph()
    child = grown(base, f"mix-operators({site}, choices=[{choices}])")
    assert_exact(base, child, batches=(2,), scales=(0.0, 1.0, 1e4))


@pytest.mark.parametrize(
    "options", [{"stride": 2}, {"padding": 0}, {"groups": 2}, {"bias": False}, {"dilation": 2, "padding": 2}]
)
def test_other_convolutions_on_inputs_of_every_size(options: dict[str, Any]) -> None:
    base = graph(**options)
    (offered,) = [m for m in base.mutations("mix-operators") if m.site_name == "conv"]
    child = grown(base, str(offered))
    assert_exact(base, child, sizes=[(4, 7, 7), (4, 8, 9), (4, 12, 5)], batches=(2,), scales=(1.0,))


def test_alpha_is_alive_and_so_is_everything_else_a_step_later() -> None:
    base = graph()
    child = gg.apply(base, f"mix-operators(conv, choices=[{ALL}])")
    args = child.inputs.sample(1, 5, torch.float64)[0]
    for training in (False, True):
        child.module.train(training)
        found = gradients(child.module, args)
        alphas = found["conv_mix_operators.choice.alpha"]
        assert int((alphas.abs() > 1e-9).sum()) == len(alphas)
    child.module.train()
    optimizer = torch.optim.SGD(child.module.parameters(), lr=0.01)
    gradients(child.module, args)
    optimizer.step()
    found = gradients(child.module, args)
    candidates = [name for name in found if name.startswith("conv_mix_operators") and "choice" not in name]
    assert len(candidates) == 7  # no bias in front of a batch norm
    assert all(float(found[name].abs().max()) > 1e-12 for name in candidates)


def test_the_gradient_of_alpha_is_that_of_the_open_softmax() -> None:
    """By hand: dL/dalpha = softmax'(alpha)^T <dL/dy, o_k(x)>, whatever the weights of the sum are at the moment."""
    child = gg.apply(graph(), "mix-operators(conv, choices=[conv-5, max-pool, none])")
    layer = choice(child)
    with torch.no_grad():
        layer.alpha.copy_(torch.tensor([0.3, -0.2, 0.5, 0.1]))
    values = [torch.randn(2, 3, dtype=torch.float64) for _ in range(4)]
    upstream = torch.randn(2, 3, dtype=torch.float64)
    (layer(*values) * upstream).sum().backward()
    scores = torch.stack([(value * upstream).sum() for value in values])
    q = torch.softmax(layer.alpha.detach(), 0)
    assert layer.alpha.grad is not None
    assert torch.allclose(layer.alpha.grad, q * (scores - (q * scores).sum()), atol=1e-12)
    assert layer.opened.grad is not None
    assert torch.allclose(layer.opened.grad, (q * scores).sum() - scores[0], atol=1e-12)


@pytest.mark.parametrize(
    ("name", "near"), [("conv-5", 1e-12), ("conv-3", 1e-12), ("separable-3", 0.85), ("separable-5", 0.85)]
)
def test_candidates_start_near_the_present_operator(name: str, near: float) -> None:
    base = graph(bias=False)
    child = gg.apply(base, f"mix-operators(conv, choices=[{name}])")
    x = base.inputs.sample(1, dtype=torch.float64)[0][0]
    part = child.module.get_submodule(f"conv_mix_operators.{name.replace('-', '_')}")
    with torch.no_grad():
        present, other = base.module.get_submodule("conv")(x), x
        for layer in list(part.children()) or [part]:
            other = layer(other)
    assert float((other - present).norm() / present.norm()) <= near


def test_a_separable_kernel_is_found_again() -> None:
    """A present kernel that is separable is reproduced exactly."""
    model = net(bias=False).double()
    depthwise, pointwise = (torch.randn(*shape, dtype=torch.float64) for shape in ((1, 4, 3, 3), (4, 4, 1, 1)))
    model.get_parameter("conv.weight").data = depthwise * pointwise
    base = gg.trace(model, torch.randn(2, 4, 7, 7, dtype=torch.float64))
    child = gg.apply(base, "mix-operators(conv, choices=[separable-3])")
    choice(child).close(1)
    assert_exact(base, child, batches=(2,), scales=(1.0,), tolerance=1e-12)


def test_widening_goes_through_an_open_choice() -> None:
    base = gg.trace("graphgrow:resnet")
    opened = gg.apply(base, "mix-operators(stages.0.0.conv1, choices=[conv-5, dilated-3])")
    layer = choice(opened)
    with torch.no_grad():
        layer.opened.fill_(0.7)
        layer.alpha.normal_()
    wider = gg.apply(opened, "widen(stages.0.0.conv1, extra=3)")
    assert gg.verify(opened, wider).preserved
    shapes = {name: p.shape for name, p in wider.module.named_parameters() if "stages.0.0.conv1" in name}
    assert {shape[0] for name, shape in shapes.items() if "choice" not in name} == {19}


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("mix-operators(conv, choices=[])", gg.MutationError, "at least one, and none twice"),
        ("mix-operators(conv, choices=[conv-5, conv-5])", gg.MutationError, "at least one, and none twice"),
        ("mix-operators(conv, choices=[conv-4])", gg.Declined, "no padding gives the present operator's output size"),
        ("mix-operators(conv, choices=[gelu])", gg.Declined, "beside a convolution there are conv-1, conv-3"),
        ("mix-operators(head, choices=[conv-3])", gg.Declined, "beside a linear map there are low-rank"),
        ("mix-operators(act, choices=[max-pool])", gg.Declined, "beside an activation there are relu"),
        ("mix-operators(norm, choices=[identity])", gg.Declined, "is no convolution, linear map or activation"),
        ("mix-operators(wrong, choices=[identity])", gg.MutationError, "there is no site `wrong`"),
    ],
)
def test_what_is_refused(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gg.apply(graph(), text)


@pytest.mark.parametrize(
    ("site", "run", "said"),
    [
        (":add", lambda m, x: m.head(x) + x, "`:add` is no operator of one input"),
        (":relu", lambda m, x: m.head(x) + torch.relu((10 * x).long()), "puts out no floating-point tensor"),
        ("conv", lambda m, x: m.head(m.conv(x)), "an input of 2 axes, without a batch axis"),
    ],
)
def test_no_choice_stands_beside(site: str, run: Any, said: str) -> None:
    model = Forward(run, head=nn.Linear(4, 4), conv=nn.Conv1d(3, 3, 3, padding=1))
    graph = gg.trace(model, torch.randn(3, 4))
    with pytest.raises(gg.Declined, match=said):
        gg.apply(graph, f"mix-operators({site}, choices=[identity])")
    assert site not in [m.site_name for m in graph.mutations("mix-operators")]


def test_shapes_that_change_admit_no_skip() -> None:
    changes: list[dict[str, Any]] = [{"stride": 2}, {"padding": 0}]
    for options in changes:
        with pytest.raises(gg.Declined, match="identity: the operator changes the shape"):
            gg.apply(graph(**options), "mix-operators(conv, choices=[identity])")
    with pytest.raises(gg.Declined, match="pads with circular"):
        gg.apply(graph(padding_mode="circular"), "mix-operators(conv, choices=[conv-5])")
    with pytest.raises(gg.Declined, match=r"max-pool: a window of 3 cannot be padded by \(2, 2\)"):
        gg.apply(graph(padding=2), "mix-operators(conv, choices=[max-pool])")


def test_noise_belongs_to_training_alone_and_hard_samples_are_one_hot() -> None:
    layer = Choice(("a", "b", "c")).double()
    with torch.no_grad():
        layer.opened.fill_(1.0)
        layer.alpha.copy_(torch.tensor([1.0, 0.0, -1.0]))
    layer.gumbel = 1.0
    expected = torch.softmax(layer.alpha.detach(), 0)
    assert torch.allclose(layer.eval().weights(), expected)
    layer.train()
    layer.hard = True
    drawn = torch.stack([layer.weights().detach() for _ in range(4000)])
    assert torch.equal(drawn.amax(1), torch.ones(4000, dtype=torch.float64))
    assert torch.allclose(drawn.mean(0), expected, atol=0.03)  # the Gumbel-max trick samples the softmax
    layer.hard = False
    layer.temperature.fill_(0.01)
    soft = torch.stack([layer.weights().detach() for _ in range(4000)])
    assert torch.allclose(soft.mean(0), expected, atol=0.03)


@pytest.mark.parametrize("build", [lambda: Choice(("a", "b"))])
def test_a_choice_prints_its_operators(build: Callable[[], Choice]) -> None:
    assert str(build()) == "Choice(a, b)"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision(dtype: torch.dtype) -> None:
    assert_narrow(net, torch.randn(2, 4, 7, 7), "mix-operators(conv, choices=[conv-5, separable-3, none])", dtype)


def test_it_saves_and_exports(tmp_path: Path) -> None:
    child = gg.apply(graph(dtype=torch.float32), f"mix-operators(conv, choices=[{ALL}])")
    choice(child).opened.data.fill_(0.4)
    assert_exports(child, tmp_path)
    named = gg.apply(gg.trace("graphgrow:resnet"), "mix-operators(stages.0.0.relu1, choices=[gelu, prelu])")
    assert_reloads(named, tmp_path / "saved")
