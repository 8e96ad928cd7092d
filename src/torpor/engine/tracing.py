"""The trace of the invocations in one environment: what they went through, exported once each is over."""

import logging

from torpor.engine.contract import Contract
from torpor.model.function import FunctionVersion
from torpor.model.invocation import Invocation
from torpor.model.records import InvocationEnded, Record
from torpor.telemetry import Traces

log = logging.getLogger(__name__)
_STEPS_MAX = 100
"""Records kept between two invocations: an environment that starts its processes again and again has no more."""


class Tracer:
    """Told of every invocation to be traced and of every record; hands the segments to the exporter."""

    def __init__(self, version: FunctionVersion, stream: str, contract: Contract, traces: Traces) -> None:
        self._version = version
        self._stream = stream
        self._contract = contract
        self._traces = traces
        self._traced: dict[str, Invocation] = {}
        self._steps: list[tuple[Record, float]] = []

    def begin(self, invocation: Invocation) -> None:
        """An invocation is assigned to the environment."""
        if invocation.upstream_trace:
            self._traced[invocation.id] = invocation

    def trace_of(self, record: Record) -> str:
        """The trace header of the invocation that a record is of, if it is traced."""
        invocation = self._traced.get(getattr(record, "id", ""))
        return invocation.trace if invocation is not None else ""

    def note(self, record: Record, wall: float) -> None:
        """Something happened at wall-clock time `wall`, in seconds since the epoch."""
        self._steps = [*self._steps[-_STEPS_MAX:], (record, wall)]
        if type(record) is not InvocationEnded:
            return
        steps, self._steps = self._steps, []
        invocation = self._traced.pop(record.id, None)
        if invocation is not None:
            try:
                documents = self._contract.segments(self._version, invocation, steps)
            except Exception:  # a trace is worth less than the invocation and its log
                log.exception("the trace of invocation %s is lost", record.id)
            else:
                self._traces.export(self._version.function, self._stream, wall, documents)
