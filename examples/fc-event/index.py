"""An event function: what stands outside the handler runs once per instance."""

import json
import time

started = time.time()


def handler(event, context):
    name = json.loads(event or b"{}").get("name", "world")
    return {
        "greeting": f"Hello, {name}!",
        "instance_age": round(time.time() - started, 3),
        "request": context.request_id,
    }
