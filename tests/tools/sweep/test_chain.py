"""Chains stay small, are drawn from all passes, and are the same bits again."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
import torch

import graphgrow as gg
from tools.sweep import chain
from tools.sweep.chain import same_bits, smallest, try_chain
from tools.sweep.journal import Journal
from tools.sweep.options import Options
from tools.sweep.outcome import Outcome
from tools.sweep.subject import Subject, prepare


@pytest.fixture(scope="module")
def subject() -> Subject:
    return prepare("graphgrow:mlp", Options())


@pytest.fixture
def unverified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "compared", lambda *_: Outcome("preserved", "", 0.5))
    monkeypatch.setattr(chain, "exported", lambda *_: Outcome("parity"))


def events_of(subject: Subject, options: Options) -> list[dict[str, Any]]:
    stream = io.StringIO()
    try_chain(subject, options, Journal(stream))
    return [event for line in stream.getvalue().splitlines() if (event := json.loads(line))["event"] == "chain"]


def length_of(events: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = (event for event in events if event["part"] == "length")
    return found


@pytest.mark.parametrize(
    ("text", "small"),
    [
        ("widen(layers.0, extra=32)", "widen(layers.0, extra=1)"),
        ("split(layers.0)", "split(layers.0, units=[0])"),
        ("split(layers.0, units=[3, 4])", "split(layers.0, units=[3, 4])"),
    ],
)
def test_the_smallest_form_of_a_mutation(text: str, small: str) -> None:
    assert str(smallest(gg.parse_mutation(text))) == small


@pytest.mark.usefixtures("unverified")
def test_a_chain_is_as_long_as_asked_and_stays_below_its_limit(subject: Subject) -> None:
    events = events_of(subject, Options(chain=12, growth=1.2))
    assert length_of(events)["length"] == 12
    assert 1 < length_of(events)["growth"] <= 1.2
    steps = [event for event in events if event["part"] == "step"]
    assert [event["kind"] for event in steps] == ["preserved"] * 12
    assert {event["part"]: event["kind"] for event in events if event["part"] not in ("step", "length")} == {
        "whole": "preserved", "replay": "same", "load": "same", "onnx": "parity",
    }  # fmt: skip


@pytest.mark.usefixtures("unverified")
def test_steps_are_left_unverified_on_request(subject: Subject) -> None:
    parts = [event["part"] for event in events_of(subject, Options(chain=2, chain_verify="end"))]
    assert parts == ["length", "whole", "replay", "load", "onnx"]


@pytest.mark.usefixtures("unverified")
def test_a_chain_ends_where_nothing_fits(subject: Subject) -> None:
    events = events_of(subject, Options(chain=3, growth=0.5))
    assert [event["part"] for event in events] == ["length"]
    assert length_of(events)["length"] == 0
    assert events_of(subject, Options(chain=0)) == []


@pytest.mark.usefixtures("unverified")
def test_declining_an_offer_is_an_event_and_declining_a_smaller_form_is_not(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, offered = gg.apply, {str(m) for m in subject.graph.mutations()}

    def apply(graph: gg.Graph, mutation: gg.Mutation, seed: int = 0) -> gg.Graph:
        if len(graph.ledger) == 0 and (str(mutation) in offered) == declines_offers:
            raise gg.Declined("no")
        return real(graph, mutation, seed)

    monkeypatch.setattr(gg, "apply", apply)
    monkeypatch.setattr(gg, "pass_names", lambda: ("split", "widen"))  # both have smaller forms
    declines_offers = False
    for seed in range(4):  # some of them begin with the smallest forms
        assert all(event.get("kind") != "declined" for event in events_of(subject, Options(chain=1, seed=seed)))
    declines_offers = True
    events = [event for seed in range(4) for event in events_of(subject, Options(chain=1, seed=seed, growth=1.0))]
    declined = [event for event in events if event.get("kind") == "declined"]
    assert declined
    assert all(event["part"] == "step" and event["label"] in offered for event in declined)


def test_one_bit_makes_another_graph(subject: Subject) -> None:
    grown, again = (gg.apply(subject.graph, "widen(layers.0, extra=2)", share=False) for _ in range(2))
    assert same_bits(grown, again) == Outcome("same")
    name, parameter = next(iter(again.module.named_parameters()))
    with torch.no_grad():
        parameter[0] = 0.0
        dict(grown.module.named_parameters())[name][0] = 0.0
        assert same_bits(grown, again) == Outcome("same")
        parameter[0] = -0.0
    assert same_bits(grown, again) == Outcome("wrong", f"1 tensors differ, `{name}` first")
    assert same_bits(grown, subject.graph).reason == "the graphs' texts differ"
