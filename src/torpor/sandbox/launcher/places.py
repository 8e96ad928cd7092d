"""Where things stand inside: the paths a function sees, and the hidden ones that are gone before it runs."""

TASK = "/var/task"
CODE_PLACES = (TASK, "/code", "/app")
"""Where the code folder can be shown."""
OPT = "/opt"
LANG = "/var/lang"
RUNTIME = "/var/runtime"
TMP = "/tmp"
WORKERS = "/run/workers"
CGROUP = "/sys/fs/cgroup"

HIDDEN = "/run/torpor"
"""A mount of its own, taken off before any of the function's code can run."""
CODE = HIDDEN + "/code"
STATE = HIDDEN + "/state"
DEVICES = HIDDEN + "/dev"
PROGRAM = HIDDEN + "/program"
OWN_LANG = HIDDEN + "/lang"
IMAGES = HIDDEN + "/images"
PROC = HIDDEN + "/proc"
SCRATCH = HIDDEN + "/scratch"
LOWERS = HIDDEN + "/lowers"
LOWERS_COUNT = 64

USER_ID = 993
GROUP_ID = 990
ROOT_IDS = 65_536
"""Ids from root's on that a sandbox with root inside has."""
UNUSED_IDS = 2_100_000_000
"""Ids of the host from here on that belong to nobody."""
USER_NAME = "sbx_user1051"
HOST_NAME = "torpor"
API_HOST = "169.254.100.1"
GATEWAY = "169.254.100.2"


def image_folder(number: int) -> str:
    """Where one of the folders is hidden that images are made of."""
    return f"{IMAGES}/{number}"


def image_languages(runtime: str) -> str:
    """Where the interpreters of an image with several are put together."""
    return f"{IMAGES}/{runtime}-languages"
