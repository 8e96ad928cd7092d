"""The platform's own lines in a service's log: starts, ends and failures; requests that went well have none."""

from torpor.contracts.web import failures
from torpor.contracts.web.environment import port, start_command
from torpor.model.function import FunctionVersion
from torpor.model.records import InitEnded, InitStarted, InvocationEnded, Record, ShutdownEnded


def lines(version: FunctionVersion, record: Record) -> list[str]:
    """The log events of one record; each ends with a newline."""
    if isinstance(record, InitStarted):
        return [f"Starting `{start_command(version)}` with PORT={port(version)}\n"]
    if isinstance(record, InitEnded):
        if record.failure is not None:
            return [failures.start_error(version, record.failure).line]
        return [f"Port {port(version)} answers after {record.duration * 1000:.0f} ms\n"]
    if isinstance(record, InvocationEnded) and record.failure is not None and not record.failure.starting:
        return [f"Request {record.id}: {failures.request_error(version, record.failure).line}"]
    if isinstance(record, ShutdownEnded):
        return [_end(record)]
    return []


def _end(record: ShutdownEnded) -> str:
    ends = ", ".join(sorted(set(record.exits.values())))
    return f"Stopped ({record.reason}){f': {ends}' if ends else ''}\n"
