"""Bad input: each is refused with an error that says what was seen and what to do, and nothing is changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import graphgrow as gg


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))


IMAGE = torch.zeros(2, 3, 8, 8)
ROWS = torch.linspace(-1.0, 2.0, 12).view(4, 3)


class Runs(nn.Module):
    """Two layers, and a forward that is a function of the model and its inputs."""

    def __init__(self, run: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.calls = nn.Linear(3, 4), nn.Linear(4, 2), 0
        self._run = run

    def forward(self, x: torch.Tensor) -> Any:
        return self._run(self, x)


class Doubled(torch.autograd.Function):
    """A function with a backward of its own."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0] * 3


def _broken(m: Any, x: torch.Tensor) -> Any:
    raise RuntimeError("broken inside")


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
    "an unknown name": (lambda: ("torchvision:resnet1", None), "did you mean resnet18"),
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
    "an error inside": (lambda: (Runs(_broken), ROWS), r"broken inside.*test_bad_input.py:\d+"),
    "a branch on values": (lambda: (Runs(_branches), ROWS), r"depends on the values.*test_bad_input.py:\d+"),
    "values of tensors": (lambda: (Runs(lambda m, x: x * x.mean().item()), ROWS), "`item` needs the values"),
    "values as a list": (lambda: (Runs(lambda m, x: x * sum(x[0].tolist())), ROWS), "`tolist` needs the values"),
    "a shape that depends on values": (lambda: (Runs(lambda m, x: m.first(x)[x[:, 0] > 0]), ROWS), "needs the values"),
    "unique values": (lambda: (Runs(lambda m, x: torch.unique(m.first(x))), ROWS), "`unique` needs the values"),
    "state in an attribute": (lambda: (Runs(_counts), ROWS), "keeps state in `calls`"),
    "a weight that it overwrites": (lambda: (Runs(_overwrites_its_weight), ROWS),
                                    r"test_bad_input.py:\d+ overwrites the parameter `first.weight`"),
    "a write that cannot be told": (lambda: (Runs(_overwrites_a_diagonal), ROWS),
                                    r"test_bad_input.py:\d+ overwrites a tensor in place"),
    "an autograd function": (lambda: (Runs(lambda m, x: Doubled.apply(m.first(x))), ROWS),
                             "the autograd function Doubled has a backward of its own"),
    "autocast inside": (lambda: (Runs(_autocasts), ROWS), r"switches autocast on.*test_bad_input.py:\d+"),
    # models of a kind that a graph would lose
    "a sparse buffer": (
        lambda: (changed(net(), lambda m: m.register_buffer("adjacency", torch.eye(3).to_sparse())), IMAGE),
        "the buffer `adjacency` is sparse",
    ),
    "a scripted model": (lambda: (torch.jit.script(net()), IMAGE), "scripted"),
    "a traced model": (lambda: (torch.jit.trace(net(), IMAGE), IMAGE), "scripted"),
    "a scripted part": (lambda: (nn.Sequential(torch.jit.script(nn.Linear(3, 4))), ROWS), "`0` is scripted"),
    "the older spectral_norm": (lambda: (nn.Sequential(torch.nn.utils.spectral_norm(nn.Linear(3, 3))), ROWS),
                                "`0` has the older spectral_norm.*remove_spectral_norm"),
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


# mutations -> what the error says
MUTATIONS: dict[str, tuple[Any, type[gg.GraphGrowError], str]] = {
    "an unknown pass": ("grow(0)", gg.MutationError, r"there are .*split, .*widen"),
    "no parentheses": ("widen", gg.MutationError, "cannot read 'widen'"),
    "an unknown group": ("widen(conv9, extra=1)", gg.MutationError, "no channel group `conv9`"),
    "a near miss": ("widen(00, extra=1)", gg.MutationError, "did you mean"),
    "an unknown option": ("widen(0, more=1)", gg.MutationError, "it has group, extra"),
    "an option twice": ("widen(0, extra=1, extra=2)", gg.MutationError, "twice"),
    "a missing option": ("widen(0)", gg.MutationError, "lacks extra"),
    "extra of zero": ("widen(0, extra=0)", gg.MutationError, "at least 1"),
    "a negative extra": ("widen(0, extra=-2)", gg.MutationError, "at least 1"),
    "an extra that is no number": ("widen(0, extra=many)", gg.MutationError, "wants int"),
    "a frozen group": ("widen(4, extra=1)", gg.Declined, "a model output"),
    "a unit out of range": ("split(0, units=[4])", gg.MutationError, "units 0 to 3"),
    "a negative unit": ("split(0, units=[-1])", gg.MutationError, "units 0 to 3"),
    "a unit twice": ("split(0, units=[1, 1])", gg.MutationError, "twice"),
    "a single copy": ("split(0, copies=1)", gg.MutationError, "at least 2"),
    "units without brackets": ("split(0, units=1)", gg.MutationError, "list in brackets"),
    "an open bracket": ("split(0, units=[1)", gg.MutationError, "bracket"),
    "an unknown site": ("deepen(9)", gg.MutationError, "there is no site `9`"),
    "a site that is near": ("deepen(00)", gg.MutationError, "did you mean"),
    "an unknown kind": ("deepen(2, kind=huge)", gg.MutationError, "there are auto, conv, mlp"),
    "a kind that does not fit": ("deepen(2, kind=mlp)", gg.Declined, r"does not fit maps of shape \(2, 4, 6, 6\)"),
    "tokens are wanted": ("deepen(2, kind=attention)", gg.Declined, "does not fit maps"),
    "nothing to copy": ("deepen(2, kind=copy)", gg.Declined, "through weights of its own"),
    "a negative width": ("deepen(2, kind=conv, hidden=-1)", gg.MutationError, "hidden=-1"),
    "a cycle": ("add-skip(2, target=0)", gg.Declined, "a cycle would arise"),
    "a skip to itself": ("add-skip(2, target=2)", gg.GraphGrowError, "itself"),
    "maps to features": ("add-skip(2, target=4)", gg.Declined, "cannot be added"),
    "no target": ("add-skip(2)", gg.MutationError, "lacks target"),
    "a branch beside a norm": ("add-branch(1)", gg.Declined, "no convolution or linear map"),
    "a branch of another kind": ("add-branch(0, kind=mlp)", gg.Declined, "does not fit a Conv2d"),
    "a gate between shapes": ("add-branch(0, kind=identity)", gg.Declined, r"\(2, 3, 8, 8\) and \(2, 4, 6, 6\)"),
    "a smaller kernel": ("enlarge-kernel(0, to=1)", gg.MutationError, r"has a kernel of \(3, 3\)"),
    "another parity": ("enlarge-kernel(0, to=4)", gg.Declined, "parity"),
    "a kernel of a linear map": ("enlarge-kernel(4, to=5)", gg.Declined, "no convolution"),
    "an unknown activation": ("swap-activation(2, to=blue)", gg.MutationError, "there are relu"),
    "the same activation": ("swap-activation(2, to=relu)", gg.MutationError, "one already"),
    "no activation": ("swap-activation(0, to=gelu)", gg.Declined, "no activation"),
    "nothing to settle": ("settle-activation(2)", gg.Declined, "no blend"),
    "a blend on its way": (
        ["swap-activation(2, to=gelu)", "settle-activation(2)"],
        gg.Declined,
        "share s of the new activation is 0",
    ),
    "two swaps of one": (
        ["swap-activation(2, to=gelu)", "swap-activation(2, to=silu)"],
        gg.Declined,
        "settle-activation first",
    ),
    "the second of two": (["widen(0, extra=1)", "widen(4, extra=1)"], gg.Declined, "a model output"),
    # ways back
    "an operand that is no side": ("drop-branch(2, operand=2)", gg.MutationError, "has the operands 0 and 1"),
    "no addition": ("drop-branch(2)", gg.Declined, "`2` is no addition of two values"),
    "a layer that does something": ("drop-identity(2)", gg.Declined, "`2` is not known to pass its input on"),
    "a layer of no such name": ("drop-identity(nothing)", gg.MutationError, "no site `nothing`; see graph.mutations"),
    "nothing to merge": ("merge-units(0, units=[], into=[])", gg.MutationError, "each once, at least one"),
    "units and places of unlike number": ("merge-units(0, units=[0, 1], into=[2])", gg.MutationError, "as many units"),
    "a unit merged into itself": ("merge-units(0, units=[0], into=[0])", gg.MutationError, "cannot be one that stays"),
    "a unit merged out of range": ("merge-units(0, units=[9], into=[0])", gg.MutationError, "units 0 to 3, not 9"),
    "units that are no copies": ("merge-units(0, units=[0], into=[1])", gg.Declined, "they differ in `0.weight`"),
    "all units dropped": ("drop-units(0, units=[0, 1, 2, 3])", gg.MutationError, "each once, and not all"),
    "no units dropped": ("drop-units(0, units=[])", gg.MutationError, "name some of the 4 units"),
    "a unit dropped twice": ("drop-units(0, units=[0, 0])", gg.MutationError, "each once, and not all"),
    "a unit dropped out of range": ("drop-units(0, units=[4])", gg.MutationError, "`0` has units 0 to 3"),
    "a unit that is read": ("drop-units(0, units=[0])", gg.Declined, "neither of them zero"),
    "a frozen group dropped": ("drop-units(4, units=[0])", gg.Declined, "frozen: a model output"),
    "a kernel made larger by shrinking": ("shrink-kernel(0, to=[5, 5])", gg.MutationError, "smaller sizes are wanted"),
    "the same kernel": ("shrink-kernel(0, to=[3, 3])", gg.MutationError, "has that kernel already"),
    "a kernel of another rank": ("shrink-kernel(0, to=[1])", gg.MutationError, r"has a kernel of \(3, 3\)"),
    "another parity when shrinking": ("shrink-kernel(0, to=[2, 2])", gg.Declined, "the parity changes"),
    "a kernel that pads nothing": ("shrink-kernel(0, to=[1, 1])", gg.Declined, "would put out more"),
    "an activation folded": ("fold-batch-norm(2)", gg.Declined, "no batch norm of torch.nn"),
    "a settled share of another name": (
        ["swap-activation(2, to=gelu)", "settle-activation(2, keep=both)"],
        gg.MutationError,
        "there are new and old",
    ),
    "no choice under way": ("settle-operators(0)", gg.Declined, "no choice between operators at `0`"),
    # blocks and the interface
    "heads without attention": ("add-heads(0)", gg.Declined, "no attention in this graph"),
    "no heads": ("add-heads(0, extra=0)", gg.MutationError, "at least 1 head"),
    "a truth that is none": ("add-heads(0, shared=maybe)", gg.MutationError, "wants true or false, not 'maybe'"),
    "no vocabulary": ("grow-vocabulary(0, extra=1)", gg.MutationError, "no table that tokens are looked up in"),
    "no positions": ("grow-positions(0, extra=1)", gg.MutationError, "no table whose first rows are read"),
    "no class": ("grow-outputs(4, extra=0)", gg.MutationError, "at least 1 must be added"),
    "an input without channels": ("grow-inputs(4, extra=1)", gg.Declined, "reads no axis of an input"),
    "one expert": ("upcycle-experts(4, experts=1)", gg.MutationError, "at least 2 experts"),
    "an expert of maps": ("upcycle-experts(0)", gg.Declined, "no features of each token"),
    "no operators to choose from": ("mix-operators(0, choices=[])", gg.MutationError, "at least one, and none twice"),
    "hidden channels of a pool": ("add-branch(0, kind=pool, hidden=3)", gg.MutationError, "has none; leave it out"),
    "an unknown kind of branch": ("add-branch(0, kind=twig)", gg.MutationError, "there are auto, conv, depthwise"),
    "hidden channels below zero": ("add-branch(0, hidden=-1)", gg.MutationError, "a number of channels or 0"),
    # text
    "a run that goes down": ("split(0, units=[3..1])", gg.MutationError, "a run of numbers that goes up"),
    "a number for a mutation": (3, gg.MutationError, "cannot read 3: a mutation reads"),
    "an option without its name": ("widen(0, 3)", gg.MutationError, "`3` has no option name"),
    "no text at all": ("", gg.MutationError, "cannot read ''"),
    "another language": ("widen 0 by 3", gg.MutationError, r"reads `pass\(site, option=value\)`"),
}


def fingerprint(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Any]:
    tensors = [*model.parameters(), *model.buffers()]
    states = [t for state in optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
    slots = [id(p) for group in optimizer.param_groups for p in group["params"]]
    return [
        [t.detach().clone() for t in tensors],
        [t.clone() for t in states],
        slots,
        [m.training for m in model.modules()],
    ]


def same(first: list[Any], second: list[Any]) -> bool:
    tensors = all(
        len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
        for a, b in zip(first[:2], second[:2], strict=True)
    )
    return tensors and first[2:] == second[2:]


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_what_cannot_be_applied_changes_nothing(name: str) -> None:
    mutations, error, message = MUTATIONS[name]
    model = net()
    graph = gg.trace(model, IMAGE)
    optimizer = torch.optim.AdamW(graph.module.parameters())
    graph.module(torch.randn(2, 3, 8, 8)).square().mean().backward()
    optimizer.step()
    before = fingerprint(model, optimizer)
    with pytest.raises(error, match=message):
        gg.apply(graph, mutations, optimizer=optimizer)
    assert same(fingerprint(model, optimizer), before)


def _entry(mutation: str, seed: object = 0) -> str:
    return json.dumps({"schema": 1, "entries": [{"mutation": mutation, "seed": seed}]})


def _saved(model: nn.Module, folder: Path, text: str | None = None, **header: object) -> Path:
    """A saved graph whose ledger file is replaced, or has other keys."""
    gg.save(gg.apply(gg.trace(model, IMAGE), "widen(0, extra=1)"), folder / "saved")
    path = folder / "saved" / "ledger.json"
    path.write_text(text or json.dumps(json.loads(path.read_text()) | header))
    return folder / "saved"


def _in_the_way(folder: Path) -> Path:
    (folder / "file").write_text("")
    return folder / "file"


def _smaller() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 5))


# what is called with the model, its graph and an empty folder -> what the error says
CALLS: dict[str, tuple[Callable[[nn.Module, gg.Graph, Path], object], type[gg.GraphGrowError], str]] = {
    "verified in no mode": (lambda m, g, f: gg.verify(g, g, modes=()), gg.NotPreserved, "gg.verify knows eval, train"),
    "verified in an unknown mode": (
        lambda m, g, f: gg.verify(g, g, modes=("speed",)), gg.NotPreserved, r"no mode \['speed'\]",
    ),
    "two modules verified without inputs": (
        lambda m, g, f: gg.verify(m, net()), gg.NotPreserved, r"wants inputs: gg.verify\(a, b, inputs=x\)",
    ),
    "captured in an unknown way": (
        lambda m, g, f: gg.trace(m, IMAGE, way="magic"), gg.CaptureError, "there are auto, fx, dynamo",
    ),
    "a leaf of no such name": (
        lambda m, g, f: gg.trace(m, IMAGE, leaves=["nothing"]), gg.CaptureError, "no submodule 'nothing' in Sequential",
    ),
    "a group of no such name": (lambda m, g, f: g.group("nothing"), gg.MutationError, "`nothing`; see graph.groups"),
    "mutations of an unknown pass": (lambda m, g, f: g.mutations("grow"), gg.MutationError, "there are .*widen"),
    "the cost of an unknown group": (lambda m, g, f: g.cost("widen(9, extra=1)"), gg.MutationError, "group `9`"),
    # saving and loading
    "saved where a file lies": (
        lambda m, g, f: gg.save(g, _in_the_way(f)), gg.LedgerError, "File exists; choose another place",
    ),
    "loaded from nowhere": (lambda m, g, f: gg.load(f / "none"), gg.LedgerError, "there is no folder .*none"),
    "an empty folder": (lambda m, g, f: gg.load(f), gg.LedgerError, "ledger.json is missing"),
    "a ledger file that is no JSON": (
        lambda m, g, f: gg.load(_saved(m, f, "{"), m), gg.LedgerError, "ledger.json is damaged: Expecting property",
    ),
    "a foreign file": (lambda m, g, f: gg.load(_saved(m, f, "{}"), m), gg.LedgerError, "not written by graphgrow"),
    "a newer folder": (lambda m, g, f: gg.load(_saved(m, f, schema=99), m), gg.LedgerError, "install a newer one"),
    "an unknown key": (lambda m, g, f: gg.load(_saved(m, f, more=1), m), gg.LedgerError, r"missing keys \['more'\]"),
    "a header that was edited": (
        lambda m, g, f: gg.load(_saved(m, f, training=not m.training), m), gg.LedgerError, "another checksum",
    ),
    "loaded without its base": (
        lambda m, g, f: gg.load(_saved(m, f)), gg.LedgerError, r"pass it: gg.load\(folder, model=Sequential",
    ),
    "loaded on another base": (
        lambda m, g, f: gg.load(_saved(m, f), nn.Linear(3, 2)), gg.LedgerError, "does not fit its base model",
    ),
    # ledgers
    "a ledger that is no JSON": (lambda m, g, f: gg.Ledger.from_json("["), gg.LedgerError, "this is not a ledger"),
    "a ledger without entries": (lambda m, g, f: gg.Ledger.from_json("{}"), gg.LedgerError, "`schema` and `entries`"),
    "a ledger of another schema": (
        lambda m, g, f: gg.Ledger.from_json('{"schema": "1", "entries": []}'), gg.LedgerError, "version is '1'",
    ),
    "a newer ledger": (
        lambda m, g, f: gg.Ledger.from_json('{"schema": 99, "entries": []}'), gg.LedgerError, "has schema 99",
    ),
    "an entry of another form": (
        lambda m, g, f: gg.Ledger.from_json('{"schema": 1, "entries": [1]}'), gg.LedgerError, "entry 1 .* not 1",
    ),
    "an entry with a negative seed": (
        lambda m, g, f: gg.Ledger.from_json(_entry("split(0)", -1)), gg.LedgerError, "entry 1 of the ledger is damaged",
    ),
    "an entry of an unknown pass": (
        lambda m, g, f: gg.replay(nn.Linear(3, 2), ROWS, gg.Ledger.from_json(_entry("import(os)"))),
        gg.LedgerError, "there is no pass `import`",
    ),
    "a ledger of another model": (
        lambda m, g, f: gg.replay(nn.Linear(3, 2), ROWS, gg.Ledger.from_json(_entry("split(0)"))),
        gg.MutationError, "no channel group `0`",
    ),
    # files that others read
    "exported onto a folder": (lambda m, g, f: gg.export_onnx(g, f), gg.ExportError, "wanted a file name; pass for"),
    "exported for no batch size": (
        lambda m, g, f: gg.export_onnx(g, f / "m.onnx", batch_sizes=()), gg.ExportError, "wanted positive integers",
    ),
    "exported for a batch of nothing": (
        lambda m, g, f: gg.export_onnx(g, f / "m.onnx", batch_sizes=(0,)), gg.ExportError, r"batch_sizes is \(0,\)",
    ),
    "exported for a static batch of nothing": (
        lambda m, g, f: gg.export_onnx(g, f / "m.onnx", static_batch=0), gg.ExportError, "static_batch=0, wanted",
    ),
    "source where a file lies": (
        lambda m, g, f: gg.export_source(g, _in_the_way(f)), gg.ExportError, "is a file, wanted a folder",
    ),
    "a checkpoint of no class with a config": (
        lambda m, g, f: gg.save_pretrained(g, m, f), gg.ExportError, "Sequential has no `config`",
    ),
    "a benchmark of no file": (
        lambda m, g, f: gg.benchmark(f / "none.onnx"), gg.BenchmarkError, "no such file; export one first",
    ),
    # growing as a whole
    "scaled down": (lambda m, g, f: gg.scale(g, width=0.5), gg.MutationError, "width=0.5: a factor of at least 1"),
    "scaled by no number": (lambda m, g, f: gg.scale(g, width=float("nan")), gg.MutationError, "width=nan"),
    "scaled to multiples of zero": (
        lambda m, g, f: gg.scale(g, width=2, multiple=0), gg.MutationError, "multiple=0: a whole number",
    ),
    "grown to a number": (lambda m, g, f: gg.grow_to(g, 3), gg.Unsupported, "target is int"),  # type: ignore[arg-type]
    "grown to what has no weights": (lambda m, g, f: gg.grow_to(g, nn.ReLU()), gg.Unsupported, "has no parameters"),
    "grown to a smaller model": (lambda m, g, f: gg.grow_to(g, _smaller()), gg.Unsupported, "nothing can shrink"),
    "grown to another dtype": (
        lambda m, g, f: gg.grow_to(g, net().double()), gg.Unsupported, "convert one of them first",
    ),
    "a policy of no such name": (lambda m, g, f: gg.Grower(g, policy="luck"), gg.TrainingError, "no policy `luck`"),
    "an unknown role of state": (
        lambda m, g, f: gg.register_optimizer(torch.optim.Rprop, prev="speed"),
        gg.OptimizerError, "there are moment, square, magnitude, direction",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CALLS))
def test_what_cannot_be_done_changes_nothing(name: str, tmp_path: Path) -> None:
    call, error, message = CALLS[name]
    model = net()
    graph = gg.trace(model, IMAGE)
    optimizer = torch.optim.SGD(graph.module.parameters())
    before = fingerprint(model, optimizer)
    with pytest.raises(error, match=message):
        call(model, graph, tmp_path)
    assert same(fingerprint(model, optimizer), before)


def test_the_tables_hold_what_people_do_wrong() -> None:
    assert len(CAPTURE) + len(MUTATIONS) + len(CALLS) >= 150


def test_an_unknown_optimizer_is_refused_and_unchanged() -> None:
    graph = gg.trace(net(), IMAGE)
    optimizer = torch.optim.Rprop(graph.module.parameters())
    with pytest.raises(gg.OptimizerError, match=r"known are Adagrad, Adam, AdamW, .*SGD"):
        gg.apply(graph, "widen(0, extra=1)", optimizer=optimizer)


def test_nan_weights_are_refused() -> None:
    model = net()
    with torch.no_grad():
        model.get_parameter("0.weight")[0, 0, 0, 0] = float("nan")
    with pytest.raises(gg.Unsupported, match=r"`0.weight` holds NaN"):
        gg.apply(gg.trace(model, IMAGE), "widen(0, extra=1)")


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seeds_out_of_range(seed: int) -> None:
    with pytest.raises(gg.MutationError, match="seed"):
        gg.apply(gg.trace(net(), IMAGE), "widen(0, extra=1)", seed=seed)


def test_a_model_on_meta_grows_in_structure_and_is_not_verified(tmp_path: Path) -> None:
    graph = gg.trace(net().to("meta"), IMAGE.to("meta"))
    grown = gg.apply(graph, ["widen(0, extra=2)", "split(0)"])
    assert grown.module.get_parameter("4.weight").shape == (5, 12 * 36)
    with pytest.raises(gg.NotPreserved, match="meta device"):
        gg.verify(graph, grown)
    with pytest.raises(gg.LedgerError, match="meta device"):
        gg.save(grown, tmp_path)


def test_every_error_is_a_graphgrow_error() -> None:
    errors = [
        value for name, value in vars(gg).items() if name.endswith("Error") or name in ("Declined", "Unsupported")
    ]
    assert len(errors) >= 10
    assert all(issubclass(error, gg.GraphGrowError) for error in errors)
