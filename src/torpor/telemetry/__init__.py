"""Records and output in; logs and traces out."""

from torpor.telemetry.history import END_OF_PHASE, History, PhaseEntry
from torpor.telemetry.journal import Journal, LogEvent
from torpor.telemetry.output import OutputReader
from torpor.telemetry.traces import Traces

__all__ = ["END_OF_PHASE", "History", "Journal", "LogEvent", "OutputReader", "PhaseEntry", "Traces"]
