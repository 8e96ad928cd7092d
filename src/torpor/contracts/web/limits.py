"""Every number of the web-service contract, once. Section numbers are those of the contract page.

Sizes are in bytes unless the name says otherwise, times in seconds. What the vendor does not publish is marked *ours*.
"""

MIB = 1024 * 1024

# Start (1.1, 5)
START_LIMIT = 60.0
"""Ours: from the start command to the first answer of the server."""
START_LIMIT_MAX = 900.0
"""Ours."""
PROBE_PERIOD = 0.02
"""Ours: between two tries to reach the port."""

# Requests (1.2)
REQUEST_TIMEOUT = 900.0
REQUEST_TIMEOUT_MIN = 0.1
"""Ours."""
UNLIMITED_TIME = 31_536_000.0
"""A year: what a persistent service's requests get, which have no limit."""
RESPONSE_MAX = 6_291_456
REQUEST_MAX = 32 * MIB
"""Ours: the body of a request to a serverless service, as in comparable clouds."""
REUSE_AFTER_FREEZE = 1.0
"""Ours: servers close connections that were idle for some seconds, the shortest usual one being 2."""
CONCURRENCY_DEFAULT = 80
"""Ours, as in comparable clouds: web servers are made for many requests at once, and one environment per request would
start a whole server for every picture of a page."""
CONCURRENCY_MAX = 1_000
"""Ours; what a persistent service gets by default, as it has one environment for all."""

RESPONSE_HEAD_MAX = 64 * 1024
"""Ours: status line and fields of an answer."""

# Scaling (1.5, 5)
QUEUE_LIMIT = 10.0
"""Ours: a request's longest wait for room."""
IDLE_TIMEOUT = 1_800.0
LEAVE_LIMIT = REQUEST_TIMEOUT
"""Ours: requests and sessions of a persistent service have no limit, but once it is replaced or deleted they end within
this."""
STOP_GRACE = 10.0
"""Ours: between SIGTERM and SIGKILL."""
ENVIRONMENTS_MAX = 1_000
"""Of one service at once."""

# Configuration (1.4)
MEMORY_MIN_MB = 128
MEMORY_MAX_MB = 7_076
MEMORY_DEFAULT_MB = 512
"""Ours."""
MEMORY_PER_CPU_MB = 1_769
TMP_MB = 512
"""Ours."""
PORT_DEFAULT = 8_080
PORT_MIN = 1_024
"""Ours: the server inside is no root and cannot take a lower one."""
PORT_MAX = 65_535
NAME_MAX = 40
"""Ours, so that a name is one label of a host name and leaves room for what is made of it."""
COMMAND_MAX = 8 * 1024
"""Ours: characters of a build or start command."""
ENVIRONMENT_MAX = 32 * 1024
"""Ours, so that they fit in a request's head: of all variables' names and values."""
FILES_MAX = 4_096
"""Ours: a server holds a descriptor for each connection."""
PROCESSES_MAX = 1_024
"""Ours."""

# Packages and builds (1.4); all ours
PACKAGE_MAX = 250 * MIB
UNPACKED_MAX = 512 * MIB
"""Of the source; what the build makes of it may be as large as `BUILT_MAX`."""
BUILT_MAX = 2 * 1024 * MIB
BUILD_TIME = 1_200.0
BUILD_TIME_MAX = 14_400.0
BUILD_MEMORY_MB = 4_096
"""The vendor's smaller build worker."""
BUILD_LOG_MAX = 256 * 1024

# Failures; all ours
OUTPUT_LINES = 20
"""Of the server's last output, told with a failed start."""
OUTPUT_LENGTH = 4 * 1024
"""Characters."""
HINT_WINDOW = 400
"""Characters around a message within which words about shared memory belong to it."""
