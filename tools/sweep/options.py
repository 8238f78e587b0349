"""What a sweep does with each model, and within which limits."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Options:
    """What is done with a model; rows made with other options are other rows.

    Attributes:
        passes: names of the passes to try; "all" is every one.
        sites: mutations of each pass to try, drawn by chance; 0: all that are offered.
        seed: of the weights, the fresh weights, and everything that is drawn.
        input_size: "small": the smallest image that can be captured; "own": the model's own; a number: that one.
        input: shape of a normal input, in place of the model's own example.
        batch: batch size of the example inputs.
        batch_sizes: compared in eval mode besides the example's.
        onnx: how many of the tried mutations are exported as well.
        chain: length of the chain of mutations; 0: none.
        chain_verify: "every": each step of the chain is verified, and the whole; "end": the whole alone.
        growth: the chain keeps the model below this multiple of its parameters.
        device: where the model is put.
    """

    passes: tuple[str, ...] = ("all",)
    sites: int = 0
    seed: int = 0
    input_size: str = "small"
    input: tuple[int, ...] = ()
    batch: int = 2
    batch_sizes: tuple[int, ...] = (1, 3)
    onnx: int = 1
    chain: int = 20
    chain_verify: str = "every"
    growth: float = 2.0
    device: str = "cpu"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Options:
        """What `to_json` wrote.

        Raises:
            TypeError: if there is an option that this version does not know.
        """
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in data.items()}
        return cls(**values)

    def __str__(self) -> str:
        """As on the command line: sites and seed, and what differs from the defaults."""
        words = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default or field.name in ("sites", "seed"):
                shown = ",".join(map(str, value)) or '""' if isinstance(value, tuple) else value
                words.append(f"--{field.name.replace('_', '-')} {shown}")
        return " ".join(words)


@dataclass(frozen=True)
class Limits:
    """What one model may use: wall-clock seconds, and GiB of memory (0: no limit)."""

    timeout_s: float = 7200.0
    memory_gib: float = 12.0
