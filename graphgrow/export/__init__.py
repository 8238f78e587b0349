"""ONNX export with a parity check against torch."""

from graphgrow.export.to_onnx import Exportable, export_onnx

__all__ = ["Exportable", "export_onnx"]
