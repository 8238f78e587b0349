"""What is recorded: frozen values that read and write plain JSON."""

from graphgrow.records.base import Record
from graphgrow.records.search import CandidateRecord, GenerationRecord
from graphgrow.records.stage import BenchmarkRecord, ComparisonRecord, ExportRecord, LatencyRecord, StageRecord

__all__ = [
    "BenchmarkRecord",
    "CandidateRecord",
    "ComparisonRecord",
    "ExportRecord",
    "GenerationRecord",
    "LatencyRecord",
    "Record",
    "StageRecord",
]
