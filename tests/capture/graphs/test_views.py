"""Where a view lies in its tensor: writing into the index that is told is writing into the view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx, nn

from graphgrow.capture.graphs.views import Asked, index_in, is_reshaped, is_view, order_back

View = Callable[[torch.Tensor], torch.Tensor]


def nodes_of(view: View) -> tuple[fx.Node, fx.Node, Asked]:
    """The node of a view of a (4, 6, 2) tensor, that of the tensor, and what all were called with."""
    graph = fx.symbolic_trace(type("Model", (nn.Module,), {"forward": lambda _, x: view(x)})()).graph
    values: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            values[node] = torch.empty(4, 6, 2, device="meta")
        elif node.op != "output":
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda used: values[used])
            values[node] = getattr(args[0], node.target)(*args[1:], **kwargs) if isinstance(node.target, str) else None
            if not isinstance(node.target, str):
                values[node] = node.target(*args, **kwargs)
        node.meta["value"] = values.get(node)
    source, *_, made, _ = graph.nodes
    return made, source, {node: (node.args, dict(node.kwargs)) for node in graph.nodes}


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[1:3, 2],
        lambda x: x[..., 0],
        lambda x: x.select(1, -2),
        lambda x: x.select(dim=2, index=1),
        lambda x: x.narrow(1, -3, 2),
        lambda x: x.narrow(1, start=1, length=4),
        lambda x: x.chunk(4, dim=1)[1],
        lambda x: x.split([1, 2, 3], 1)[-1],
        lambda x: torch.unbind(x, -1)[1],
    ],
)
def test_a_part_lies_at_its_index(view: View) -> None:
    made, source, asked = nodes_of(view)
    x = torch.arange(48.0).reshape(4, 6, 2)
    written, wanted = x.clone(), x.clone()
    written[index_in(made, source, asked)] = -1.0
    view(wanted).fill_(-1.0)
    assert torch.equal(written, wanted)
    assert is_view(made, nn.Module())


@pytest.mark.parametrize("view", [lambda x: x.chunk(2, dim=0)[1], lambda x: x.narrow(1, x.size(0), 2)])
def test_what_sizes_of_a_batch_may_move_has_no_index(view: View) -> None:
    made, source, asked = nodes_of(view)
    assert index_in(made, source, asked) is None
    assert order_back(made, source) is None


@pytest.mark.parametrize(
    "view",
    [lambda x: x.permute(2, 0, 1), lambda x: x.transpose(0, -1), lambda x: x.movedim(0, 2), lambda x: x.swapaxes(1, 2)],
)
def test_a_permuted_view_is_taken_back(view: View) -> None:
    made, source, asked = nodes_of(view)
    x = torch.arange(48.0).reshape(4, 6, 2)
    assert index_in(made, source, asked) is None
    order = order_back(made, source)
    assert order is not None
    assert torch.equal(view(x).permute(*order), x)
    assert not is_reshaped(made, source)


def test_a_reshape_holds_all_entries() -> None:
    made, source, asked = nodes_of(lambda x: x.reshape(6, 8))
    assert is_reshaped(made, source)
    assert index_in(made, source, asked) is None
    made, source, _ = nodes_of(lambda x: x.view(6, 8)[1:])
    assert not is_reshaped(made, source)
