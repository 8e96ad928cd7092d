"""Every number of EventBridge's API that its model does not hold, once. Sizes in bytes, times in seconds."""

# Rules
RULES_MAX = 300
"""On one event bus."""
TARGETS_MAX = 5
"""Of one rule."""
TAGS_MAX = 50
PAGE_DEFAULT = 100
REQUEST_MAX = 1024 * 1024
"""Ours: the service tells none."""

# Schedules
RATE_UNITS = {"minute": 60, "hour": 3600, "day": 24 * 3600}
RATE_DIGITS = 9
"""Of a rate's number. Ours: the service tells none."""
YEAR_FIRST = 1970
YEAR_LAST = 2199
NTH_MAX = 5
"""A month has at most so many of one day of the week."""
