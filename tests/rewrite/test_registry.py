"""The folder is the registry: one class in each file, under the file's name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

import graphgrow as gg
from graphgrow.ir.editor import Editor
from graphgrow.network.network import Network, Step
from graphgrow.passes.drop_identity import DropIdentity
from graphgrow.passes.widen import Widen
from graphgrow.rewrite import registry
from graphgrow.rewrite.contract import Mutation, Refusal, TensorChange
from graphgrow.rewrite.erase import bypass
from graphgrow.rewrite.registry import classes_of

PASS = "from graphgrow.rewrite.contract import Mutation\n\n\nclass {name}(Mutation):\n    name = {label!r}\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (PASS.format(name="Odd", label="odd-one"), ["odd-one"]),
        (PASS.format(name="Odd", label="odd"), None),
        ("from graphgrow.passes.widen import Widen\n", None),
        (PASS.format(name="Odd", label="odd-one") + "\n\nclass Other(Odd):\n    pass\n", None),
    ],
    ids=["one of its name", "another name", "one of another file", "two"],
)
def test_a_file_holds_one_class_under_its_own_name(
    text: str, found: list[str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "made_passes"
    folder.mkdir()
    (folder / "__init__.py").write_text("", encoding="utf-8")
    (folder / "odd_one.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        if found is None:
            with pytest.raises(TypeError, match=r"made_passes\.odd_one must hold exactly one pass, named 'odd-one'"):
                classes_of("made_passes", Mutation, "pass")  # type: ignore[type-abstract]
        else:
            assert list(classes_of("made_passes", Mutation, "pass")) == found  # type: ignore[type-abstract]
    finally:
        for name in [name for name in sys.modules if name.startswith("made_passes")]:
            del sys.modules[name]


@dataclass(frozen=True)
class Forget(Mutation):
    """Takes an nn.Identity away."""

    site: str
    times: int = 1
    name: ClassVar[str] = "forget-it"
    summary: ClassVar[str] = "take an nn.Identity away"

    @classmethod
    def sites(cls, network: Network) -> Iterator[Mutation | Refusal]:
        for mutation in DropIdentity.sites(network):
            yield mutation if isinstance(mutation, Refusal) else cls(mutation.site_name)

    def rewrite(self, network: Network, editor: Editor, generator: torch.Generator) -> tuple[Step, list[TensorChange]]:
        node = network.sites.find(self.site)
        return bypass(network, editor, node, node.all_input_nodes[0]), []


def test_a_name_that_is_nearly_one_is_answered_with_that_one() -> None:
    with pytest.raises(gg.MutationError, match="there is no pass `wden`; did you mean 'widen'"):
        registry.pass_named("wden")


def test_a_pass_of_a_users_own_is_read_listed_saved_and_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registry, "_OWN", {})
    model = nn.Sequential(nn.Linear(3, 4), nn.Identity(), nn.Linear(4, 2))
    graph = gg.trace(model, torch.randn(5, 3))
    with pytest.raises(gg.MutationError, match="there is no pass `forget-it`"):
        gg.apply(graph, "forget-it(1)")
    assert gg.register_pass(Forget) is Forget
    assert gg.register_pass(Forget) is Forget  # its module is imported anew
    assert list(gg.pass_names()) == sorted(gg.pass_names())
    assert "forget-it(1)" in map(str, graph.mutations())
    child = gg.apply(graph, ["forget-it(1, times=2)", "widen(0, extra=1)"])
    assert gg.verify(graph, child).preserved
    assert str(child.ledger).startswith("forget-it(1, times=2) seed=0")
    gg.save(child, tmp_path / "saved")
    assert gg.load(tmp_path / "saved", model=model).text() == child.text()


def _changed(**changes: Any) -> type:
    return type("Changed", (Forget,), {"__dataclass_fields__": Forget.__dataclass_fields__, **changes})


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("widen", "register_pass wants a subclass of gg.Mutation, not 'widen'"),
        (nn.Linear, "register_pass wants a subclass of gg.Mutation, not <class"),
        (type("Plain", (Forget,), {}), r"Plain is no frozen dataclass; write @dataclass\(frozen=True\) below"),
        (dataclass(type("Open", (Mutation,), {"__annotations__": {}}), frozen=True), "Open lacks rewrite, sites"),
        (_changed(name=3), "Changed lacks `name`"),
        (_changed(summary=None), "Changed lacks `summary`"),
        (_changed(name="Forget_it"), "cannot be called 'Forget_it'; a name is words of small letters and hyphens"),
        (_changed(__dataclass_fields__={}), "Changed lacks a field that names the site"),
        (_changed(name="widen"), "there is a pass `widen` already, graphgrow.passes.widen.Widen"),
    ],
)
def test_what_is_no_pass_is_refused(kind: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_OWN", {})
    with pytest.raises(gg.MutationError, match=said):
        gg.register_pass(kind)
    assert registry.passes()["widen"] is Widen
