"""Every number of the CloudWatch Logs API that its model does not hold, once. Sizes in bytes, times in seconds."""

RETENTION_DAYS = (
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653,
)  # fmt: skip
"""The values of `retentionInDays`."""

# PutLogEvents
BATCH_MAX = 1024 * 1024
BATCH_EVENT_OVERHEAD = 26
BATCH_SPAN = 24 * 3600.0
TOO_NEW = 2 * 3600.0
TOO_OLD = 14 * 24 * 3600.0
REQUEST_MAX = 8 * 1024 * 1024
"""A request as JSON, in which a batch may be several times as long. Ours: the service tells none."""

# Pages
PAGE_DEFAULT = 50

# Filter patterns
PATTERN_DEPTH = 32
SELECTOR_WILDCARDS = 1
PATTERN_WILDCARDS = 3

# StartLiveTail
TAIL_SESSIONS = 15
TAIL_LIFETIME = 3 * 3600.0
TAIL_EVENTS = 500
TAIL_EVERY = 1.0
