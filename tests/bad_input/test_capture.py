"""Models and example inputs that are refused: what was seen and what to do, and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg
from tests.bad_input.model import IMAGE, ROWS, net


class Runs(nn.Module):
    """Two layers, and a forward that is a function of the model and its inputs."""

    def __init__(self, run: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.calls = nn.Linear(3, 4), nn.Linear(4, 2), 0
        self._run = run

    def forward(self, x: torch.Tensor) -> Any:
        return self._run(self, x)


class Applied(torch.autograd.Function):
    """A function that is given a layer, whose weights it may use as it likes."""

    @staticmethod
    def forward(ctx: Any, layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return layer(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return None, gradients[0]


def _broken(m: Any, x: torch.Tensor) -> Any:
    raise RuntimeError("broken inside")


def _slope(m: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():
        x = x.clone().requires_grad_()
        return torch.autograd.grad(m.first(x).sum(), x, create_graph=True)[0]


def _counts(m: Any, x: torch.Tensor) -> Any:
    m.calls += 1
    return m.first(x) * m.calls


def _branches(m: Any, x: torch.Tensor) -> Any:
    return m.first(x) if x.sum() > 0 else m.first(-x)


def _overwrites_its_weight(m: Any, x: torch.Tensor) -> Any:
    with torch.no_grad():
        m.first.weight.mul_(0.9)
    return m.first(x)


def _overwrites_a_diagonal(m: Any, x: torch.Tensor) -> Any:
    x = m.first(x)
    x.diagonal().add_(1)
    return x


def _autocasts(m: Any, x: torch.Tensor) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return m.last(m.first(x))


class Keyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"in": nn.Linear(3, 4)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.parts["in"](x)
        return result


class StarAndKeyword(nn.Module):
    def forward(self, *xs: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return xs[0] * scale


def quantised(how: str) -> nn.Module:
    from torch.ao import quantization as q

    model: Any = q.QuantWrapper(nn.Sequential(nn.Linear(3, 4), nn.ReLU()))
    if how == "dynamic":
        return q.quantize_dynamic(model, {nn.Linear})
    model.qconfig = q.get_default_qat_qconfig("x86") if how == "aware" else q.get_default_qconfig("x86")
    if how == "aware":
        return q.prepare_qat(model.train())
    prepared = q.prepare(model)
    prepared(ROWS)
    return q.convert(prepared)


def changed(model: nn.Module, change: Callable[[Any], Any]) -> nn.Module:
    change(model)
    return model


# what is passed to gg.trace -> what the error says
CAPTURE: dict[str, tuple[Callable[[], Any], str]] = {
    # what is no model
    "a number": (lambda: (3, IMAGE), "wants an nn.Module, not int"),
    "a class": (lambda: (nn.Linear, ROWS), "wants an nn.Module, not type"),
    "a function": (lambda: (torch.relu, ROWS), "wants an nn.Module, not builtin_function_or_method"),
    "nothing": (lambda: (None, ROWS), "wants an nn.Module, not NoneType"),
    "an unknown name": (lambda: ("torchvision:resnet1", None), "did you mean 'resnet18'"),
    "an unknown package": (lambda: ("no_such_package:model", ROWS), "cannot import 'no_such_package'"),
    # example inputs
    "no inputs": (lambda: (net(), None), "wants example inputs"),
    "a text": (lambda: (net(), "text"), r"hold no tensor: \('text',\)"),
    "numbers": (lambda: (net(), [1, 2]), "hold no tensor"),
    "an array of numpy": (lambda: (net(), IMAGE.numpy()), "numpy array; pass torch.from_numpy"),
    "a dict of inputs": (lambda: (net(), {"input": IMAGE}), "pass inputs by name as `kwargs`"),
    "keywords that are no dict": (lambda: (net(), IMAGE, [1]), "by keyword are a dict of them by name, not a list"),
    "an empty input": (lambda: (net(), torch.zeros(0, 3, 8, 8)), r"is empty: its shape is \(0, 3, 8, 8\)"),
    "too many inputs": (lambda: (net(), (IMAGE, IMAGE)), "do not fit Sequential.forward"),
    "an unknown keyword": (lambda: (net(), IMAGE, {"nothing": 1}), "unexpected keyword argument 'nothing'"),
    "a wrong shape": (lambda: (net(), torch.zeros(2, 4, 8, 8)), r"fails on its own example inputs \(\(2, 4, 8, 8\)"),
    "a wrong rank": (lambda: (net(), ROWS), r"\(\(4, 3\) torch.float32\): RuntimeError"),
    "a wrong dtype": (lambda: (net(), IMAGE.long()), "torch.int64"),
    "a wider dtype": (lambda: (net(), IMAGE.double()), "torch.float64"),
    "a dtype that is not the model's": (lambda: (net().half(), IMAGE), "torch.float32"),
    "a sparse input": (lambda: (nn.Linear(3, 2), torch.eye(3).to_sparse()), "an example input is sparse"),
    "a complex input": (lambda: (nn.Linear(3, 2), ROWS.to(torch.complex64)), "an example input is complex"),
    "a nested input": (lambda: (nn.Linear(3, 2), torch.nested.nested_tensor([ROWS, ROWS[:2]])), "is nested"),
    "a quantised input": (lambda: (nn.Linear(3, 2), torch.quantize_per_tensor(ROWS, 0.1, 0, torch.quint8)),
                          "an example input is quantised"),
    "inputs by star and by keyword": (lambda: (StarAndKeyword(), ROWS), r"takes \*xs and inputs by keyword"),
    # what a forward returns
    "no tensor out": (lambda: (Runs(lambda m, x: "nothing"), ROWS), "returns no tensor but str"),
    "nothing out": (lambda: (Runs(lambda m, x: None), ROWS), "returns no tensor but NoneType"),
    "a number out": (lambda: (Runs(lambda m, x: 1.5), ROWS), "returns no tensor but float"),
    # what a forward does
    "no forward": (lambda: (nn.Module(), ROWS), 'missing the required "forward" function'),
    "an error inside": (lambda: (Runs(_broken), ROWS), r"broken inside.*test_capture.py:\d+"),
    "a branch on values": (lambda: (Runs(_branches), ROWS), r"depends on the values.*test_capture.py:\d+"),
    "as many steps as values say": (lambda: (Runs(lambda m, x: sum(x for _ in range(int((x > 0).sum())))), ROWS),
                                    "depends on the"),
    "gradients": (lambda: (Runs(_slope), ROWS), r"asks for gradients by torch.autograd.grad.*test_capture.py:\d+"),
    "state in an attribute": (lambda: (Runs(_counts), ROWS), "keeps state in `calls`"),
    "a weight that it overwrites": (lambda: (Runs(_overwrites_its_weight), ROWS),
                                    r"test_capture.py:\d+ overwrites the parameter `first.weight`"),
    "a write that cannot be told": (lambda: (Runs(_overwrites_a_diagonal), ROWS),
                                    r"test_capture.py:\d+ overwrites a tensor in place"),
    "an autograd function of a layer": (lambda: (Runs(lambda m, x: Applied.apply(m.last, m.first(x))), ROWS),
                                        r"the autograd function Applied is given a Linear.*test_capture.py:\d+"),
    "a layer that is cast inside": (lambda: (Runs(lambda m, x: m.first.double()(x.double())), ROWS),
                                    r"moves or casts Linear, a part of the model.*test_capture.py:\d+"),
    "autocast inside": (lambda: (Runs(_autocasts), ROWS), r"switches autocast on.*test_capture.py:\d+"),
    # models of a kind that a graph would lose
    "a sparse buffer": (
        lambda: (changed(net(), lambda m: m.register_buffer("adjacency", torch.eye(3).to_sparse())), IMAGE),
        "the buffer `adjacency` is sparse",
    ),
    "a scripted model": (lambda: (torch.jit.script(net()), IMAGE), "scripted"),
    "a traced model": (lambda: (torch.jit.trace(net(), IMAGE), IMAGE), "scripted"),
    "a scripted part": (lambda: (nn.Sequential(torch.jit.script(nn.Linear(3, 4))), ROWS), "`0` is scripted"),
    "a hook on the whole model": (
        lambda: (changed(net(), lambda m: m.register_forward_hook(lambda *call: None)), IMAGE), "has a forward hook",
    ),
    "a lazy layer": (lambda: (nn.Sequential(nn.LazyLinear(3)), ROWS), "`0.weight` is lazy .* call the model once"),
    "sparse weights": (
        lambda: (changed(nn.Linear(3, 2), lambda m: setattr(m, "weight", nn.Parameter(torch.eye(2, 3).to_sparse()))),
                 ROWS),
        "`weight` is sparse or nested",
    ),
    "a quantised model": (lambda: (quantised("static"), ROWS), "quantise what has grown"),
    "a dynamically quantised model": (lambda: (quantised("dynamic"), ROWS), "quantise what has grown"),
    "training aware of quantisation": (lambda: (quantised("aware"), ROWS), "quantise what has grown"),
    "a submodule called by a keyword": (lambda: (Keyword(), ROWS), "`parts.in` cannot be written as code"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(CAPTURE))
def test_what_cannot_be_captured(name: str) -> None:
    build, message = CAPTURE[name]
    arguments = build()
    model = arguments[0]
    tensors = [] if not isinstance(model, nn.Module) else [*model.parameters(), *model.buffers()]
    lazy = [isinstance(t, nn.parameter.UninitializedParameter) for t in tensors]
    before = [None if skip else t.detach().clone() for t, skip in zip(tensors, lazy, strict=True)]
    state = torch.get_rng_state()
    with pytest.raises((gg.CaptureError, gg.ModelError), match=message):
        gg.trace(*arguments)
    assert torch.equal(torch.get_rng_state(), state)
    for tensor, copied in zip(tensors, before, strict=True):
        assert copied is None or torch.equal(tensor.to_dense(), copied.to_dense())
