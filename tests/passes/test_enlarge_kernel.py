"""enlarge-kernel: all convolutions and geometries, against a freshly made layer of the new size, and refusals."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.graph import Graph
from graphgrow.rewrite import kernels
from tests.passes.claims import (
    assert_alive,
    assert_equal,
    assert_exact,
    assert_exports,
    assert_narrow,
    assert_reloads,
    gradients,
    grown,
)
from tests.preserved import assert_preserved
from tests.rewrite.small_models import Forward

TOLERANCE = 1e-13  # in float64: a longer sum of the same terms


def around(layer: nn.Module, outputs: int) -> nn.Module:
    """The convolution `site` of 4 channels between others, with an activation in place behind it."""
    dims = layer.weight.dim() - 2
    conv: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    return Forward(lambda m, x: m.head(m.act(m.site(m.stem(x)))), stem=conv(2, 4, 1), site=layer,
                   act=nn.ReLU(inplace=True), head=conv(outputs, 3, 1))  # fmt: skip


def graph_of(layer: Any, *size: int) -> Graph:
    return gg.trace(around(layer, layer.out_channels).double(), torch.randn(2, 2, *size, dtype=torch.float64))


# label -> the layer, the size of the images, the new size, the kernel that is wanted
LAYERS: dict[str, tuple[Any, tuple[int, ...], int, tuple[int, ...]]] = {
    "1d": (lambda: nn.Conv1d(4, 6, 3, padding=1), (9,), 5, (5,)),
    "1d-stride-dilation": (lambda: nn.Conv1d(4, 6, 2, stride=3, dilation=2), (11,), 6, (6,)),
    "1d-transposed": (lambda: nn.ConvTranspose1d(4, 6, 3, stride=2, output_padding=1), (5,), 5, (5,)),
    "2d": (lambda: nn.Conv2d(4, 6, 3, bias=False), (6, 5), 5, (5, 5)),
    "2d-one": (lambda: nn.Conv2d(4, 6, 1), (6, 5), 3, (3, 3)),
    "2d-row": (lambda: nn.Conv2d(4, 6, (1, 3), padding=(0, 1)), (6, 5), 5, (1, 5)),
    "2d-column-far": (lambda: nn.Conv2d(4, 6, (3, 1), stride=(2, 1)), (6, 5), 7, (7, 1)),
    "2d-even": (lambda: nn.Conv2d(4, 6, 4, padding=2, stride=2), (6, 5), 6, (6, 6)),
    "2d-oblong": (lambda: nn.Conv2d(4, 6, (3, 5), padding=(0, 3)), (6, 5), 7, (7, 7)),
    "2d-grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2, padding=1), (6, 5), 9, (9, 9)),
    "2d-depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4, padding=2, dilation=2), (6, 5), 5, (5, 5)),
    "2d-same": (lambda: nn.Conv2d(4, 6, 3, padding="same", dilation=(1, 2)), (6, 5), 5, (5, 5)),
    "2d-same-even": (lambda: nn.Conv2d(4, 6, 2, padding="same"), (6, 5), 4, (4, 4)),
    "2d-valid": (lambda: nn.Conv2d(4, 6, 3, padding="valid"), (6, 5), 5, (5, 5)),
    "2d-transposed": (lambda: nn.ConvTranspose2d(4, 6, 2, stride=2), (3, 4), 4, (4, 4)),
    "2d-transposed-all": (
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=(3, 2), padding=1, output_padding=(2, 1), dilation=2, groups=2),
        (3, 4), 5, (5, 5),
    ),
    "2d-transposed-depthwise": (lambda: nn.ConvTranspose2d(4, 4, (1, 4), stride=2, groups=4), (3, 4), 6, (1, 6)),
    "3d": (lambda: nn.Conv3d(4, 6, (1, 3, 3), padding=(0, 1, 1), stride=(1, 2, 2)), (3, 5, 4), 5, (1, 5, 5)),
    "3d-transposed": (lambda: nn.ConvTranspose3d(4, 6, 2, stride=2), (2, 3, 2), 4, (4, 4, 4)),
}  # fmt: skip


@pytest.mark.parametrize("label", LAYERS)
def test_every_geometry(label: str) -> None:
    make, size, to, kernel = LAYERS[label]
    graph = graph_of(make(), *size)
    child = grown(graph, f"enlarge-kernel(site, to={to})")
    other = tuple(n + 3 - i for i, n in enumerate(size))
    assert_exact(graph, child, sizes=[(2, *size), (2, *other)], batches=(1, 3), tolerance=TOLERANCE)
    layer: Any = child.module.get_submodule("site")
    assert layer.kernel_size == tuple(layer.weight.shape[2:]) == kernel
    assert assert_alive(graph, child) == {"site.weight"}


@pytest.mark.parametrize("label", LAYERS)
def test_the_layer_is_what_its_constructor_would_make(label: str) -> None:
    """Of the new kernel and padding: the same attributes, torch's private ones included, and the same function."""
    make, size, to, kernel = LAYERS[label]
    old = make()
    layer: Any = gg.apply(graph_of(old, *size), f"enlarge-kernel(site, to={to})").module.get_submodule("site")
    padding = old.padding
    if not isinstance(padding, str) or padding == "valid":
        before = (0,) * len(size) if padding == "valid" else padding
        padding = tuple(
            p + d * (new - k) // 2
            for p, d, new, k in zip(before, old.dilation, kernel, old.kernel_size, strict=True)
        )  # fmt: skip
    options = {name: getattr(old, name) for name in ("stride", "dilation", "groups")} | {"bias": old.bias is not None}
    if old.transposed:
        options["output_padding"] = old.output_padding
    made = type(old)(4, old.out_channels, kernel, padding=padding, **options).double()
    plain = {name: value for name, value in vars(made).items() if not name.startswith("_") or "padding" in name}
    assert {name: vars(layer)[name] for name in plain} == plain
    assert repr(layer) == repr(made)
    made.load_state_dict(layer.state_dict())
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    assert torch.equal(made(x), layer(x))


def test_the_old_taps_stand_in_the_middle_of_zeros() -> None:
    graph = graph_of(nn.Conv2d(4, 6, (1, 2)), 5, 5)
    child = gg.apply(graph, "enlarge-kernel(site, to=6)")
    old, new = (side.module.get_parameter("site.weight") for side in (graph, child))
    assert torch.equal(new[..., 2:4], old)
    assert int(new.count_nonzero()) == old.numel()
    places = child.steps[-1].tensors["site.weight"]
    assert {axis: kept.tolist() for axis, kept in places.items()} == {2: [0], 3: [2, 3]}
    unnamed = gg.apply(graph, "enlarge-kernel(site)")
    assert unnamed.module.get_parameter("site.weight").shape == (6, 4, 1, 4)  # two more than the largest


def test_the_old_taps_keep_their_gradient() -> None:
    graph = graph_of(nn.Conv2d(4, 6, 3, padding=1, stride=2), 6, 5)
    child = gg.apply(graph, "enlarge-kernel(site, to=7)")
    args = graph.inputs.sample()[0]
    expected, found = (gradients(copy.deepcopy(side.module), args) for side in (graph, child))
    for name, gradient in expected.items():
        middle = found[name][..., 2:-2, 2:-2] if name == "site.weight" else found[name]
        assert_equal(gradient, middle, 1e-12, name)


@pytest.mark.parametrize("kind", ["sgd", "adam", "amsgrad"])
def test_the_state_of_the_optimizer_moves_with_the_taps(kind: str) -> None:
    graph = graph_of(nn.Conv1d(4, 6, 3, padding=1), 8)
    parameters = graph.module.parameters()
    if kind == "sgd":
        optimizer: Any = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    else:
        optimizer = torch.optim.Adam(parameters, lr=0.1, amsgrad=kind == "amsgrad")
    args = graph.inputs.sample(1, 5)[0]
    for _ in range(2):
        gradients(graph.module, args)
        optimizer.step()
    before = dict(optimizer.state[graph.module.get_parameter("site.weight")])
    bias = graph.module.get_parameter("site.bias")
    child = gg.apply(graph, "enlarge-kernel(site, to=7)", optimizer=optimizer)
    state = optimizer.state[child.module.get_parameter("site.weight")]
    assert state.keys() == before.keys()
    assert child.module.get_parameter("site.bias") is bias
    for name, old in before.items():
        if old is None or old.dim() == 0:
            assert state[name] is old
            continue
        new = state[name]
        assert torch.equal(new[..., 2:5], old)
        ring = torch.cat([new[..., :2], new[..., 5:]], -1)
        wanted = old.mean(-1, keepdim=True).expand_as(ring) if name.endswith("_sq") else torch.zeros_like(ring)
        assert torch.allclose(ring, wanted, rtol=1e-14), name
    found = gradients(child.module, args)["site.weight"] != 0
    optimizer.step()
    weight = child.module.get_parameter("site.weight")
    for added in (slice(0, 2), slice(5, 7)):  # what has a gradient has moved
        assert bool(found[..., added].any())
        assert torch.equal(weight[..., added] != 0, found[..., added])


@pytest.mark.parametrize(("dims", "layout"), [(2, torch.channels_last), (3, torch.channels_last_3d)])
def test_memory_format_and_requires_grad_stay(dims: int, layout: torch.memory_format) -> None:
    layer = (nn.Conv2d, nn.Conv3d)[dims - 2](4, 6, 3)
    model: Any = around(layer, 6)
    graph = gg.trace(model.to(memory_format=layout), torch.randn(2, 2, *(4, 5, 6)[:dims]))
    graph.module.get_parameter("site.weight").requires_grad_(False)
    weight = gg.apply(graph, "enlarge-kernel(site, to=5)").module.get_parameter("site.weight")
    assert weight.is_contiguous(memory_format=layout)
    assert not weight.is_contiguous()
    assert not weight.requires_grad


class Twice(nn.Module):
    """One convolution, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(torch.tanh(self.conv(x))))


def test_a_module_that_is_called_twice_changes_in_both_calls() -> None:
    graph = gg.trace(Twice().double(), torch.randn(2, 3, 5, 4, dtype=torch.float64))
    assert [str(mutation) for mutation in graph.mutations("enlarge-kernel")] == [
        "enlarge-kernel(conv, to=5)",
        "enlarge-kernel(head, to=3)",
    ]
    for site in ("conv", "conv@2"):
        child = grown(graph, f"enlarge-kernel({site}, to=5)")
        assert_exact(graph, child, tolerance=TOLERANCE)
        called = [str(node.target) for node in child.module.graph.nodes if node.op == "call_module"]
        assert called == ["conv", "conv", "head"]


class Tied(nn.Module):
    """One weight in two convolutions, one that is read bare, and one of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(4))
        self.b.weight = self.a.weight
        self.d.bias = self.a.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.d(self.c(self.b(self.a(x)))) + self.c.weight.sum()


def test_padding_with_what_lies_at_the_border_declines() -> None:
    graph = gg.trace(nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect")), torch.randn(2, 2, 5, 4))
    assert not list(graph.mutations("enlarge-kernel"))
    with pytest.raises(gg.Declined, match="`0` pads with reflect: more padding would repeat other values"):
        gg.apply(graph, "enlarge-kernel(0)")


def test_weights_that_are_used_elsewhere_decline() -> None:
    graph = gg.trace(Tied(), torch.randn(2, 3, 5, 4))
    assert [str(mutation) for mutation in graph.mutations("enlarge-kernel")] == ["enlarge-kernel(d, to=5)"]
    for site in "abc":
        with pytest.raises(gg.Declined, match=f"the weight of `{site}` is used by other operators too"):
            gg.apply(graph, f"enlarge-kernel({site}, to=5)")
    child = grown(graph, "enlarge-kernel(d, to=5)")
    assert child.module.get_parameter("d.bias") is child.module.get_parameter("a.bias")


class Cast(nn.Module):
    """Patches that are cast to the dtype of the weight, or cut by its size, as vision transformers have it."""

    def __init__(self, sized: bool) -> None:
        super().__init__()
        self.sized, self.patches = sized, nn.Conv2d(3, 4, 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.patches.weight
        x = x[..., : 3 * weight.shape[-1]] if self.sized else x.to(dtype=weight.dtype)
        result: torch.Tensor = self.patches(x)
        return result


def test_a_weight_whose_dtype_is_read_as_well_may_grow() -> None:
    graph = gg.trace(Cast(sized=False), torch.randn(2, 3, 6, 6))
    assert_exact(graph, grown(graph, "enlarge-kernel(patches, to=4)"), tolerance=TOLERANCE)
    with pytest.raises(gg.Declined, match="the weight of `patches` is used by other operators too"):
        gg.apply(gg.trace(Cast(sized=True), torch.randn(2, 3, 6, 6)), "enlarge-kernel(patches, to=4)")


class Same(nn.Conv2d):
    """A convolution that does more than its parent."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input).relu()


REFUSED = [
    (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), 5, gg.Declined, "`site` pads with reflect"),
    (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), 5, gg.Declined, "`site` pads with circular"),
    (nn.Conv2d(4, 6, 3), 4, gg.Declined, "to=4: a kernel of (3, 3) cannot stay in the middle, since the parity"),
    (nn.Conv2d(4, 6, (2, 3)), 5, gg.Declined, "the parity changes"),
    (nn.Conv2d(4, 6, 3), 3, gg.MutationError, "to=3: `site` has a kernel of (3, 3), a larger one is wanted"),
    (nn.Conv2d(4, 6, 3), -1, gg.MutationError, "a larger one is wanted"),
]


@pytest.mark.parametrize(("layer", "to", "error", "words"), REFUSED)
def test_refusals(layer: nn.Module, to: int, error: type[Exception], words: str) -> None:
    graph = gg.trace(around(layer, 6), torch.randn(2, 2, 6, 5))
    with pytest.raises(error) as caught:
        gg.apply(graph, f"enlarge-kernel(site, to={to})")
    assert words in str(caught.value)


def test_what_is_no_convolution_of_torch() -> None:
    model = around(Same(4, 6, 3), 6)
    graph = gg.trace(model, torch.randn(2, 2, 6, 5), leaves=[Same])
    for site in ("site", "act"):
        with pytest.raises(gg.Declined, match=f"`{site}` is no convolution module of torch.nn"):
            gg.apply(graph, f"enlarge-kernel({site}, to=5)")
    assert [refusal.site for refusal in graph.mutations("enlarge-kernel").refusals] == ["site"]
    with pytest.raises(gg.MutationError, match="no site `sit`"):
        gg.apply(graph, "enlarge-kernel(sit, to=5)")


def test_groups_grow_behind_it_as_before() -> None:
    graph = graph_of(nn.Conv2d(4, 6, 3, groups=2), 6, 5)
    child = gg.apply(graph, ["enlarge-kernel(site, to=5)", "enlarge-kernel(site, to=9)"])
    assert_exact(graph, child, tolerance=TOLERANCE)
    assert [g.name for g in child.groups] == [g.name for g in graph.groups]
    for mutation in [*child.mutations("widen"), *child.mutations("split")]:
        assert_preserved(child, gg.apply(child, mutation))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision(dtype: torch.dtype) -> None:
    """Of one channel and small whole numbers, so that sums of any order are the same."""

    def build() -> nn.Module:
        model = around(nn.Conv2d(4, 6, 3, padding=1), 6)
        for parameter in model.parameters():
            parameter.data = torch.randint(-2, 3, parameter.shape, dtype=torch.float32)
        return model

    assert_narrow(build, torch.ones(2, 2, 6, 5), "enlarge-kernel(site, to=5)", dtype)


def test_verify_sees_a_ring_that_is_not_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = gg.trace(around(nn.Conv2d(4, 6, 3, padding=1), 6), torch.randn(2, 2, 6, 5))
    assert gg.verify(graph, gg.apply(graph, "enlarge-kernel(site, to=5)")).preserved is True
    ringed = kernels._ringed
    monkeypatch.setattr(kernels, "_ringed", lambda tensor, rings: ringed(tensor, rings, 1e-3))
    verdict = gg.verify(graph, gg.apply(graph, "enlarge-kernel(site, to=5)"))
    assert verdict.preserved is False
    assert verdict.first_difference == "site"


def test_onnx(tmp_path: Path) -> None:
    model = Forward(
        lambda m, x: m.c(m.b(m.a(x).relu())), a=nn.Conv2d(2, 4, 3, padding="same"), b=nn.Conv2d(4, 4, 2, stride=2),
        c=nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1),
    )  # fmt: skip
    child = gg.apply(gg.trace(model, torch.randn(2, 2, 6, 8)), [f"enlarge-kernel({site})" for site in "abc"])
    for parameter in child.module.parameters():
        nn.init.normal_(parameter.data, std=0.3)
    assert_exports(child, tmp_path)


def test_saved_and_loaded(tmp_path: Path) -> None:
    graph = gg.trace("graphgrow:mobilenet")
    assert_reloads(gg.apply(graph, list(graph.mutations("enlarge-kernel"))[:2]), tmp_path)


def test_the_list_walks_the_parameters_no_oftener_for_more_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[nn.Module] = []
    walk = nn.Module.named_parameters

    def counting(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        counted.append(module)
        return walk(module, *args, **kwargs)

    walks = []
    for depth in (2, 6):
        graph = gg.trace(nn.Sequential(*(nn.Conv1d(2, 2, 1) for _ in range(depth))), torch.randn(2, 2, 4))
        assert graph.analysis.facts
        with monkeypatch.context() as patched:
            patched.setattr(nn.Module, "named_parameters", counting)
            assert len(list(graph.mutations("enlarge-kernel"))) == depth
        walks.append(len(counted))
        counted.clear()
    assert walks[0] == walks[1]


@pytest.mark.parametrize("whole", [False, True])
def test_a_transposed_convolution_that_is_told_its_output_size_grows(whole: bool) -> None:
    def forward(m: Any, x: torch.Tensor) -> Any:
        skip = m.stem(x)
        up = m.site(torch.relu(m.down(skip)), output_size=skip.size() if whole else skip.size()[2:])
        return m.head(torch.cat([skip, torch.relu(up)], 1))

    model = Forward(forward, stem=nn.Conv2d(3, 4, 3, padding=1), down=nn.Conv2d(4, 5, 3, 2, 1),
                    site=nn.ConvTranspose2d(5, 6, 3, 2, 1), head=nn.Conv2d(10, 2, 1)).double()  # fmt: skip
    graph = gg.trace(model, torch.randn(2, 3, 8, 7, dtype=torch.float64))
    for mutation in ("enlarge-kernel(site)", "widen(site, extra=2)", "split(down)"):
        child = gg.apply(graph, mutation)
        for shape in ((2, 3, 8, 7), (1, 3, 9, 6)):
            x = torch.randn(shape, dtype=torch.float64)
            assert_equal(model(x), child.module(x), TOLERANCE, f"{mutation} at {shape}")


@pytest.mark.parametrize(
    ("layer", "length", "to"),
    [
        (nn.Conv1d(3, 4, 3, padding=1), 2, 5),
        (nn.Conv1d(3, 4, 3, padding=1), 3, 5),
        (nn.Conv1d(3, 4, 1), 1, 3),
        (nn.Conv1d(3, 4, 1), 2, 3),
        (nn.Conv1d(3, 4, 1, stride=2), 3, 3),
        (nn.Conv1d(3, 4, 1, stride=4), 5, 3),
        (nn.Conv1d(3, 4, 3, padding="same", dilation=2), 4, 5),
        (nn.Conv1d(3, 4, 3, padding="same", dilation=2), 5, 5),
        (nn.Conv1d(3, 4, 3), 3, 5),
        (nn.ConvTranspose1d(3, 4, 2, stride=2), 1, 4),
        (nn.ConvTranspose1d(3, 4, 2, stride=2), 2, 4),
        (nn.ConvTranspose1d(3, 4, 4, stride=2, padding=1), 1, 6),
    ],
    ids=str,
)
def test_rings_that_meet_padding_alone_are_declined(layer: Any, length: int, to: int) -> None:
    """The reference is the gradient of the enlarged kernel, which torch takes."""
    torch.manual_seed(0)
    kernel = layer.kernel_size[0]
    kind, ring = type(layer), (to - kernel) // 2
    padding = layer.padding if isinstance(layer.padding, str) else layer.padding[0] + ring * layer.dilation[0]
    large = kind(3, 4, to, layer.stride, padding, dilation=layer.dilation)
    x = torch.randn(2, 3, length)
    large(x).square().sum().backward()
    reached = bool(torch.cat([large.weight.grad[..., :ring], large.weight.grad[..., to - ring :]], -1).any())
    graph = gg.trace(nn.Sequential(layer), x)
    assert [str(mutation) for mutation in graph.mutations("enlarge-kernel")] == [
        f"enlarge-kernel(0, to={to})"
    ] * reached
    if not reached:
        with pytest.raises(gg.Declined, match="would meet padding alone"):
            gg.apply(graph, f"enlarge-kernel(0, to={to})")
