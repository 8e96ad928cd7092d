"""Records and output in; logs and traces out."""

from torpor.telemetry.batching import Batches
from torpor.telemetry.entries import GroupDocument, LogEvent, PhaseEntry
from torpor.telemetry.groups import LogGroups, StreamEntry
from torpor.telemetry.history import END_OF_PHASE, History
from torpor.telemetry.journal import Journal
from torpor.telemetry.output import OutputReader
from torpor.telemetry.search import Page, Position, Query
from torpor.telemetry.traces import Traces

__all__ = [
    "END_OF_PHASE",
    "Batches",
    "GroupDocument",
    "History",
    "Journal",
    "LogEvent",
    "LogGroups",
    "OutputReader",
    "Page",
    "PhaseEntry",
    "Position",
    "Query",
    "StreamEntry",
    "Traces",
]
