"""What a grown network may cost at most."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from graphgrow.graph import Graph
from graphgrow.rewrite.cost import flops_text


@dataclass(frozen=True)
class Budget:
    """Upper limits; None is no limit.

    Attributes:
        parameters: number of scalar parameters.
        flops: of one forward pass of one sample.
        latency_ms: median of onnxruntime at batch size 1, on this machine, one thread.
    """

    parameters: int | None = None
    flops: int | None = None
    latency_ms: float | None = None

    def refusal(self, parameters: int, flops: int) -> str | None:
        """Which limit these counts are beyond, in words; None where all is well."""
        if self.parameters is not None and parameters > self.parameters:
            return f"{parameters:,} parameters are more than the {self.parameters:,} allowed"
        if self.flops is not None and flops > self.flops:
            return f"{flops_text(flops)} of one sample are more than the {flops_text(self.flops)} allowed"
        return None

    def too_slow(self, graph: Graph) -> str | None:
        """Whether a network, exported and timed, is beyond the latency allowed; None where it is not.

        Raises:
            ExportError, BenchmarkError: if it cannot be exported or timed.
        """
        if self.latency_ms is None:
            return None
        from graphgrow.bench import benchmark
        from graphgrow.export import export_onnx

        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "candidate.onnx"
            export_onnx(graph, path)
            (timed,) = benchmark(path, batch_sizes=(1,), repeats=30).latencies
        if timed.median_ms > self.latency_ms:
            return f"{timed.median_ms:.3f} ms are more than the {self.latency_ms:.3f} ms allowed"
        return None
