"""What is recorded: frozen values that read and write plain JSON."""

from graphgrow.records.base import Record
from graphgrow.records.stage import BenchmarkRecord, ComparisonRecord, ExportRecord, LatencyRecord, StageRecord

__all__ = ["BenchmarkRecord", "ComparisonRecord", "ExportRecord", "LatencyRecord", "Record", "StageRecord"]
