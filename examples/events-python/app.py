"""An asynchronous function that fails twice before it succeeds, and one that gets the record of what became of it."""

import os


def handler(event, context):
    """Every attempt at an event has the same request id; `/tmp` outlives the attempts, as in any warm environment."""
    attempt = _count(f"/tmp/{context.aws_request_id}")
    if attempt <= event.get("failures", 2):
        raise RuntimeError(f"attempt {attempt} fails")
    return {"order": event.get("order"), "attempts": attempt}


def inbox(event, context):
    """The destination: `event` is the record."""
    context_told, answer = event["requestContext"], event["responsePayload"]
    print(f"{context_told['condition']} after {context_told['approximateInvokeCount']} attempts: {answer}")


def _count(path):
    size = os.path.getsize(path) if os.path.exists(path) else 0
    with open(path, "a") as file:
        file.write("x")
    return size + 1
