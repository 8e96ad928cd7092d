"""Every number of the Lambda contract, once. Section numbers are those of the contract page.

Sizes are in bytes unless the name says otherwise, times in seconds.
"""

MIB = 1024 * 1024

# Environment life cycle (1.1, 1.3, 1.4)
INIT_LIMIT = 10.0
EXTENDED_INIT_FLOOR = 130.0
EXTENDED_INIT_CEILING = 900.0
RESTORE_LIMIT = 10.0
SHUTDOWN_INTERNAL_EXTENSION = 0.5
SHUTDOWN_EXTERNAL_EXTENSION = 2.0
SHUTDOWN_RUNTIME_SHARE = 0.3
EXTENSIONS_MAX = 10

# Telemetry and Logs API (4.1, 4.2)
TELEMETRY_ITEMS_MIN = 1_000
TELEMETRY_ITEMS_MAX = 10 * 1_000
TELEMETRY_ITEMS_DEFAULT = TELEMETRY_ITEMS_MAX
TELEMETRY_BYTES_MIN = 256 * 1024
TELEMETRY_BYTES_MAX = MIB
TELEMETRY_BYTES_DEFAULT = TELEMETRY_BYTES_MIN
TELEMETRY_TIMEOUT_MS_MIN = 25
TELEMETRY_TIMEOUT_MS_MAX = 30 * 1_000
TELEMETRY_TIMEOUT_MS_DEFAULT = 1_000
PORT_MAX = 65_535

# Payloads (2.4, 2.9)
RESPONSE_MAX = 6 * MIB + 100
REQUEST_MAX = 6 * MIB
"""A synchronous request's payload; the service counts 6 MiB plus the same 100 bytes as for responses."""
CLIENT_CONTEXT_MAX = 3_583
TAIL_LOG = 4 * 1024
ERROR_BODY_MAX = MIB
XRAY_CAUSE_MAX = 64 * 1024

# Asynchronous invocation (10)
EVENT_MAX = MIB
EVENT_MAX_OLD = 256 * 1024
"""Of the operation that the newer one has replaced."""
EVENT_RETRIES = 2
EVENT_WAITS = (60.0, 120.0)
EVENT_AGE = 21_600.0
EVENT_BACK_OFF_MIN = 1.0
EVENT_BACK_OFF_MAX = 300.0
RECURSION_MAX = 16
DEAD_LETTER_MESSAGE = 1024
TARGET_MAX = MIB
"""Of a record for a queue, topic or bus."""

# Event source mappings (9.11); how many pollers there are is published for the cloud's own scale only
QUEUE_ANSWER_MAX = 10
"""Messages that a queue gives, or entries that it takes, in one call."""
QUEUE_WAIT = 20
QUEUE_VISIBILITY_MAX = 43_200
QUEUE_BATCH_SIZE = REQUEST_MAX - 16 * 1024
"""Bytes of the messages in one event."""
POLLERS_IDLE = 2
"""Pollers of a queue that is empty."""
POLLERS_FIRST = 5
POLLERS_MAX = 64
POLLERS_A_MINUTE = 60
"""How many more there are while every answer is full."""
QUEUE_BACK_OFF_MIN = 1.0
QUEUE_BACK_OFF_MAX = 60.0
TRACE_MAX = 2 * 1024
"""Characters of a trace header in a message; not published."""

# Streamed responses (2.7, 2.9)
STREAMED_MAX = 200 * MIB
STREAM_BURST = 6 * MIB
"""Bytes of a streamed response that go out at full speed."""
STREAM_RATE = 2 * MIB
"""Bytes a second after that."""
STREAM_ERROR_TYPE_MAX = 256
PRELUDE_MAX = 64 * 1024
"""The JSON in front of a response that is made for HTTP; the contract page names no bound."""

# Function configuration (7, 9.7)
MEMORY_MIN_MB = 128
MEMORY_MAX_MB = 10_240
MEMORY_DEFAULT_MB = 128
MEMORY_PER_CPU_MB = 1_769
TIMEOUT_MIN = 1
TIMEOUT_MAX = 900
TIMEOUT_DEFAULT = 3
TMP_MIN_MB = 512
TMP_MAX_MB = 10_240
TMP_DEFAULT_MB = 512
FILES_MAX = 1_024
PROCESSES_MAX = 1_024
ENVIRONMENT_MAX = 4 * 1024
LAYERS_MAX = 5
TAGS_MAX = 50
NAME_MAX = 64
POLICY_MAX = 20 * 1024
"""A resource policy as it is shown."""

# Managed instances (1.6, 8, 9.7)
MANAGED_MEMORY_MIN_MB = 2 * 1024
MANAGED_MEMORY_MAX_MB = 32 * 1024
MANAGED_CONCURRENCY_MAX = 1_600
MANAGED_RATIOS = (2.0, 4.0, 8.0)
"""GiB of memory to one CPU; the first is the default."""
MANAGED_ENVIRONMENTS = 3
"""Environments of a published version unless it is scaled otherwise."""
MANAGED_VCPUS = 400
"""Largest number of CPUs of a capacity provider unless it says otherwise."""

# Packages and account (7, 9.7)
ZIPPED_MAX = 52_428_800
UNZIPPED_MAX = 262_144_000
CREATE_REQUEST_MAX = 70_167_211
CODE_STORAGE_MAX = 80_530_636_800

# Concurrency (8)
ACCOUNT_CONCURRENCY = 1_000
UNRESERVED_MINIMUM = 100
RATE_PER_CONCURRENCY = 10
"""Requests a second by URL to a function with reserved concurrency, for each unit of it."""

# Lists (9.1)
PAGE_DEFAULT = 50

# Links to code (9.7)
CODE_LINK_LIFETIME = 600.0

# Credentials inside (2.8)
CREDENTIALS_LIFETIME = 6 * 3_600.0
