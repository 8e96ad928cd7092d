"""`torpor events` and its commands."""

from datetime import datetime
from typing import Any
from urllib.parse import quote

from torpor.cli.client import ADMIN, client
from torpor.cli.output import seconds_text, show, show_entries, show_json, working

_PATH = f"{ADMIN}/events"
_HEAD = ("FUNCTION", "QUEUED", "RUNNING", "DELIVERING", "SUCCEEDED", "FAILED", "DEAD", "OLDEST", "IN/S", "OUT/S")
_LIST_HEAD = ("ID", "FUNCTION", "STATE", "RUNS", "AGE", "CONDITION", "REQUEST ID")
_SOURCES_HEAD = ("SOURCE", "FUNCTION", "STATE", "WHEN", "NEXT", "LAST RESULT")
_NO_SOURCES = "Nothing makes events by itself: there are no schedules, timers or event source mappings."
_NONE_YET = "There are no events yet: calls with the invocation type Event, timers and schedules make them."


def overview(*, endpoint: str | None, as_json: bool) -> int:
    """Print how many events of each function stand where, how old they are and how they come and go."""
    with working("Asking for the events"):
        value = client(endpoint).get(_PATH)
    show_entries(value, "functions", _HEAD, _overview_row, nothing=_NONE_YET, as_json=as_json)
    return 0


def list_events(
    *, function: str | None, state: str | None, limit: int, before: int | None, endpoint: str | None, as_json: bool
) -> int:
    """Print the newest events, one a line. Raises InvalidRequest."""
    query = {"limit": str(limit)}
    query |= {"function": function} if function else {}
    query |= {"state": state} if state else {}
    query |= {"before": str(before)} if before is not None else {}
    with working("Asking for the events"):
        value = client(endpoint).request("GET", f"{_PATH}/list", query=query).json
    nothing = "No event is like that." if function or state else _NONE_YET
    show_entries(value, "events", _LIST_HEAD, _row, nothing=nothing, as_json=as_json)
    return 0


def sources(*, endpoint: str | None, as_json: bool) -> int:
    """Print what makes events without a caller: schedules, timers, queues."""
    with working("Asking for what makes events"):
        value = client(endpoint).get(f"{_PATH}/sources")
    show_entries(value, "sources", _SOURCES_HEAD, _source_row, nothing=_NO_SOURCES, as_json=as_json)
    return 0


def show_event(identity: str, *, endpoint: str | None, as_json: bool) -> int:
    """Print one event with its whole history. Raises NotFound."""
    with working("Asking for the event"):
        event = client(endpoint).get(f"{_PATH}/{quote(identity, safe='')}")
    if as_json:
        show_json(event)
    else:
        _show(event)
    return 0


def retry_event(identity: str, *, endpoint: str | None, as_json: bool) -> int:
    """Run an event that is through again, or deliver a dead one's result again. Raises NotFound, CallerError."""
    with working("Trying again"):
        event = client(endpoint).request("POST", f"{_PATH}/{quote(identity, safe='')}/retry").json
    if as_json:
        show_json(event)
    else:
        show(f"Event {event['id']} of {event['function']} is {event['state']} again.")
    return 0


def drop_event(identity: str, *, endpoint: str | None, as_json: bool) -> int:
    """Take an event out. Raises NotFound, CallerError."""
    with working("Taking it out"):
        event = client(endpoint).request("DELETE", f"{_PATH}/{quote(identity, safe='')}").json
    if as_json:
        show_json(event)
    elif event["state"] == "dropped":
        show(f"Dropped event {event['id']} of {event['function']}.")
    else:
        show(f"Event {event['id']} of {event['function']} is {event['state']} still; it is not tried again.")
    return 0


def _overview_row(entry: dict[str, Any]) -> tuple[str, ...]:
    numbers = ("queued", "running", "delivering", "succeeded", "failed", "dead")
    return (
        entry["function"],
        *(str(entry[name]) for name in numbers),
        seconds_text(entry["oldest_s"]),
        f"{entry['accepted_per_s']:g}",
        f"{entry['ended_per_s']:g}",
    )


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(entry["id"]),
        _named(entry),
        entry["state"],
        str(entry["runs"]),
        seconds_text(entry["age_s"]),
        entry["condition"] or "-",
        entry["request_id"],
    )


def _source_row(entry: dict[str, Any]) -> tuple[str, ...]:
    upcoming = _time(entry["next"], "seconds") if entry["next"] else "-"
    return (entry["name"], entry["function"] or "-", entry["state"], entry["when"], upcoming, entry["told"] or "-")


def _named(entry: dict[str, Any]) -> str:
    return f"{entry['function']}:{entry['qualifier']}" if entry["qualifier"] else str(entry["function"])


def _show(event: dict[str, Any]) -> None:
    show(f"Event {event['id']} of {_named(event)}: {event['state']}")
    facts = {
        "request id": event["request_id"],
        "came from": event["source"] or "a call",
        "task": event["task"],
        "planned for": _time(event["planned"]) if event["planned"] else "",
        "next attempt": _time(event["next_attempt"]) if event["next_attempt"] else "",
        "payload": _short(event["payload"]),
        "result": _short(event["result"]["payload"]) if event["result"] else "",
    }
    for name, value in facts.items():
        if value:
            show(f"  {name + ':':<14}{value}")
    show("")
    for step in event["history"]:
        show(f"  {_time(step['at'])}  {step['what']:<12}{_detail(step)}".rstrip())
    for owed in event["owed"]:
        attempts = owed.get("attempts", 0)
        show(f"  still to be delivered to the {owed['role']} {owed['target']}, attempts so far: {attempts}")
        if owed.get("error"):
            show(f"    the last one: {owed['error']}")


def _detail(step: dict[str, Any]) -> str:
    parts = [step.get("detail") or ""]
    if step["what"] == "wait":
        parts.append(f"{step.get('seconds', 0.0):g} s before the next attempt")
    elif step["what"] == "throttled":
        parts.append(f"{step['times']} times within {_ms(step.get('seconds', 0.0))}" if step["times"] > 1 else "")
    elif step["what"] == "run":
        parts.append(f"after {_ms(step.get('waited', 0.0))} of waiting, for {_ms(step.get('seconds', 0.0))}")
    return ", ".join(part for part in parts if part)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"


def _time(moment: float, exactness: str = "milliseconds") -> str:
    return datetime.fromtimestamp(moment).astimezone().isoformat(timespec=exactness)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:200]}… ({len(text)} characters; --json shows all)"
