"""Every number of the Function Compute contract, once. Section numbers are those of the contract page.

Sizes are in bytes unless the name says otherwise, times in seconds.
"""

KIB = 1024
MIB = 1024 * KIB

# Start and hooks (1.2, 1.8, 1.9)
START_LIMIT = 120.0
READY_PERIOD = 0.02
"""Between two looks at whether the port answers; not published."""
INITIALIZE_LIMIT = 300
INITIALIZE_DEFAULT_CLASSIC = 30
INITIALIZE_DEFAULT = 300
STOP_HOOK_LIMIT = 90
HOOK_MARGIN = 1.0
"""By which the life cycle waits longer for a hook than the call of the hook itself; not published."""
SHUTDOWN_GRACE = 2.0
"""From SIGTERM to SIGKILL; not published."""
PORT_MAX = 65_535
HEALTH_PATH_MAX = 2 * KIB
HEALTH_DELAY_MAX = 120
HEALTH_PERIOD_MAX = 120
HEALTH_PERIOD_DEFAULT = 3
HEALTH_TIMEOUT_MAX = 3
HEALTH_TIMEOUT_DEFAULT = 1
HEALTH_COUNT_MAX = 120
HEALTH_FAILURES_DEFAULT = 3
HEALTH_SUCCESSES_DEFAULT = 1

# Instances (0, 1.10, 8)
CONCURRENCY_MAX = 200
INSTANCES = 100
INSTANCES_MAX = 10 * 1000
IDLE_TIMEOUT = 180.0
IDLE_TIMEOUT_MIN = 300
IDLE_TIMEOUT_MAX = 3600
FILES_MAX = 100 * 1000
PROCESSES_MAX = 1024

# Calls (1.5, 3.1, 8)
SYNC_PAYLOAD_MAX = 32 * MIB
ASYNC_PAYLOAD_MAX = 128 * KIB
HEADERS_MAX = 8 * KIB
HEAD_MAX = 64 * KIB
"""Of what is read of an answer's head before it is judged; not published."""
SYNC_RESPONSE_MAX = 32 * MIB
"""Not published for servers of a function's own; the same as for requests."""
PATH_MAX = 4 * KIB
LOG_TAIL = 4 * KIB
TASK_ID_MAX = 128
DELAY_MAX = 3600

# Asynchronous calls (5)
ASYNC_RETRIES = 3
ASYNC_RETRIES_MAX = 8
ASYNC_WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
"""Before the attempts after the first one at a function that fails; not published."""
ASYNC_AGE = 24 * 3600
ASYNC_AGE_MAX = 7 * 24 * 3600
ASYNC_BACK_OFF = 0.5
ASYNC_BACK_OFF_MAX = 300.0
"""Not published."""
ASYNC_REFUSED_FOR = 5 * 3600.0
ASYNC_DELIVERED_FOR = 30 * 60.0
DELIVERY_BACK_OFF_MAX = 60.0
"""Not published."""
TASK_KEPT = 7 * 24 * 3600.0
TASK_PAYLOAD_SHOWN = MIB
TARGET_MAX = 64 * KIB

# Signatures (3.3; the window is not published)
CLOCK_SKEW = 15 * 60.0

# Function configuration (4, 8)
NAME_MAX = 64
TRIGGER_NAME_MAX = 128
DESCRIPTION_MAX = 256
TIMEOUT_MIN = 1
TIMEOUT_MAX = 24 * 3600
TIMEOUT_DEFAULT = 3
TIMEOUT_DEFAULT_CLASSIC = 60
MEMORY_MIN_MB = 128
MEMORY_MAX_MB = 32 * 1024
MEMORY_STEP_MB = 64
MEMORY_DEFAULT_MB = 128
MEMORY_PER_CPU_MB = 1536
"""Where no `cpu` is set; not published."""
CPU_MIN = 0.05
CPU_MAX = 16.0
CPU_STEP = 0.05
DISK_SIZES_MB = (512, 10_240)
ENVIRONMENT_MAX = 4 * KIB
LAYERS_MAX = 5
TRIGGERS_MAX = 50
TAGS_MAX = 20
SERVICE_FUNCTIONS_MAX = 50
TIMER_PAYLOAD_MAX = 128 * KIB

# Packages (8)
CODE_REQUEST_MAX = 100 * MIB
CODE_OBJECT_MAX = 500 * MIB
LAYER_MAX = 500 * MIB
CODE_LINK_LIFETIME = 600.0

# Lists
PAGE_DEFAULT = 20
PAGE_MAX = 100
