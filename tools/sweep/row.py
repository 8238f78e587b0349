"""One model's row: what its events add up to, and how it is kept as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

WRONG = ("wrong", "declined", "error")  # not as promised; what else is not well is "undetermined", "refused", "memory"


@dataclass
class PassCounts:
    """One pass on one model.

    Attributes:
        offered: mutations.
        outcomes: of the mutations tried, by kind.
        refusals: why places are not offered, with how many each.
        listing: what came of listing the sites, where that failed.
    """

    offered: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    listing: str = ""

    @property
    def tried(self) -> int:
        """Mutations that were tried."""
        return sum(self.outcomes.values())


@dataclass
class Chain:
    """The chain of mutations.

    Attributes:
        length: mutations in it.
        growth: parameters, in multiples of the base's.
        steps: how the steps came out one by one, by kind.
        parts: how each thing that was done with the whole chain came out.
    """

    length: int = 0
    growth: float = 0.0
    steps: dict[str, int] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)


@dataclass
class Row:
    """What was seen on one model.

    Attributes:
        model: as on the command line.
        options: what was done.
        versions: of what it was made with.
        complete: whether all of it was done; other rows are made again.
        stopped: why not.
        failure: why the model cannot be captured; such a row is complete.
        input: shapes of the example inputs.
        way, modes, nodes, parameters: of the capture.
        growable: share of the parameters that lie in groups that can grow.
        frozen: why groups cannot grow, with how many each.
        unknown: nodes without an axis rule, by reason.
        passes: by name.
        onnx: how the exports of single mutations came out, by kind.
        chain: the chain.
        problems: everything that is not well, in words.
        worst: the largest error in multiples of its bound, of what was preserved.
        worst_onnx: the same of onnxruntime against torch.
        seconds: of all steps, and of the one that took longest.
        peak_gib: of resident memory.
        commit: of the sources, and its day; empty where that is not known.
    """

    model: str
    options: dict[str, Any]
    versions: dict[str, str]
    complete: bool = False
    stopped: str = ""
    failure: str = ""
    input: str = ""
    way: str = ""
    modes: str = ""
    nodes: int = 0
    parameters: int = 0
    growable: float = 0.0
    frozen: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)
    passes: dict[str, PassCounts] = field(default_factory=dict)
    onnx: dict[str, int] = field(default_factory=dict)
    chain: Chain = field(default_factory=Chain)
    problems: list[str] = field(default_factory=list)
    worst: float = 0.0
    worst_onnx: float = 0.0
    seconds: float = 0.0
    slowest: str = ""
    slowest_seconds: float = 0.0
    peak_gib: float = 0.0
    commit: str = ""

    @property
    def wrong(self) -> bool:
        """Whether something is not as promised: not preserved, other bits, offered but declined, or a defect."""
        kinds = [kind for counts in self.passes.values() for kind in (*counts.outcomes, counts.listing)]
        kinds += [*self.onnx, *self.chain.steps, *self.chain.parts.values()]
        return any(kind in WRONG for kind in kinds)

    def count(self, *kinds: str) -> int:
        """Mutations tried by themselves that came out in one of these ways; without a name, all."""
        outcomes = [item for counts in self.passes.values() for item in counts.outcomes.items()]
        return sum(number for kind, number in outcomes if not kinds or kind in kinds)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Row:
        """The row of what `dataclasses.asdict` made of it.

        Raises:
            TypeError: if it has other fields.
        """
        passes = {name: PassCounts(**counts) for name, counts in data["passes"].items()}
        return cls(**{**data, "passes": passes, "chain": Chain(**data["chain"])})


def add_events(row: Row, events: Iterable[dict[str, Any]]) -> None:
    """Add up the events of a child, which may have been stopped anywhere; what it was doing is left to the caller."""
    memory: list[str] = []
    for event in events:
        seconds = event.get("seconds", 0.0)
        row.seconds += seconds
        if seconds > row.slowest_seconds:
            row.slowest, row.slowest_seconds = event["label"], seconds
        _add(row, event)
        if event.get("reason"):
            row.problems.append(f"{event['kind']}: {event['label']}: {event['reason']}")
        if event.get("kind") == "memory":
            memory.append(event["label"])
    if memory:
        row.complete, row.stopped = False, f"out of memory in {len(memory)} steps, the first `{memory[0]}`"


def _add(row: Row, event: dict[str, Any]) -> None:
    name, kind, ratio = event["event"], event.get("kind", ""), event.get("ratio") or 0.0
    if name == "model":
        for key in ("input", "way", "modes", "nodes", "parameters", "growable", "frozen", "unknown"):
            setattr(row, key, event[key])
    elif name == "pass":
        row.passes[event["of"]] = PassCounts(event["offered"], {}, event["refusals"], kind)
    elif name == "mutation":
        _count(row.passes[event["of"]].outcomes, kind)
        row.worst = max(row.worst, ratio)
    elif name == "onnx":
        _count(row.onnx, kind)
        row.worst_onnx = max(row.worst_onnx, ratio)
    elif name == "chain":
        _add_to_chain(row, event, kind, ratio)
    elif name == "failed" and kind != "memory":
        row.failure = event["reason"]
    elif name == "done":
        row.complete, row.seconds, row.peak_gib = True, event["took"], event["peak_gib"]


def _add_to_chain(row: Row, event: dict[str, Any], kind: str, ratio: float) -> None:
    part = event["part"]
    if part == "length":
        row.chain.length, row.chain.growth = event["length"], event["growth"]
    elif part == "step":
        _count(row.chain.steps, kind)
    else:
        row.chain.parts[part] = kind
    if part == "onnx":
        row.worst_onnx = max(row.worst_onnx, ratio)
    else:
        row.worst = max(row.worst, ratio)


def _count(counts: dict[str, int], kind: str) -> None:
    counts[kind] = counts.get(kind, 0) + 1
