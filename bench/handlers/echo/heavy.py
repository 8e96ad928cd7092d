"""A function whose Init takes two seconds and leaves 200 MB of objects and bytes behind."""

import time

_BEGAN = time.monotonic()
TABLE = [{"number": number, "text": f"row {number}"} for number in range(250_000)]
BLOB = bytearray(b"x" * 120 * 1024 * 1024)
time.sleep(max(0.0, 2.0 - (time.monotonic() - _BEGAN)))


def handler(event, context):
    if "hold" in event:
        time.sleep(event["hold"])
    return TABLE[event.get("row", 0)]
