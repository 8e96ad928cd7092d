"""Records and output in; logs out."""

from torpor.telemetry.history import History, PhaseEntry
from torpor.telemetry.journal import Journal, LogEvent
from torpor.telemetry.output import OutputReader

__all__ = ["History", "Journal", "LogEvent", "OutputReader", "PhaseEntry"]
