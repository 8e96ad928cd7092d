"""Records and output in; logs and traces out."""

from torpor.telemetry.batching import Batches
from torpor.telemetry.entries import LogEvent, PhaseEntry
from torpor.telemetry.history import END_OF_PHASE, History
from torpor.telemetry.journal import Journal
from torpor.telemetry.output import OutputReader
from torpor.telemetry.traces import Traces

__all__ = ["END_OF_PHASE", "Batches", "History", "Journal", "LogEvent", "OutputReader", "PhaseEntry", "Traces"]
