"""Greets, and says how often this environment has been used."""

import os

greeted = 0


def handler(event, context):
    global greeted
    greeted += 1
    print(f"greeting number {greeted} of this environment")
    return {
        "message": f"Hello {event.get('name', 'world')} from Python",
        "environment_used": greeted,
        "memory_mb": int(os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]),
        "ms_left": context.get_remaining_time_in_millis(),
    }
