"""Looking on changes nothing, shows every value before it is overwritten, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.errors import SignalError
from graphgrow.graph import Graph
from graphgrow.signals.watch import Callback, Watch, on_gradient


class Recorder:
    """Keeps copies of the values and gradients of some nodes."""

    def __init__(self, *nodes: str) -> None:
        self.nodes = nodes
        self.values: dict[str, torch.Tensor] = {}
        self.gradients: dict[str, torch.Tensor] = {}

    def watches(self) -> Iterable[tuple[str, Callback]]:
        return [(node, partial(self._keep, node)) for node in self.nodes]

    def _keep(self, node: str, value: torch.Tensor) -> None:
        self.values[node] = value.detach().clone()
        on_gradient(value, lambda gradient: self.gradients.__setitem__(node, gradient.clone()))


def _graph() -> Graph:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    return gg.trace(net, torch.randn(5, 3))


def test_values_are_seen_before_they_are_overwritten_and_gradients_are_autograds() -> None:
    graph, x = _graph(), torch.randn(5, 3)
    seen = Recorder("_0", "_1")
    with Watch(graph.module, [seen]):
        graph.module(x).square().sum().backward()
    first, _, last = (graph.module.get_submodule(str(i)) for i in range(3))
    before = first(x)
    hidden = before.relu()
    gradient = torch.autograd.grad(last(hidden).square().sum(), [before, hidden])
    assert torch.equal(seen.values["_0"], before)
    assert bool((seen.values["_0"] < 0).any()), "the ReLU overwrites these"
    assert torch.allclose(seen.gradients["_0"], gradient[0])
    assert torch.allclose(seen.gradients["_1"], gradient[1])


@pytest.mark.parametrize("name", ["resnet", "gpt", "unet", "lstm"])
def test_what_is_computed_is_the_same_to_the_bit_and_nothing_is_left(name: str) -> None:
    graph = gg.trace(f"graphgrow:{name}")
    args, kwargs = graph.inputs.sample()
    module = graph.module.train()
    before = {key: len(getattr(part, key)) for part in module.modules() for key in vars(part) if key.endswith("_hooks")}
    torch.manual_seed(1)
    plain = module(*args, **kwargs)
    torch.manual_seed(1)
    code, keys = module.code, set(module.__dict__)
    assert graph.analysis.facts  # gives every node its example value
    tensors = [node.name for node in module.graph.nodes if isinstance(node.meta["value"], torch.Tensor)]
    with Watch(module, [Recorder(*tensors)]):
        watched = module(*args, **kwargs)
    assert torch.equal(plain, watched)
    assert module.code == code
    assert set(module.__dict__) == keys
    after = {key: len(getattr(part, key)) for part in module.modules() for key in vars(part) if key.endswith("_hooks")}
    assert after == before


def test_inputs_by_name_arrive() -> None:
    graph = _graph()
    (placeholder,) = [node for node in graph.module.graph.nodes if node.op == "placeholder"]
    x = torch.randn(2, 3)
    with Watch(graph.module, []):
        assert torch.equal(graph.module(**{str(placeholder.target): x}), graph.module(x))


def test_an_error_in_the_loop_takes_the_watch_away_too() -> None:
    graph = _graph()
    with pytest.raises(RuntimeError, match="shapes"), Watch(graph.module, []):
        graph.module(torch.randn(2, 7))
    assert "forward" not in graph.module.__dict__


def test_a_second_watch_and_an_unknown_node_are_refused() -> None:
    graph = _graph()
    with Watch(graph.module, []), pytest.raises(SignalError, match="watched already"), Watch(graph.module, []):
        pass
    with pytest.raises(SignalError, match="no node `nowhere`"):
        Watch(graph.module, [Recorder("nowhere")])


def test_what_a_signal_computes_is_not_rounded_by_the_users_autocast() -> None:
    graph, seen = _graph(), []

    class Products:
        def watches(self) -> Iterable[tuple[str, Callback]]:
            return [("_0", self.look)]

        def look(self, value: torch.Tensor) -> None:
            seen.append((value.dtype, (value.float() @ value.float().T).dtype))
            on_gradient(value, lambda grad: seen.append((grad.dtype, (grad.float() @ grad.T.float()).dtype)))

    with Watch(graph.module, [Products()]), torch.autocast("cpu", torch.bfloat16):
        graph.module(torch.randn(5, 3)).sum().backward()
        assert torch.is_autocast_enabled("cpu")
    assert seen == [(torch.bfloat16, torch.float32)] * 2
