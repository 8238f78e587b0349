"""Retries, time-outs and failures, on a crew that is a script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from graphgrow.search.engine import QUEUED, Outcome, Reply, Request, run


class Scripted:
    """Each request names what becomes of its attempts: "ok", "fail", "die" or "hang"."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.given_up: list[int] = []
        self.most = 0
        self._running: dict[int, tuple[Request, int]] = {}
        self._attempts: dict[str, int] = {}

    @property
    def states(self) -> Mapping[int, str]:
        return {}

    def start(self, ticket: int, request: Request) -> None:
        attempt = self._attempts.get(request["name"], 0)
        self._attempts[request["name"]] = attempt + 1
        self._running[ticket] = request, attempt
        self.most = max(self.most, len(self._running))

    def wait(self, seconds: float) -> Sequence[Reply]:
        for ticket, (request, attempt) in list(self._running.items())[::-1]:
            what = request["script"][attempt]
            if what != "hang":
                del self._running[ticket]
                result = {"name": request["name"]} if what == "ok" else None
                return [Reply(ticket, result, "" if result else what, again=what == "die")]
        return []

    def give_up(self, ticket: int) -> None:
        self.given_up.append(ticket)
        del self._running[ticket]

    def close(self) -> None:
        pass


def outcomes(*scripts: list[str], size: int = 2, retries: int = 1, seconds: float = 60.0) -> tuple[Any, Scripted]:
    crew = Scripted(size)
    requests = [{"name": str(number), "script": script} for number, script in enumerate(scripts)]
    found = sorted(run(crew, requests, retries, seconds, beat=0.0), key=lambda outcome: outcome.place)
    return found, crew


def test_every_request_ends_once() -> None:
    found, crew = outcomes(*[["ok"]] * 5, size=3)
    assert found == [Outcome(place, {"name": str(place)}, "", 1) for place in range(5)]
    assert crew.most == 3


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_death_is_tried_again_at_most_so_often(retries: int) -> None:
    (outcome,), _ = outcomes(["die"] * 5, retries=retries)
    assert (outcome.result, outcome.attempts) == (None, retries + 1)
    assert outcome.reason == ("die" if retries == 0 else f"die ({retries + 1} attempts)")
    (outcome,), _ = outcomes(["die", "ok"], retries=max(retries, 1))
    assert (outcome.result, outcome.reason, outcome.attempts) == ({"name": "0"}, "", 2)


def test_what_the_target_raises_is_not_tried_again() -> None:
    (outcome, other), _ = outcomes(["fail", "ok"], ["ok"])
    assert (outcome.result, outcome.reason, outcome.attempts) == (None, "fail", 1)
    assert other.result == {"name": "1"}


def test_a_hanging_worker_is_given_up_and_the_others_go_on() -> None:
    found, crew = outcomes(["hang", "hang"], ["ok"], ["hang", "ok"], size=1, seconds=-1.0)
    assert [outcome.result for outcome in found] == [None, {"name": "1"}, {"name": "2"}]
    assert found[0].reason == "it took longer than -1 s (2 attempts)"
    assert len(crew.given_up) == 3


def test_the_time_of_what_is_queued_does_not_run() -> None:
    class Busy(Scripted):
        looks = 0

        @property
        def states(self) -> Mapping[int, str]:
            self.looks += 1
            return dict.fromkeys(self._running, QUEUED if self.looks < 5 else "train")

    crew = Busy(1)
    (outcome,) = run(crew, [{"name": "0", "script": ["hang"]}], retries=0, seconds=-1.0, beat=0.0)
    assert outcome.reason == "it took longer than -1 s"
    assert crew.looks == 5  # the time ran out as soon as it was begun


def test_nothing_to_do() -> None:
    assert outcomes()[0] == []
