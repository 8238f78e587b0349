"""How much memory gg.verify takes beside the models that it compares: a stack of 300 million parameters in bfloat16.

    python tools/bench/verify_memory.py "split(4.up, units=[0..63])"

One mutation a process, for the peak of one that ran before would hide its own. The unit of what is printed is one
float64 copy of the parameters.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import graphgrow as gg
from tools.sweep.child import peak_gib

WIDTH, HIDDEN, BLOCKS = 2048, 8192, 9


class Block(nn.Module):
    """x + down(relu(up(x)))."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, WIDTH) -> the same."""
        result: torch.Tensor = x + self.down(torch.relu(self.up(x)))
        return result


def main() -> None:
    """Grow one block, verify, and print the peak of resident memory before and after."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.bfloat16)
    model = nn.Sequential(*(Block() for _ in range(BLOCKS)))
    torch.set_default_dtype(torch.float32)
    graph = gg.trace(model.eval(), torch.randn(2, WIDTH, dtype=torch.bfloat16))
    copy = 8 * graph.parameter_count / 2**30
    text = sys.argv[1] if len(sys.argv) > 1 else "widen(4.up, extra=64)"
    child = gg.apply(graph, text)
    before, start = peak_gib(), time.perf_counter()
    verdict = gg.verify(graph, child)
    print(
        f"{text}: {verdict.preserved}, {graph.parameter_count:,} parameters, {time.perf_counter() - start:.0f} s, peak "
        f"{before:.2f} to {peak_gib():.2f} GiB: {(peak_gib() - before) / copy:.2f} float64 copies of {copy:.2f} GiB"
    )


if __name__ == "__main__":
    main()
