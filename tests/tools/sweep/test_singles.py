"""Reasons are counted together, and every pass of the registry is tried."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

import graphgrow as gg
from tools.sweep import singles
from tools.sweep.journal import Journal
from tools.sweep.options import Options
from tools.sweep.outcome import Outcome
from tools.sweep.singles import exported, general, list_rounds, try_exports, try_round
from tools.sweep.subject import Subject, prepare


@pytest.fixture(scope="module")
def subject() -> Subject:
    return prepare("tests.tools.sweep.small:net", Options())


def events_of(subject: Subject, options: Options) -> list[dict[str, Any]]:
    stream = io.StringIO()
    journal = Journal(stream)
    rounds = list_rounds(subject, options, journal)
    for turns in rounds:
        try_round(subject, turns, options, journal)
    try_exports(subject, rounds, options, journal)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("reason", "site", "expected"),
    [
        ("the axis is frozen: a model output (at `fc`)", "fc", "the axis is frozen: a model output"),
        ("a softmax over it (at `layer1.0:add@2`)", "conv1", "a softmax over it"),
        ("`layer1.0.conv1` is no residual", "layer1.0.conv1", "`…` is no residual"),
        ("layer1.0.conv1 has a stride of 2", "layer1.0.conv1", "`…` has a stride of 2"),
        ("fc is no fcn, fc", "fc", "`…` is no fcn, `…`"),
        ("it puts out torch.float32 of shape (2, 64, 8, 8)", "x", "it puts out torch.float32 of shape (…)"),
        ("axes of sizes 64 and 128 meet", "x", "axes of sizes N and N meet"),
        ("a kernel of 1", "", "a kernel of 1"),
    ],
)
def test_reasons_lose_names_and_sizes(reason: str, site: str, expected: str) -> None:
    assert general(reason, site) == expected


def test_every_pass_is_listed_and_sampled(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(singles, "compared", lambda *_: Outcome("preserved", "", 0.5))
    events = events_of(subject, Options(sites=1, onnx=0))
    listed = {event["of"]: event for event in events if event["event"] == "pass"}
    tried = [event for event in events if event["event"] == "mutation"]
    assert tuple(listed) == gg.pass_names()
    for name, event in listed.items():
        mutations = subject.graph.mutations(name)
        assert event["offered"] == len(mutations)
        assert sum(event["refusals"].values()) == len(mutations.refusals)
        mine = [one["label"] for one in tried if one["of"] == name]
        assert len(mine) == min(1, len(mutations))
        assert set(mine) <= set(map(str, mutations))
    assert {event["kind"] for event in tried} == {"preserved"}


@pytest.mark.parametrize("passes", [("widen", "split"), ()])
def test_only_the_passes_that_are_named_are_tried(subject: Subject, passes: tuple[str, ...]) -> None:
    """The option was lost once, and rows said of themselves what was not so."""
    events = events_of(subject, Options(passes=passes, sites=1, onnx=0))
    assert tuple(event["of"] for event in events if event["event"] == "pass") == passes


def test_without_a_number_all_sites_are_tried(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(singles, "compared", lambda *_: Outcome("preserved"))
    tried = [event for event in events_of(subject, Options(onnx=0)) if event["event"] == "mutation"]
    offered = {name: list(map(str, subject.graph.mutations(name))) for name in gg.pass_names()}
    for name, mutations in offered.items():
        assert [event["label"] for event in tried if event["of"] == name] == mutations
    first = [name for name, mutations in offered.items() if mutations]
    assert [event["of"] for event in tried[: len(first)]] == first  # the passes take turns


def test_a_listing_that_fails_is_an_event(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: gg.Graph, pass_name: str | None = None) -> object:
        raise AssertionError(f"no sites of {pass_name}")

    monkeypatch.setattr(gg.Graph, "mutations", broken)
    listed = [event for event in events_of(subject, Options()) if event["event"] == "pass"]
    assert len(listed) == len(gg.pass_names())
    assert all(event["kind"] == "error" and "AssertionError: no sites of" in event["reason"] for event in listed)


def test_an_export_that_fails_is_wrong_unless_the_base_fails_too(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown = gg.apply(subject.graph, next(iter(subject.graph.mutations("widen"))))
    good = exported(subject.graph, grown)
    assert good.kind == "parity"
    assert good.ratio is not None
    assert 0 <= good.ratio <= 1
    real = gg.export_onnx

    def refuses(*graphs: gg.Graph) -> None:
        def export(graph: gg.Graph, path: str) -> object:
            if any(graph is one for one in graphs):
                raise gg.ExportError("no kernel")
            return real(graph, path)

        monkeypatch.setattr(gg, "export_onnx", export)

    refuses(grown)
    assert exported(subject.graph, grown) == Outcome("wrong", "no kernel")
    refuses(grown, subject.graph)
    assert exported(subject.graph, grown) == Outcome("refused", "the base model as well: no kernel")
