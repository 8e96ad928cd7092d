"""What is measured: a function that does next to nothing."""

import time
import uuid

ENVIRONMENT = uuid.uuid4().hex


def handler(event, context):
    return event


def identify(event, context):
    """Which environment this is: the same answer as long as the same one serves."""
    return {"environment": ENVIRONMENT}


def hold(event, context):
    """Occupies its environment for as long as it is told."""
    time.sleep(event.get("hold", 0))
    return event
