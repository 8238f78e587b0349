"""Running many evaluations on a crew of workers: retries, time-outs, and failures that are recorded."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Request = Mapping[str, Any]
QUEUED = "queued"  # the state of a request that nobody works on yet; its time does not run


@dataclass(frozen=True)
class Outcome:
    """What came of one request.

    Attributes:
        place: of the request in the list that was given.
        result: what the target returned; None where it failed.
        reason: why it failed; empty where it did not.
        attempts: how often it was begun.
    """

    place: int
    result: dict[str, Any] | None
    reason: str
    attempts: int


@dataclass(frozen=True)
class Reply:
    """What a crew says of one request that it was given.

    Attributes:
        ticket: of the request.
        result: what the target returned, or None.
        reason: why there is no result.
        again: whether another attempt may end otherwise: the worker died, or had too little memory.
    """

    ticket: int
    result: dict[str, Any] | None
    reason: str = ""
    again: bool = False


class Crew(Protocol):
    """Workers that call one target function: processes of this machine, or tasks of Ray."""

    @property
    def size(self) -> int:
        """How many requests it works on at a time."""

    @property
    def states(self) -> Mapping[int, str]:
        """By ticket, what its worker is at, where that is known; `QUEUED` before it has begun."""

    def start(self, ticket: int, request: Request) -> None:
        """Hand a request to a free worker."""

    def wait(self, seconds: float) -> Sequence[Reply]:
        """What has ended since, after at most so many seconds."""

    def give_up(self, ticket: int) -> None:
        """End the worker of a request that takes too long; nothing more is heard of the ticket."""

    def close(self) -> None:
        """End all workers."""


def run(crew: Crew, requests: Sequence[Request], retries: int, seconds: float, beat: float = 0.2) -> Iterator[Outcome]:
    """Evaluate all requests and give each outcome as it comes, in no particular order.

    A worker that dies, runs out of memory or takes too long is replaced, and its request is begun again at most
    `retries` times; then it has failed. What the target raises is a failure at once: it would raise it again.

    Args:
        crew: the workers.
        requests: plain JSON values.
        retries: attempts beyond the first.
        seconds: that one attempt may take, from when a worker begins with it.
        beat: longest wait between two looks at the clock.
    """
    attempts = [0] * len(requests)
    waiting = list(range(len(requests)))[::-1]
    running: dict[int, tuple[int, float]] = {}
    tickets = 0
    while waiting or running:
        while waiting and len(running) < crew.size:
            place = waiting.pop()
            attempts[place] += 1
            tickets += 1
            running[tickets] = place, time.monotonic() + seconds
            crew.start(tickets, requests[place])
        replies = [reply for reply in crew.wait(beat) if reply.ticket in running]
        states = crew.states
        for ticket, (place, deadline) in list(running.items()):
            if states.get(ticket) == QUEUED:
                running[ticket] = place, time.monotonic() + seconds
            elif time.monotonic() > deadline and all(reply.ticket != ticket for reply in replies):
                crew.give_up(ticket)
                replies.append(Reply(ticket, None, f"it took longer than {seconds:g} s", again=True))
        for reply in replies:
            place, _ = running.pop(reply.ticket)
            if reply.result is None and reply.again and attempts[place] <= retries:
                waiting.append(place)
                continue
            reason = reply.reason if attempts[place] == 1 else f"{reply.reason} ({attempts[place]} attempts)"
            yield Outcome(place, reply.result, "" if reply.result is not None else reason, attempts[place])
