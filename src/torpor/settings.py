# ruff: noqa: RUF009 - a field's row of the table is made by a call; every default in it is immutable or a factory
"""The one table of settings.

Each field of `Settings` is one setting: its name, type, default, help text and bounds stand here and nowhere else. The
flags of `torpor serve`, the `TORPOR_*` variables, the keys of `torpor.toml` and the reference page are derived from it.
A flag wins over a variable, a variable over the file, the file over the default. Components never see this class: the
composition root hands each of them its own slice.
"""

import contextlib
import ipaddress
import math
import os
import re
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_type_hints
from urllib.parse import urlsplit

from torpor.contracts.function_compute import limits as fc_limits
from torpor.contracts.lambda_ import limits
from torpor.contracts.web import limits as web_limits
from torpor.model.errors import InvalidRequest

FILE_NAME = "torpor.toml"
FILE_VARIABLE = "TORPOR_CONFIG"
_YES = frozenset(("1", "true", "yes", "on"))
_NO = frozenset(("0", "false", "no", "off"))
_PORT_MAX = 65_535
_GIB = 1024 * limits.MIB
_DAY = 86_400


class IsolationChoice(StrEnum):
    """Which rung of the isolation ladder to use."""

    AUTO = "auto"
    SANDBOX = "sandbox"
    PROCESS = "process"


class MissedTimers(StrEnum):
    """What becomes of planned times that were missed."""

    ONCE = "once"
    ALL = "all"
    NONE = "none"


class LogStyle(StrEnum):
    """How platform lines look in text logs."""

    NEW = "new"
    OLD = "old"


class BillingRule(StrEnum):
    """How the billed duration is computed."""

    STANDARD = "standard"
    SAMPLES = "samples"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One row of the table."""

    name: str
    kind: Any
    default: Any
    help: str
    minimum: float | None = None
    maximum: float | None = None
    unit: str = ""
    pattern: str = ""
    """What text must match, if anything."""
    default_text: str = ""
    """How the default is shown where it depends on the host."""

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return "TORPOR_" + self.name.upper()

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed words; empty if the setting is no choice."""
        return tuple(self.kind) if isinstance(self.kind, type) and issubclass(self.kind, StrEnum) else ()

    @property
    def values(self) -> str:
        """What may be given, for people."""
        if self.choices:
            return " or ".join(self.choices)
        text = _KINDS[self.kind].text
        if self.minimum is not None and self.maximum is not None:
            text += f" from {_number(self.minimum)} to {_number(self.maximum)}"
        return text + (f" ({self.unit})" if self.unit else "")

    @property
    def shown_default(self) -> str:
        """The default for people."""
        if self.default_text:
            return self.default_text
        if self.default in ("", ()) or self.default == {}:
            return "none"
        return str(self.default).lower() if self.kind is bool else f"{self.default}"

    def read(self, raw: object, source: str) -> Any:
        """The value of this setting out of text or a file's value. Raises InvalidRequest, naming `source`."""
        try:
            value = self.kind(raw) if self.choices else _KINDS[self.kind].read(raw)
            self._check(value)
        except (ValueError, TypeError) as error:
            given = "the value given" if self.kind == Mapping[str, str] else repr(raw)
            wanted = self.unit if self.unit and self.pattern and isinstance(raw, str) else self.values
            raise InvalidRequest(f"{source}: {given} is not {wanted}.", what=self.name) from error
        return value

    def _check(self, value: Any) -> None:
        if self.pattern and not re.fullmatch(self.pattern, value):
            raise ValueError
        if self.minimum is not None and self.maximum is not None:
            numbers = value if isinstance(value, tuple) else (value,)
            if any(not self.minimum <= number <= self.maximum for number in numbers):
                raise ValueError


def _data_folder() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/torpor")
    home = os.environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    return Path(home) / "torpor"


def _runtimes_folder() -> Path:
    return Path(sys.prefix) / "share" / "torpor" / "runtimes"


def _setting(default: Any, help: str, **extra: Any) -> Any:
    if callable(default):
        return field(default_factory=default, metadata={"help": help, **extra})
    return field(default=default, metadata={"help": help, **extra})


_PREFERRED = -10
_CAP_SYS_NICE = 1 << 23


def _may_be_preferred() -> bool:
    """May this process go before others, and has nobody decided otherwise for it?"""
    with contextlib.suppress(OSError):
        if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
            return False  # root of a user namespace only
        status = Path("/proc/self/status").read_text()
        allowed = int(status.partition("CapEff:")[2].split()[0], 16) & _CAP_SYS_NICE
        return bool(allowed) and os.getpriority(os.PRIO_PROCESS, 0) == 0
    return False


def _keys_setting(help: str) -> Any:
    return field(default_factory=lambda: MappingProxyType({}), repr=False, metadata={"help": help})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting of a server, valid once built by `resolve`."""

    host: str = _setting("127.0.0.1", "Address to listen on; beyond loopback only with access keys.")
    port: int = _setting(8700, "Port to listen on; 0 takes a free one.", minimum=0, maximum=_PORT_MAX)
    data: Path = _setting(
        _data_folder,
        "Folder of functions, their code and the server's state.",
        default_text="~/.local/share/torpor; as root /var/lib/torpor",
    )
    isolation: IsolationChoice = _setting(
        IsolationChoice.AUTO,
        "Rung of the isolation ladder: auto takes the strongest the host offers, sandbox refuses to start without one, "
        "process has no isolation.",
    )
    runtimes: Path = _setting(
        _runtimes_folder, "Folder of the runtime clients.", default_text="share/torpor/runtimes below Python's prefix"
    )
    any_node: bool = _setting(False, "Serve Node.js runtimes that are not installed with the newest node found.")
    account: str = _setting("000000000000", "Account number that ARNs carry.", pattern=r"\d{12}", unit="12 digits")
    region: str = _setting(
        "us-east-1", "Region that ARNs and functions see.", pattern=r"[a-z]{2}(-[a-z]+)+-\d", unit="a region's name"
    )
    fc_region: str = _setting(
        "cn-hangzhou", "Region that Function Compute functions see.", pattern=r"[a-z0-9-]{1,32}", unit="a region's name"
    )
    fc_start_limit: float = _setting(
        fc_limits.START_LIMIT, "Limit for a Function Compute function's server to listen.", minimum=0.1,
        maximum=_DAY, unit="seconds",
    )  # fmt: skip
    fc_instances: int = _setting(
        fc_limits.INSTANCES, "Instances of all Function Compute functions together.", minimum=1,
        maximum=fc_limits.INSTANCES_MAX,
    )  # fmt: skip
    fc_idle_timeout: float = _setting(
        fc_limits.IDLE_TIMEOUT,
        "Idle time after which an instance of a Function Compute function that sets none of its own is released.",
        minimum=0, maximum=7 * _DAY, unit="seconds",
    )  # fmt: skip
    fc_max_package: int = _setting(
        fc_limits.CODE_REQUEST_MAX,
        "Largest package inside a request of the Function Compute API, as a zip archive; 52428800 is the limit of old.",
        minimum=1, maximum=fc_limits.CODE_REQUEST_MAX, unit="bytes",
    )  # fmt: skip
    access_keys: Mapping[str, str] = _keys_setting(
        "Key pairs whose signature a request must bear, as id:secret,id:secret. None: every local request is taken."
    )
    account_concurrency: int = _setting(
        limits.ACCOUNT_CONCURRENCY,
        "Invocations that may run at once, all functions together.",
        minimum=1,
        maximum=1_000_000,
    )
    unreserved_minimum: int = _setting(
        limits.UNRESERVED_MINIMUM,
        "Concurrency that reservations must leave to functions without one.",
        minimum=0,
        maximum=1_000_000,
    )
    memory_budget_mb: int = _setting(
        0, "Memory for all environments together; 0 is 80 % of the host's.", minimum=0, maximum=1 << 30, unit="MB"
    )
    memory_wait: float = _setting(
        10.0, "How long an invocation waits for memory before it is refused.", minimum=0, maximum=900, unit="seconds"
    )
    idle_timeout: float = _setting(
        600.0, "Idle time after which an environment is ended.", minimum=0, maximum=604_800, unit="seconds"
    )
    max_age: float = _setting(
        14_400.0, "Age at which an environment is ended once idle.", minimum=1, maximum=2_592_000, unit="seconds"
    )
    busy_poll: float = _setting(
        lambda: 0.0002 if len(os.sched_getaffinity(0)) > 1 else 0.0,
        "How long the server looks for what follows an event at once before it sleeps, and before it freezes an idle "
        "environment: quicker answers for some CPU time.",
        minimum=0,
        maximum=0.01,
        unit="seconds",
        default_text="0.0002; 0 on a single CPU",
    )
    niceness: int = _setting(
        lambda: _PREFERRED if _may_be_preferred() else 0,
        "Niceness of the server itself, not of functions: below 0 it answers quickly while they are busy; 0 leaves it.",
        minimum=-20,
        maximum=0,
        default_text="-10 where that is allowed (as root)",
    )
    init_limit: float = _setting(
        limits.INIT_LIMIT, "Limit of the Init phase.", minimum=0.1, maximum=limits.EXTENDED_INIT_CEILING, unit="seconds"
    )
    restore_limit: float = _setting(
        limits.RESTORE_LIMIT, "Limit for going on from a snapshot.", minimum=0.1, maximum=60.0, unit="seconds"
    )
    long_init_limit: float = _setting(
        limits.EXTENDED_INIT_FLOOR,
        "Limit of an Init that no invocation waits for (provisioned concurrency, snapshots, managed instances), unless "
        "the function's timeout is longer.",
        minimum=0.1,
        maximum=limits.EXTENDED_INIT_CEILING,
        unit="seconds",
    )
    proactive_init: bool = _setting(
        False, "Initialise one environment of a Lambda function ahead when it is created, changed or published."
    )
    web_start_limit: float = _setting(
        web_limits.START_LIMIT,
        "Longest time that a web service may take from its start command to the first answer on its port.",
        minimum=0.1,
        maximum=web_limits.START_LIMIT_MAX,
        unit="seconds",
    )
    web_build_limit: float = _setting(
        web_limits.BUILD_TIME,
        "Longest time that the build command of a web service may take.",
        minimum=0.1,
        maximum=web_limits.BUILD_TIME_MAX,
        unit="seconds",
    )
    single_use: bool = _setting(False, "End every environment after its first invocation.")
    prepared: int = _setting(
        2, "Sandboxes kept prepared per interpreter; they hold no user code.", minimum=0, maximum=100
    )
    clone: bool = _setting(True, "Clone environments from a warm interpreter; off: boot each by fork and exec.")
    cpu_limit: bool = _setting(True, "Hold each environment to the CPU share of its memory size.")
    log_style: LogStyle = _setting(LogStyle.NEW, "Platform lines in text logs: with a status field, or as before 2024.")
    log_group_mb: int = _setting(
        32, "Log events kept on the disk, each log group; the oldest go first.", minimum=1, maximum=1 << 20, unit="MB"
    )
    billing: BillingRule = _setting(
        BillingRule.STANDARD,
        "Billed duration: standard rounds up and includes init, samples cuts to whole milliseconds without init.",
    )
    trace_daemon: str = _setting(
        "",
        "Where trace segments of functions with active tracing are sent, as X-Ray's daemon takes them; they are kept "
        "in any case.",
        pattern=r"|[^\s:]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}",
        unit="host:port",
    )
    aws_endpoint_url: str = _setting(
        "", "Where S3 (packages by bucket and key), SQS (event sources) and other AWS services answer.",
        pattern=r"|https?://\S+", unit="http://host:port",
    )  # fmt: skip
    url_domain: str = _setting(
        "", "Address below which function URLs have names of their own, such as https://example.com for "
        "https://ID.lambda-url.REGION.example.com/; empty: names below localhost for callers of this machine, paths "
        "for others.", pattern=r"|https?://[^\s/@]+",
    )  # fmt: skip
    pass_endpoint_url: bool = _setting(False, "Give functions that address too, as AWS_ENDPOINT_URL.")
    host_ports: tuple[int, ...] = _setting(
        (), "Loopback ports of this host that functions may reach as host.torpor.internal.", minimum=1,
        maximum=_PORT_MAX,
    )  # fmt: skip
    drain_timeout: float = _setting(
        30.0, "How long running invocations may take to end when the server stops.", minimum=0, maximum=900,
        unit="seconds",
    )  # fmt: skip
    max_body: int = _setting(
        limits.CREATE_REQUEST_MAX + limits.MIB, "Largest request body.", minimum=limits.MIB, maximum=4 * _GIB,
        unit="bytes",
    )  # fmt: skip
    max_package: int = _setting(
        limits.ZIPPED_MAX, "Largest package as a zip archive.", minimum=1, maximum=4 * _GIB, unit="bytes"
    )
    max_unpacked: int = _setting(
        limits.UNZIPPED_MAX, "Largest package once unpacked, layers included.", minimum=1, maximum=64 * _GIB,
        unit="bytes",
    )  # fmt: skip
    code_store: str = _setting(
        "", "Where archives of packages are kept, if not in the data folder: a bucket (of 3 characters or "
        "more) and a prefix that no other server uses.", pattern=r"|s3://[a-z0-9][a-z0-9.-]{2,62}(/[\w!.*'()/-]*)?", unit="s3://bucket/prefix",
    )  # fmt: skip
    code_store_endpoint: str = _setting(
        "", "Where that store answers, if not at AWS.", pattern=r"|https?://\S+", unit="http://host:port"
    )
    code_store_keys: Mapping[str, str] = _keys_setting(
        "The one key pair for that store, as id:secret. None: the AWS credentials of the server's own environment."
    )
    code_cache_mb: int = _setting(
        0, "Unpacked packages kept on the disk; the least recently used go first, none in use. 0: any number.",
        minimum=0, maximum=1 << 30, unit="MB",
    )  # fmt: skip
    snapshot_memory_mb: int = _setting(
        2048, "Memory for snapshots of functions that are at hand; others are read from the disk when they are used.",
        minimum=0, maximum=1 << 30, unit="MB",
    )  # fmt: skip
    event_history: int = _setting(
        10_000, "Asynchronous events that are remembered once they are through, of each kind of end; the oldest go "
        "first.", minimum=100, maximum=10_000_000,
    )  # fmt: skip
    event_wait_scale: float = _setting(
        1.0, "What the waits between the attempts at an asynchronous event are multiplied by; 0.01 makes a test of "
        "retries quick.", minimum=0.0001, maximum=10.0,
    )  # fmt: skip
    missed_timers: MissedTimers = _setting(
        MissedTimers.ONCE, "What timers do about planned times that passed while the server was down: go off once for "
        "the last of them, for all (1,000 at most) or for none.",
    )  # fmt: skip
    webhook_secret: str = _setting(
        "", "File with the secret (whsec_ and Base64) that requests to web destinations are signed with. Empty: "
        "webhook.secret in the data folder, made when the server first starts.",
    )  # fmt: skip
    snapshot_key: str = _setting(
        "", "File with the 32 bytes that snapshots are encrypted with. Empty: snapshot.key in the data folder.",
    )  # fmt: skip


def table() -> tuple[Setting, ...]:
    """All settings in the order they are shown."""
    kinds = get_type_hints(Settings)
    rows = []
    for entry in fields(Settings):
        default = entry.default_factory() if callable(entry.default_factory) else entry.default
        rows.append(Setting(name=entry.name, kind=kinds[entry.name], default=default, **entry.metadata))
    return tuple(rows)


def resolve(
    flags: Mapping[str, str | bool | None] | None = None,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Settings:
    """The settings in force. `file` must exist if given; else `TORPOR_CONFIG` or ./torpor.toml is read, if there.

    Raises InvalidRequest for an unreadable file, an unknown key and a value that is malformed or out of range.
    """
    environ = os.environ if environ is None else environ
    flags = flags or {}
    path = _file(file, environ)
    in_file = _read_file(path) if path else {}
    values: dict[str, Any] = {}
    for row in table():
        given = flags.get(row.name)
        if given is not None:
            values[row.name] = row.read(given, row.flag)
        elif row.variable in environ:
            values[row.name] = row.read(environ[row.variable], row.variable)
        elif row.name in in_file:
            values[row.name] = row.read(in_file[row.name], f"{path}: {row.name}")
    return Settings(**values)


def require_safe_listening(settings: Settings) -> None:
    """Raises InvalidRequest if the server would be open to other machines without access keys."""
    if settings.access_keys or is_loopback(settings.host):
        return
    raise InvalidRequest(
        f"{settings.host} can be reached from other machines, and anyone there could run code here: set access keys "
        "(--access-keys ID:SECRET), or listen on 127.0.0.1.",
        what="host",
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server listening there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def local_port(url: str) -> int | None:
    """The port of a URL on this host's loopback; None for any other."""
    parts = urlsplit(url)
    if not is_loopback(parts.hostname or ""):
        return None
    return parts.port or (443 if parts.scheme == "https" else 80)


def _file(given: Path | None, environ: Mapping[str, str]) -> Path | None:
    if given is not None:
        return given
    if environ.get(FILE_VARIABLE):
        return Path(environ[FILE_VARIABLE])
    here = Path(FILE_NAME)
    return here if here.is_file() else None


def _read_file(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequest(f"The settings file {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InvalidRequest(f"The settings file {path} is not valid TOML: {error}.") from error
    known = {row.name for row in table()}
    unknown = sorted(set(values) - known)
    if unknown:
        raise InvalidRequest(f"{path}: unknown setting {', '.join(unknown)}; `torpor serve --help` lists all.")
    return values


@dataclass(frozen=True, slots=True)
class _Kind:
    text: str
    read: Callable[[Any], Any]


def _text(raw: Any) -> str:
    if not isinstance(raw, str):
        raise TypeError
    return raw


def _whole(raw: Any) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int | str):
        raise TypeError
    return int(raw)


def _real(raw: Any) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        raise TypeError
    value = float(raw)
    if not math.isfinite(value):
        raise ValueError
    return value


def _truth(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    word = _text(raw).strip().lower()
    if word not in _YES | _NO:
        raise ValueError
    return word in _YES


def _path(raw: Any) -> Path:
    if not _text(raw):
        raise ValueError
    return Path(raw).expanduser().absolute()


def _whole_list(raw: Any) -> tuple[int, ...]:
    return tuple(_whole(part) for part in _parts(raw))


def _key_pairs(raw: Any) -> Mapping[str, str]:
    pairs = [_text(part).partition(":")[::2] for part in _parts(raw)]
    if not all(identity and secret for identity, secret in pairs):
        raise ValueError
    return MappingProxyType(dict(pairs))


def _parts(raw: Any) -> Sequence[Any]:
    if isinstance(raw, list):
        return raw
    return [part.strip() for part in _text(raw).split(",") if part.strip()]


_KINDS: Mapping[Any, _Kind] = {
    str: _Kind("text", _text),
    int: _Kind("a whole number", _whole),
    float: _Kind("a number", _real),
    bool: _Kind("true or false", _truth),
    Path: _Kind("a path", _path),
    tuple[int, ...]: _Kind("whole numbers separated by commas, each", _whole_list),
    Mapping[str, str]: _Kind("id:secret pairs separated by commas", _key_pairs),
}


def _number(value: float) -> str:
    return f"{int(value)}" if value == int(value) else f"{value}"
