"""The part of the demonstration about asynchronous events."""

import json
import time
from datetime import datetime
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

from demo_styles import Skipped, package

from torpor.cli.guessing import newest

WAIT_SCALE = "0.01"
"""Makes the waits before further attempts, a minute and two, shorter."""
_FOLDER = "events-python"
_WITHIN = 30.0


def asynchronous(url: str, client: Any, runtimes: list[str]) -> None:
    """An event that fails twice, is retried and lands in its destination."""
    runtime = newest("python", runtimes)
    if not runtime:
        raise Skipped("asynchronous events: no Python runtime is usable here")
    arn = ""
    for name, handler in (("inbox", "app.inbox"), (_FOLDER, "app.handler")):
        made = client.create_function(
            FunctionName=name,
            Runtime=runtime,
            Handler=handler,
            Role="arn:aws:iam::000000000000:role/demo",
            Code={"ZipFile": package(_FOLDER)},
        )
        client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
        arn = arn or made["FunctionArn"]
    client.put_function_event_invoke_config(FunctionName=_FOLDER, DestinationConfig={"OnSuccess": {"Destination": arn}})
    began = time.perf_counter()
    payload = json.dumps({"order": 1, "failures": 2}).encode()
    accepted = client.invoke(FunctionName=_FOLDER, InvocationType="Event", Payload=payload)
    took = (time.perf_counter() - began) * 1000
    print(f"\n{_FOLDER}  ({runtime}, an event; waits shortened by --event-wait-scale {WAIT_SCALE})")
    print(f"  accepted in {took:.1f} ms with {accepted['StatusCode']}, on the disk; what became of it:")
    _tell(_finished(url, accepted["ResponseMetadata"]["RequestId"]))
    _tell_inbox(url)


def _finished(url: str, request_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + _WITHIN
    while time.monotonic() < deadline:
        event = _read(f"{url}/_torpor/events/{quote(request_id)}")
        if event["state"] not in ("queued", "waiting", "running", "delivering"):
            return event
        time.sleep(0.05)
    raise Skipped("asynchronous events: the event was not through in time")


def _tell(event: dict[str, Any]) -> None:
    for step in event["history"]:
        clock = datetime.fromtimestamp(step["at"]).strftime("%H:%M:%S.%f")[:-3]
        seconds = f"{step['seconds']:.3g} s" if step["what"] == "wait" else ""
        print(f"        | {clock}  {step['what']:<10} {step.get('detail') or seconds}".rstrip())


def _tell_inbox(url: str) -> None:
    deadline = time.monotonic() + _WITHIN
    while time.monotonic() < deadline:
        for line in _read(f"{url}/_torpor/logs?function=inbox")["events"]:
            if " after " in line["message"]:
                print(f"  its destination got: {line['message'].rstrip()}")
                return
        time.sleep(0.05)
    raise Skipped("asynchronous events: the destination heard nothing in time")


def _read(url: str) -> Any:
    with urlopen(url, timeout=10) as answer:
        return json.load(answer)
