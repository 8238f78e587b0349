"""Export a grown model of more than 2 GB: its weights go into a file of their own, and onnxruntime agrees with torch.

    python tools/bench/external.py

A gated MLP in float32 without anything around it, grown by one mutation until its weights pass what protobuf can hold;
exported into a temporary folder with the parity check, and removed. In a child process, whose peak memory is printed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import graphgrow as gg
from tools.sweep.child import limit_memory, peak_gib


class GatedMLP(nn.Module):
    """silu(gate) * up, and down again: three matrices."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., width) to the same shape."""
        result: torch.Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return result


def export(width: int, hidden: int, extra: int) -> None:
    """Grow, export, and print what came out."""
    graph = gg.trace(GatedMLP(width, hidden), torch.randn(2, width))
    grown = gg.apply(graph, f"widen(gate, extra={extra})")
    size = sum(parameter.nbytes for parameter in grown.module.parameters())
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        record = gg.export_onnx(grown, Path(folder) / "large.onnx")
        took = time.perf_counter() - start
        files = ", ".join(f"{file.name} {file.stat().st_size:,} bytes" for file in sorted(Path(folder).iterdir()))
    print(f"{grown.parameter_count:,} parameters, {size:,} bytes of weights; exported in {took:.0f} s: {files}")
    print(
        f"external data: {record.external_data}; error {record.max_error:.2g} of {record.bound:.2g} allowed; ", end=""
    )
    print(f"batch sizes {record.batch_sizes}; peak memory {peak_gib():.1f} GiB")


def main() -> None:
    """Read the command line, and run in a child process."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--width", type=int, default=8192)
    options.add_argument("--hidden", type=int, default=20480)
    options.add_argument("--extra", type=int, default=2048)
    options.add_argument("--limit-gib", type=float, default=20.0, help="of the child's memory")
    options.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parsed = options.parse_args()
    if parsed.child:
        limit_memory(parsed.limit_gib)
        export(parsed.width, parsed.hidden, parsed.extra)
        return
    child = subprocess.run([sys.executable, *sys.argv, "--child"], check=False, env={**os.environ})
    raise SystemExit(child.returncode)


if __name__ == "__main__":
    main()
