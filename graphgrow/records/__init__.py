"""What is recorded: frozen values that read and write plain JSON."""

from graphgrow.records.base import Record
from graphgrow.records.growth import DecisionRecord, EpochRecord, TrainingRecord
from graphgrow.records.search import CandidateRecord, ChoiceRecord, GenerationRecord, RoundRecord
from graphgrow.records.stage import BenchmarkRecord, ComparisonRecord, ExportRecord, LatencyRecord, StageRecord

__all__ = [
    "BenchmarkRecord",
    "CandidateRecord",
    "ChoiceRecord",
    "ComparisonRecord",
    "DecisionRecord",
    "EpochRecord",
    "ExportRecord",
    "GenerationRecord",
    "LatencyRecord",
    "Record",
    "RoundRecord",
    "StageRecord",
    "TrainingRecord",
]
