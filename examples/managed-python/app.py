"""One of several workers of an environment: says which of them ran the call, and how many it has run."""

import os
import time

calls = 0


def handler(event, context):
    global calls
    calls += 1
    time.sleep(event.get("seconds", 0))
    return {"worker": os.getpid(), "calls": calls}
