"""Greets, and says how often this environment has been used: 1 means a cold start."""

import logging

log = logging.getLogger()
log.setLevel("INFO")

used = 0


def handler(event, context):
    global used
    used += 1
    name = event.get("name", "world")
    log.info("greeting %s, invocation %d of this environment", name, used)
    return {
        "message": f"Hello {name} from Python",
        "environment_used": used,
        "memory_mb": int(context.memory_limit_in_mb),
        "ms_left": context.get_remaining_time_in_millis(),
    }
