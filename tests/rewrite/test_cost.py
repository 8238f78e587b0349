"""FLOPs and parameters against hand counts and torch's own; a mutation's cost against really carrying it out."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import graphgrow as gg
from graphgrow.models import GPT, MODELS, ResNet, ViT
from graphgrow.rewrite.cost import MutationCost, NodeCost, count_flops, flops_text, node_costs
from tests.rewrite.small_models import Forward

SMALL = {
    "resnet": (ResNet(widths=(4, 6), blocks=(1, 1), classes=3), torch.randn(2, 3, 8, 8)),
    "vit": (ViT(image_size=8, patch=4, dim=8, depth=1, heads=2, hidden=12, classes=3), torch.randn(2, 3, 8, 8)),
    "gpt": (GPT(vocabulary=11, context=6, dim=8, depth=1, heads=2, hidden=12, tied=True), torch.randint(11, (2, 6))),
}


def whole_flops(graph: gg.Graph) -> int:
    """FLOPs of one forward pass of one sample, counted by torch over the module as a whole."""
    twin = copy.deepcopy(graph.module).to("meta").eval()
    args, kwargs = graph.inputs.sample(batch_size=1, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        twin(*args, **kwargs)
    return int(counter.get_total_flops())


def tied() -> nn.Module:
    """One layer called twice, a table that is the head's weight, and a fetched parameter."""
    model = Forward(
        lambda m, x: m.head(m.inner(m.inner(m.embed(x))) + m.pos),
        embed=nn.Embedding(7, 4),
        inner=nn.Linear(4, 4),
        pos=torch.randn(5, 4),
        head=nn.Linear(4, 7),
    )
    model.head.weight = model.embed.weight
    return model


@pytest.mark.parametrize(
    ("model", "example", "flops"),
    [
        (nn.Linear(4, 3), torch.randn(5, 4), 2 * 4 * 3),
        (nn.Linear(4, 3), torch.randn(5, 7, 4), 7 * 2 * 4 * 3),
        (nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU()), torch.randn(3, 2, 5, 5), 2 * 6 * 2 * 9 * 25),
        (nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.BatchNorm2d(4)), torch.randn(2, 4, 5, 5), 2 * 4 * 2 * 9 * 9),
        # scores q k over the width 8 and the sum of values, for each of 2 heads and 5 x 5 pairs of positions
        (Forward(lambda m, x: F.scaled_dot_product_attention(x, x, x)), torch.randn(3, 2, 5, 8), 2 * 2 * 25 * 2 * 8),
    ],
)
def test_flops_of_one_sample_count_two_for_a_multiplication_and_an_addition(
    model: nn.Module, example: torch.Tensor, flops: int
) -> None:
    graph = gg.trace(model, example)
    assert count_flops(graph) == graph.flops == flops
    assert count_flops(graph, batch_size=6) == 6 * flops


def test_costs_of_nodes_against_hand_counts() -> None:
    layers = (nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(150, 3, bias=False))
    assert gg.trace(nn.Sequential(*layers), torch.randn(3, 2, 5, 5)).node_costs() == {
        "input_1": NodeCost(0, 0),
        "_0": NodeCost(6 * 2 * 9 + 6, 2 * 6 * 2 * 9 * 25),
        "_1": NodeCost(6 + 6, 0),
        "_2": NodeCost(0, 0),
        "_3": NodeCost(0, 0),
        "_4": NodeCost(150 * 3, 2 * 150 * 3),
        "output": NodeCost(0, 0),
    }


def test_a_parameter_counts_at_the_first_node_that_uses_it() -> None:
    graph = gg.trace(tied(), torch.randint(7, (2, 5)))
    costs = list(graph.node_costs().values())
    # input, embed, inner, inner, pos, sum, head, output
    assert [cost.parameters for cost in costs] == [0, 28, 20, 0, 20, 0, 7, 0]
    assert [cost.flops for cost in costs] == [0, 0, 5 * 32, 5 * 32, 0, 0, 5 * 2 * 4 * 7, 0]


@pytest.mark.parametrize("name", sorted(MODELS))
def test_nodes_sum_up_to_the_whole_of_every_reference_model(name: str) -> None:
    graph = gg.trace(f"graphgrow:{name}")
    costs = node_costs(graph)
    assert list(costs) == [node.name for node in graph.module.graph.nodes]
    assert sum(cost.flops for cost in costs.values()) == graph.flops == whole_flops(graph) > 100_000
    assert sum(cost.parameters for cost in costs.values()) == graph.parameter_count


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_mutation_costs_what_carrying_it_out_adds(name: str) -> None:
    model, example = SMALL[name]
    graph = gg.trace(model, example)
    flops, parameters = whole_flops(graph), graph.parameter_count
    costs = {}
    for mutation in graph.mutations():
        grown = gg.apply(graph, mutation)
        expected = MutationCost(grown.parameter_count - parameters, whole_flops(grown) - flops)
        assert graph.cost(mutation) == expected, str(mutation)
        costs[str(mutation)] = expected
    assert {text.partition("(")[0] for text in costs} >= {"deepen", "split", "widen"}
    assert max(cost.flops for cost in costs.values()) > 0


def test_several_mutations_cost_their_total() -> None:
    layers = (nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    graph = gg.trace(nn.Sequential(*layers), torch.randn(2, 4))
    first, second = gg.parse_mutation("widen(0, extra=2)"), "widen(2, extra=1)"
    assert graph.cost(first) == MutationCost(2 * 5 + 2 * 5, 2 * 2 * (4 + 5))
    assert graph.cost(second) == MutationCost(7 + 3, 2 * (6 + 3))
    # one more weight than the sum: where the new units of both layers meet, there are 2 x 1
    assert graph.cost([first, second]) == MutationCost(20 + 10 + 2, 36 + 18 + 2 * 2)
    assert graph.cost([]) == MutationCost(0, 0)


class Watch(TorchDispatchMode):
    """Notes every operator that is given one of some tensors, or a view of it, and the device it is asked for."""

    def __init__(self, tensors: list[torch.Tensor]) -> None:
        super().__init__()
        self._memory = {tensor.untyped_storage()._cdata for tensor in tensors}
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in torch.utils._pytree.tree_leaves((args, kwargs)):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage()._cdata in self._memory:
                place = (kwargs or {}).get("device")
                self.seen.add(f"{func.overloadpacket.__name__} {place}")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", sorted(SMALL))
def test_nothing_is_changed_and_no_data_is_moved(name: str) -> None:
    model, example = SMALL[name]
    graph = gg.trace(model, example)
    graph.module.train()
    tensors = [*graph.module.parameters(), *graph.module.buffers()]
    before, text, nodes = [t.clone() for t in tensors], graph.text(), list(graph.module.graph.nodes)
    one_of_each_pass = {mutation.name: mutation for mutation in graph.mutations()}
    with Watch(tensors) as watch:
        for mutation in one_of_each_pass.values():
            graph.cost(mutation)
        graph.node_costs()
    assert watch.seen == {"detach None", "_to_copy meta"}
    after = [*graph.module.parameters(), *graph.module.buffers()]
    assert all(a is b for a, b in zip(after, tensors, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert (graph.text(), list(graph.module.graph.nodes), len(graph.ledger)) == (text, nodes, 0)
    assert all(part.training for part in graph.module.modules())
    assert all(n.meta["value"].shape[0] == 2 for n in nodes if n.op == "placeholder")
    assert isinstance(graph.module, fx.GraphModule)
    assert graph.module.graph.owning_module is graph.module


def test_a_mutation_that_does_not_apply_has_no_cost() -> None:
    graph = gg.trace(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), torch.randn(2, 4))
    with pytest.raises(gg.Declined, match="a model output"):
        graph.cost("widen(2, extra=1)")
    with pytest.raises(gg.MutationError, match="no channel group"):
        graph.cost("widen(9, extra=1)")


class FixedBatch(nn.Module):
    """Restates the batch size of its example."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(4, 2, 3).flatten(1)


class LooksAtValues(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(("odd", "leaves"), [(FixedBatch(), []), (LooksAtValues(), ["1"])])
def test_what_does_not_run_on_one_sample_without_data_is_named(odd: nn.Module, leaves: list[str]) -> None:
    graph = gg.trace(nn.Sequential(nn.Linear(6, 6), odd), torch.randn(4, 6), leaves=leaves)
    with pytest.raises(gg.Unsupported, match=r"`1.* does not run on a batch of 1 without data.*decide by shapes"):
        count_flops(graph)
    with pytest.raises(gg.Unsupported, match="FLOPs cannot be counted"):
        graph.cost("widen(0, extra=1)")
    if not leaves:
        assert count_flops(graph, batch_size=4) == 4 * 2 * 6 * 6


def test_costs_in_words() -> None:
    assert str(MutationCost(1234, 500_000)) == "+1,234 parameters, +0.5 MFLOPs"
    assert str(MutationCost(0, -84)) == "+0 parameters, -84 FLOPs"
    assert str(MutationCost(-1, 0)) == "-1 parameter, +0 FLOPs"
    texts = {9_999: "9,999 FLOPs", 12_340: "0.0123 MFLOPs", 53_314_816: "53.3 MFLOPs", 35_127_656_448: "35,128 MFLOPs"}
    assert {flops: flops_text(flops) for flops in texts} == texts


def test_what_a_mask_chooses_counts_as_many_as_on_the_example() -> None:
    """A unit more: 2 * 3 for a batch of one in the first layer, 2 * 2 for each of three chosen rows behind."""

    class Chosen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 5), nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.first(x)[x[:, 0] > 0])

    rows = torch.tensor([[1.0, 0, 0], [2.0, 0, 0], [-1.0, 0, 0], [3.0, 0, 0]])
    graph = gg.trace(Chosen(), rows)
    assert graph.cost("widen(first, extra=1)").flops == 1 * 2 * 3 + 3 * 2 * 2
