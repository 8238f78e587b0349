"""Tables and figures, from records only."""

from graphgrow.report.figure import figure
from graphgrow.report.table import table

__all__ = ["figure", "table"]
