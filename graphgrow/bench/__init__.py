"""Timing of ONNX files with onnxruntime."""

from graphgrow.bench.runtime import benchmark, compare

__all__ = ["benchmark", "compare"]
