"""Applying mutations: atomic, repeatable, and without a trace on the parent."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.network import network as network_module
from tests.preserved import assert_preserved

IMAGES = torch.linspace(-1, 1, 2 * 3 * 6 * 5).reshape(2, 3, 6, 5)


class Net(nn.Module):
    """A convolution with batch norm, a dropout, a linear head; one layer frozen for training."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.mix = nn.Conv2d(4, 4, 1)
        self.drop = nn.Dropout(0.5)
        self.hidden = nn.Linear(4, 6)
        self.head = nn.Linear(6, 2)
        self.mix.weight.requires_grad_(False)
        self.register_buffer("offset", torch.full((4, 1, 1), 0.25), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = torch.relu(self.norm(self.conv(images))) + self.offset
        maps = maps + self.mix(maps)
        result: torch.Tensor = self.head(torch.relu(self.hidden(self.drop(maps.mean((2, 3))))))
        return result


@pytest.fixture
def graph() -> Graph:
    torch.manual_seed(1)
    net = Net().train()
    net.drop.eval()
    return gg.trace(net, IMAGES)


def _print_of(module: nn.Module) -> list[Any]:
    """All that a growth could leave behind on a module."""
    tensors = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return [
        [(n, id(t), hashlib.sha256(t.detach().numpy().tobytes()).hexdigest(), t.requires_grad) for n, t in tensors],
        [(n, m.training, str(m)) for n, m in module.named_modules()],
        [(n, None if p.grad is None else p.grad.clone()) for n, p in module.named_parameters()],
    ]


def _numbers(module: nn.Module) -> dict[str, torch.Tensor]:
    return dict([*module.named_parameters(), *module.named_buffers()])


def _equal(a: nn.Module, b: nn.Module) -> bool:
    left, right = _numbers(a), _numbers(b)
    return list(left) == list(right) and all(torch.equal(left[name], right[name]) for name in left)


def _settings(module: nn.Module) -> dict[str, object]:
    return {
        f"{path}.{name}": value
        for path, part in module.named_modules()
        for name, value in vars(part).items()
        if path and isinstance(value, (int, float, tuple))
    }


@pytest.mark.parametrize("share", [True, False])
def test_the_parent_and_the_random_state_are_untouched(graph: Graph, share: bool) -> None:
    before, code, state = _print_of(graph.module), graph.module.code, torch.get_rng_state()
    for mutation in graph.mutations():
        gg.apply(graph, mutation, seed=1, share=share)
    gg.apply(graph, list(graph.mutations())[:2])
    assert _print_of(graph.module) == before
    assert graph.module.code == code
    assert torch.equal(torch.get_rng_state(), state)
    assert len(graph.ledger) == 0
    assert graph.steps == ()


def test_the_original_module_is_untouched_by_the_childs_life() -> None:
    net = Net()
    graph = gg.trace(net, IMAGES)
    before = _print_of(net)
    child = gg.apply(graph, "widen(hidden, extra=2)", share=False)
    child.module.train()
    child.module(IMAGES).sum().backward()
    child.module.eval()
    with torch.no_grad():
        for parameter in child.module.parameters():
            parameter.add_(1)
    assert _print_of(net) == before


def test_unchanged_parameters_are_shared_and_buffers_never(graph: Graph) -> None:
    child = gg.apply(graph, "widen(hidden, extra=2)")
    mine, theirs = _numbers(graph.module), _numbers(child.module)
    touched = {"hidden.weight", "hidden.bias", "head.weight"}
    assert set(child.steps[0].touched) == touched
    for name, tensor in graph.module.named_parameters():
        assert (theirs[name] is tensor) is (name not in touched), name
    for name, buffer in graph.module.named_buffers():
        assert theirs[name] is not buffer
        assert torch.equal(theirs[name], buffer)
        assert theirs[name].data_ptr() != mine[name].data_ptr()


def test_share_false_copies_everything(graph: Graph) -> None:
    child = gg.apply(graph, "widen(hidden, extra=2)", share=False)
    mine = {t.data_ptr() for t in _numbers(graph.module).values()}
    assert not mine & {t.data_ptr() for t in _numbers(child.module).values()}
    assert _equal(child.module, gg.apply(graph, "widen(hidden, extra=2)").module)


def test_modes_and_requires_grad_are_kept(graph: Graph) -> None:
    child = gg.apply(graph, ["split(conv)", "widen(hidden, extra=1)"])
    assert [m.training for m in child.module.modules()] == [m.training for m in graph.module.modules()]
    assert child.module.training
    assert not child.module.drop.training
    assert not dict(child.module.named_parameters())["mix.weight"].requires_grad
    assert dict(child.module.named_parameters())["conv.weight"].requires_grad
    child.module.eval()
    assert graph.module.training, "the child's modes are its own"


def test_the_seed_decides_the_fresh_weights(graph: Graph) -> None:
    torch.manual_seed(5)
    first = gg.apply(graph, "widen(hidden, extra=2)", seed=3)
    torch.manual_seed(6)
    again = gg.apply(graph, "widen(hidden, extra=2)", seed=3)
    other = gg.apply(graph, "widen(hidden, extra=2)", seed=4)
    assert _equal(first.module, again.module)
    assert not _equal(first.module, other.module)
    assert [entry.seed for entry in other.ledger] == [4]


def test_one_seed_for_a_run_repeats_no_draws(graph: Graph) -> None:
    once = gg.apply(graph, "widen(hidden, extra=2)", seed=3)
    twice = gg.apply(once, "widen(hidden, extra=2)", seed=3)
    rows = dict(twice.module.named_parameters())["hidden.weight"]
    assert not torch.equal(rows[6:8], rows[8:10])


def test_a_list_is_its_members_one_after_the_other(graph: Graph) -> None:
    texts = ["widen(hidden, extra=2)", "split(conv, units=[0, 2])", "split(hidden)"]
    whole = gg.apply(graph, texts, seed=2)
    stepwise = graph
    for text in texts:
        stepwise = gg.apply(stepwise, gg.parse_mutation(text), seed=2)
    assert _equal(whole.module, stepwise.module)
    assert whole.ledger == stepwise.ledger
    assert [entry.mutation for entry in whole.ledger] == texts
    assert len(whole.steps) == 3


def test_a_list_is_all_or_nothing(graph: Graph) -> None:
    before = _print_of(graph.module)
    with pytest.raises(gg.MutationError, match=r"nowhere"):
        gg.apply(graph, ["widen(hidden, extra=2)", "split(conv)", "split(nowhere)"])
    assert _print_of(graph.module) == before
    assert len(graph.ledger) == 0


def test_an_empty_list_changes_nothing(graph: Graph) -> None:
    assert _equal(gg.apply(graph, []).module, graph.module)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("widen(hidden, extra=0)", gg.MutationError, r"widen\(hidden, extra=0\): extra=0: at least 1"),
        ("widen(hidden, extra=-3)", gg.MutationError, r"extra=-3"),
        ("widen(hiden, extra=1)", gg.MutationError, r"no channel group `hiden`; did you mean 'hidden'"),
        ("widn(hidden, extra=1)", gg.MutationError, "there is no pass `widn`; did you mean 'widen'"),
        ("split(hidden, copies=1)", gg.MutationError, r"copies=1: a split makes at least 2"),
        ("split(hidden, units=[6])", gg.MutationError, r"units=\[6\]: `hidden` has units 0 to 5"),
        ("split(hidden, units=[-1])", gg.MutationError, r"units=\[-1\]"),
        ("split(hidden, units=[1, 1])", gg.MutationError, r"names a unit twice"),
        ("widen(head, extra=1)", gg.Declined, r"is frozen: a model output \(at `output`\); `grow-outputs` appends"),
        ("split(head)", gg.Declined, r"frozen"),
    ],
)
def test_errors_say_what_was_seen(graph: Graph, text: str, error: type[Exception], message: str) -> None:
    before = _print_of(graph.module)
    with pytest.raises(error, match=message):
        gg.apply(graph, text)
    assert _print_of(graph.module) == before


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_out_of_range_is_refused(graph: Graph, seed: int) -> None:
    with pytest.raises(gg.MutationError, match="a seed is a whole number"):
        gg.apply(graph, "split(hidden)", seed=seed)


def test_nan_in_what_changes_is_refused(graph: Graph) -> None:
    parameters = dict(graph.module.named_parameters())
    with torch.no_grad():
        parameters["head.bias"][0] = float("nan")
    child = gg.apply(graph, "split(hidden)")  # it reads the weight alone
    assert torch.isnan(child.module.get_parameter("head.bias")[0])
    with pytest.raises(gg.GraphGrowError, match="NaN"):
        gg.verify(graph, child)
    with torch.no_grad():
        parameters["head.weight"][0, 0] = float("nan")
    with pytest.raises(gg.Unsupported, match=r"`head.weight` holds NaN"):
        gg.apply(graph, "split(hidden)")


def test_a_ledger_replays_to_the_bit(graph: Graph) -> None:
    child = gg.apply(graph, ["widen(hidden, extra=3)", "split(conv)"], seed=7)
    child = gg.apply(child, "split(hidden, units=[1, 7])", seed=8)
    again = gg.replay(graph.module, IMAGES, child.ledger)
    assert _equal(again.module, child.module)
    assert again.ledger == child.ledger
    text = gg.Ledger.from_json(child.ledger.to_json())
    assert _equal(gg.replay(graph.module, IMAGES, text).module, child.module)


@pytest.mark.parametrize("name", ["densenet", "resnet", "vit", "unet", "mobilenet", "gpt"])
def test_a_list_is_what_its_mutations_are_one_by_one(name: str) -> None:
    parent = gg.trace(f"graphgrow:{name}")
    found = [*parent.mutations("widen"), *parent.mutations("split")]
    picked = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))[:5]
    stream = found[0]  # over all norms
    chosen = [found[1], stream, stream, *(found[number] for number in picked)]
    single = parent
    for mutation in chosen:
        single = gg.apply(single, mutation, seed=3)
    together = gg.apply(parent, chosen, seed=3)
    assert _equal(together.module, single.module)
    assert _settings(together.module) == _settings(single.module)
    assert together.module.code == single.module.code
    assert together.text() == single.text()
    assert [str(group) for group in together.groups] == [str(group) for group in single.groups]
    assert together.ledger == single.ledger
    for one, other in zip(together.steps, single.steps, strict=True):
        assert (one.touched, one.exact_in, one.rounded, one.shared) == (
            other.touched,
            other.exact_in,
            other.rounded,
            other.shared,
        )
        assert one.nodes.keys() == other.nodes.keys()


@pytest.mark.parametrize("name", ["densenet", "resnet", "gpt"])
@pytest.mark.parametrize(("growth", "way_back"), [("widen", "drop-units"), ("split", "merge-units")])
def test_a_list_that_takes_units_away_is_what_its_mutations_are_one_by_one(
    name: str, growth: str, way_back: str
) -> None:
    parent = gg.trace(f"graphgrow:{name}")
    parent = gg.apply(parent, list(parent.mutations(growth)), seed=1)
    chosen = list(parent.mutations(way_back))
    single = parent
    for mutation in chosen:
        single = gg.apply(single, mutation)
    together = gg.apply(parent, chosen)
    assert chosen
    assert _equal(together.module, single.module)
    assert _settings(together.module) == _settings(single.module)
    assert together.text() == single.text()
    assert [str(group) for group in together.groups] == [str(group) for group in single.groups]
    assert together.ledger == single.ledger
    assert gg.verify(parent, together).preserved is True


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
def test_a_norm_over_an_axis_that_grew_twice_in_one_list(norm: Callable[[int], nn.Module]) -> None:
    """The block put in binds the norm's axis to the stream's; the second growth must see the size after the first."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.Sequential(norm(2), nn.Linear(2, 6), nn.Tanh()), nn.Linear(6, 2))
    parent = gg.trace(model.double(), torch.randn(6, 3, dtype=torch.float64))
    chosen = ["deepen(1.1, kind=mlp)", "split(0)", "widen(0, extra=2)", "widen(0, extra=3)"]
    single = parent
    for mutation in chosen:
        single = gg.apply(single, mutation)
    together = gg.apply(parent, chosen)
    assert _equal(together.module, single.module)
    assert_preserved(parent, together)


def test_a_list_that_is_declined_in_the_middle_changes_nothing(graph: Graph) -> None:
    before, text = _print_of(graph.module), graph.text()
    with pytest.raises(gg.GraphGrowError):
        gg.apply(graph, ["widen(hidden, extra=2)", "widen(conv, extra=2)", "widen(nowhere, extra=1)"])
    assert _print_of(graph.module) == before
    assert graph.text() == text


@pytest.mark.parametrize(
    "texts",
    [
        ["deepen(:add, kind=conv)", "widen(hidden, extra=3)"],
        ["swap-activation(:relu, to=gelu)", "deepen(mix, kind=conv)", "split(conv)", "widen(hidden, extra=1)"],
    ],
)
def test_names_have_one_order_however_a_graph_was_made(graph: Graph, texts: list[str]) -> None:
    """An optimizer's state knows parameters by their position alone."""
    single = graph
    for text in texts:
        single = gg.apply(single, text)
    again = gg.replay(graph.module, IMAGES, single.ledger)
    assert list(single.module.state_dict()) == list(again.module.state_dict())
    assert list(single.module.state_dict()) == list(gg.apply(graph, texts).module.state_dict())


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often example values are found for a whole graph, and how often its axes are analysed."""
    counts = {"propagate": 0, "analyse": 0}
    for name in counts:
        called = getattr(network_module, name)

        def watched(*args: Any, name: str = name, called: Any = called) -> Any:
            counts[name] += 1
            return called(*args)

        monkeypatch.setattr(network_module, name, watched)
    return counts


def test_example_values_are_found_once_for_a_list(counts: dict[str, int]) -> None:
    """Each mutation brings those up to date that it reaches; no axes are analysed for what looks at none."""
    net = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.0), nn.ReLU(), nn.Linear(6, 6), nn.Dropout(0.0), nn.Linear(6, 3))
    graph = gg.trace(net, torch.randn(2, 4))
    counts.update(propagate=0, analyse=0)
    gg.apply(graph, ["drop-identity(1)", "drop-identity(4)"])
    assert counts == {"propagate": 1, "analyse": 0}
    grown = gg.apply(graph, ["widen(0, extra=2)", "widen(3, extra=2)", "widen(0, extra=1)"])
    assert counts == {"propagate": 1, "analyse": 2}  # of the parent, and of a copy that the rest edit in place
    shapes = {node.name: node.meta["value"].shape for node in grown.module.graph.nodes if node.op == "call_module"}
    assert list(shapes.values()) == [(2, 9), (2, 9), (2, 9), (2, 8), (2, 8), (2, 3)]


def test_axes_are_analysed_once_for_a_list_that_takes_units_away(counts: dict[str, int]) -> None:
    graph = gg.trace(nn.Sequential(*(nn.Linear(4, 4) for _ in range(6))), torch.randn(2, 4))
    grown = gg.apply(graph, [f"widen({number}, extra=2)" for number in (0, 2, 4)])
    found = list(grown.mutations("drop-units"))
    counts.update(propagate=0, analyse=0)
    back = gg.apply(grown, found)
    assert len(found) == 3
    assert counts == {"propagate": 0, "analyse": 1}  # of a copy, which the rest edit in place
    assert {tuple(parameter.shape) for parameter in back.module.parameters()} == {(4, 4), (4,)}


def test_down_to_one_unit_the_axes_are_analysed_anew(counts: dict[str, int]) -> None:
    """An axis of one unit may be broadcast, and a view may drop it."""
    sizes = [4, 3, 3, 1, 3, 3, 4]
    layers = (nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
    graph = gg.trace(nn.Sequential(*layers), torch.randn(2, 4))
    grown = gg.apply(graph, [f"widen({number}, extra=3)" for number in (0, 2, 4)])
    found = list(grown.mutations("drop-units"))
    counts.update(propagate=0, analyse=0)
    back = gg.apply(grown, found)
    assert (len(found), counts["analyse"]) == (3, 2)  # of a copy, and again behind the second
    assert [str(group) for group in back.groups] == [str(group) for group in graph.groups]
