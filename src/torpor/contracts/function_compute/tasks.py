"""Asynchronous calls whose history is kept, as the API shows them (5)."""

from collections.abc import Mapping
from typing import Any

from torpor.contracts.function_compute import limits, names
from torpor.contracts.function_compute.names import Place, instance_id
from torpor.model.event import Event, Progress, Step
from torpor.scheduling.retries import Condition

_ENDED: Mapping[str, str] = {
    Condition.SUCCESS: "Succeeded",
    Condition.EXHAUSTED: "Failed",
    Condition.AGED: "Expired",
    Condition.GONE: "Invalid",
    Condition.STOPPED: "Stopped",
}
_STEPS: Mapping[str, str] = {"run": "Running", "wait": "Retrying", "retried": "Enqueued", "dropped": "Stopped"}
STATES = frozenset((*_ENDED.values(), "Enqueued", "Dequeued", "Running", "Stopping", "Retrying"))


def status(standing: str, progress: Progress, *, stopping: bool = False) -> str:
    """A task's state; `standing` is where the queue says it is."""
    if progress.ended:
        return _ENDED.get(progress.condition, "Failed")
    if stopping:
        return "Stopping"
    if standing == "running":
        return "Running"
    if standing == "waiting":
        return "Dequeued"
    return "Retrying" if progress.runs or progress.refusals else "Enqueued"


def task(
    event: Event,
    progress: Progress,
    task_id: str,
    state: str,
    place: Place,
    *,
    payload: bool,
    running_since: float = 0.0,
) -> dict[str, Any]:
    """One task; `payload` if what it was given and gave back is wanted too. `running_since` is when the attempt began
    that runs now, in seconds since the epoch, or 0."""
    service, function = names.service_of(event.function), names.function_of(event.function)
    result, started = progress.result, started_at(progress, running_since)
    ended = round(progress.ended * 1000)
    shown: dict[str, Any] = {
        "requestId": event.request_id,
        "qualifier": event.qualifier or names.LATEST,
        "status": state,
        "destinationStatus": _destination(progress),
        "startedTime": started,
        "endTime": ended,
        "alreadyRetriedTimes": max(progress.runs - 1, 0),
        "instanceId": instance_id(result.environment, classic=bool(service)) if result and result.environment else "",
        "events": _events(event, progress, state, running_since),
    }
    if service:
        shown |= {"invocationId": task_id, "serviceName": service, "functionName": function}
    else:
        shown |= {"taskId": task_id, "functionArn": place.function_arn(function)}
    if ended and started:
        shown["durationMs"] = ended - started
    if result is not None and result.error_type:
        shown["invocationErrorMessage" if service else "taskErrorMessage"] = result.payload.decode(errors="replace")
    return shown | (_payloads(event, progress, classic=bool(service)) if payload else {})


def _payloads(event: Event, progress: Progress, *, classic: bool) -> dict[str, str]:
    given = event.payload.decode(errors="replace")
    result = progress.result.payload[: limits.TASK_PAYLOAD_SHOWN] if progress.result is not None else b""
    name = "invocationPayload" if classic else "taskPayload"
    return {name: given, "returnPayload": result.decode(errors="replace")}


def started_at(progress: Progress, running_since: float) -> int:
    """Milliseconds since the epoch at which it ran first; 0 if it never did. `running_since` is when the attempt began
    that runs now, in seconds, or 0."""
    run = next((step for step in progress.steps if step.what == "run"), None)
    return round((run.at if run is not None else running_since) * 1000)


def _destination(progress: Progress) -> str:
    made = {step.what for step in progress.steps}
    if "undelivered" in made:
        return "Failed"
    if "delivered" in made:
        return "Succeeded"
    return "Running" if progress.owed else ""


def _events(event: Event, progress: Progress, state: str, running_since: float) -> list[dict[str, Any]]:
    """What has happened to it, in order."""
    shown = [_event(0, "Enqueued", event.accepted, "")]
    for step in progress.steps:
        name = _STEPS.get(step.what)
        if step.what == "ended":
            name = state
        if name:
            shown.append(_event(len(shown), name, step.at, _detail(step)))
    if running_since:
        shown.append(_event(len(shown), "Running", running_since, ""))
    return shown


def _event(number: int, name: str, at: float, detail: str) -> dict[str, Any]:
    return {"eventId": number, "status": name, "timestamp": round(at * 1000), "eventDetail": detail}


def _detail(step: Step) -> str:
    verdict, error, *_ = (*step.detail.split(": "), "", "")
    return f'{{"Error":"{error}"}}' if step.what == "run" and verdict == "error" and error else ""
