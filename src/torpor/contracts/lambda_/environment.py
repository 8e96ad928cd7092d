"""What an environment is given: its variables, its log stream, its first process (contract 5, 6)."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from torpor.model.function import FunctionVersion
from torpor.model.start import Start

XRAY_DAEMON = "169.254.100.1"
XRAY_PORT = "2000"

_OVERRIDABLE = {
    "TZ": ":UTC",
    "LANG": "en_US.UTF-8",
    "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
    "LD_LIBRARY_PATH": "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib",
    "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
    "AWS_XRAY_DAEMON_ADDRESS": f"{XRAY_DAEMON}:{XRAY_PORT}",
}

RESERVED = frozenset(
    {
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_MAX_CONCURRENCY",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
    }
)
"""Names a customer may not set."""

_NOT_FOR_EXTENSIONS = frozenset(
    {
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_LOG_FORMAT",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_LEVEL",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_XRAY_CONTEXT_MISSING",
        "AWS_XRAY_DAEMON_ADDRESS",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
        "PWD",
        "SHLVL",
    }
)
_RUNTIME_OWN = frozenset({"LC_CTYPE", "NODE_PATH", "PYTHONPATH"})
"""Set for the runtime's language; an extension has them only if the customer set them."""

FRAMED_LOG_VARIABLE = "_LAMBDA_TELEMETRY_LOG_FD"
WORKER_LOG_VARIABLE = "_LAMBDA_TELEMETRY_LOG_FD_PROVIDER_SOCKET"

ON_DEMAND = "on-demand"
MANAGED = "lambda-managed-instances"
"""The type of initialisation of managed instances, as functions and logs see it."""
SNAPSHOT = "snap-start"
"""The type of initialisation of environments that are saved, and of those that go on from there."""
_TYPES = {
    Start.ON_DEMAND: ON_DEMAND,
    Start.PROVISIONED: "provisioned-concurrency",
    Start.SAVED: SNAPSHOT,
    Start.RESTORED: SNAPSHOT,
}

_INITIALIZATION_TYPE = "AWS_LAMBDA_INITIALIZATION_TYPE"
_LOG_FORMAT = "AWS_LAMBDA_LOG_FORMAT"
_LOG_LEVEL = "AWS_LAMBDA_LOG_LEVEL"
_MAX_CONCURRENCY = "AWS_LAMBDA_MAX_CONCURRENCY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What functions sign their own calls with. Not secret: they open nothing outside the configured endpoint."""

    access_key: str
    secret_key: str
    session_token: str

    @property
    def variables(self) -> dict[str, str]:
        """By the names that the cloud's clients read."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_SESSION_TOKEN": self.session_token,
        }


def runtime_variables(
    version: FunctionVersion,
    *,
    image: Mapping[str, str],
    paths: Mapping[str, str],
    api_address: str,
    log_stream: str,
    endpoint_url: str = "",
    start: Start = Start.ON_DEMAND,
    access: Mapping[str, str],
) -> dict[str, str]:
    """The runtime's variables, merged as contract 6 orders: customer, then platform, credentials, reserved; `access`
    are the credentials, or what leads to them."""
    managed = not version.runtime.startswith("provided")
    variables = {**_OVERRIDABLE, **image, **version.environment}
    variables |= access
    variables |= {
        "AWS_REGION": version.region,
        "AWS_DEFAULT_REGION": version.region,
        "AWS_LAMBDA_FUNCTION_NAME": version.function,
        "AWS_LAMBDA_FUNCTION_VERSION": version.version,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(version.memory_mb),
        _INITIALIZATION_TYPE: initialization(start),
        "AWS_LAMBDA_LOG_GROUP_NAME": version.log_group,
        "AWS_LAMBDA_LOG_STREAM_NAME": log_stream,
        "AWS_LAMBDA_RUNTIME_API": api_address,
        "LAMBDA_TASK_ROOT": paths["task"],
        "LAMBDA_RUNTIME_DIR": paths["runtime"],
        "_HANDLER": version.handler,
        "_AWS_XRAY_DAEMON_ADDRESS": XRAY_DAEMON,
        "_AWS_XRAY_DAEMON_PORT": XRAY_PORT,
        "PWD": paths["task"],
        "SHLVL": "0",
    }
    if managed:
        variables["AWS_EXECUTION_ENV"] = f"AWS_Lambda_{version.runtime}"
    if version.log_format == "JSON":
        variables[_LOG_FORMAT] = "JSON"
        if version.application_log_level:
            variables[_LOG_LEVEL] = version.application_log_level
    if endpoint_url:
        variables.setdefault("AWS_ENDPOINT_URL", endpoint_url)
    return variables


def initialization(start: Start) -> str:
    """The type of a standard environment's initialisation, as functions and logs see it."""
    return _TYPES[start]


def extension_variables(version: FunctionVersion, runtime: Mapping[str, str]) -> dict[str, str]:
    """An external extension's variables, out of the runtime's: what is the function's own stays out (contract 6)."""
    return {
        name: value
        for name, value in runtime.items()
        if not name.startswith("_")
        and name not in _NOT_FOR_EXTENSIONS
        and (name not in _RUNTIME_OWN or name in version.environment)
    }


def managed_variables(version: FunctionVersion, standard: Mapping[str, str]) -> dict[str, str]:
    """A managed instance's variables, out of the standard ones; its log format is the customer's to override."""
    return {
        **standard,
        _INITIALIZATION_TYPE: MANAGED,
        _MAX_CONCURRENCY: str(version.concurrency),
        _LOG_FORMAT: version.environment.get(_LOG_FORMAT, "JSON"),
    }


def managed_extension_variables(version: FunctionVersion, runtime: Mapping[str, str]) -> dict[str, str]:
    """An external extension's variables in a managed instance: it knows the log format, but is no worker."""
    own = extension_variables(version, runtime)
    own.pop(_MAX_CONCURRENCY, None)
    return own | {name: runtime[name] for name in (_LOG_FORMAT, _LOG_LEVEL) if name in runtime}


def log_stream(version: FunctionVersion, environment_id: str, wall: float) -> str:
    """`YYYY/MM/DD/[<version>]<32 hex>`: one stream per environment (contract 5)."""
    return f"{datetime.fromtimestamp(wall, UTC):%Y/%m/%d}/[{version.version}]{environment_id}"


def runtime_version(version: FunctionVersion, build: str) -> tuple[str, str]:
    """Name and ARN of the runtime's version; the digest stands for the interpreter's build."""
    runtime = version.runtime
    family = runtime.rstrip("0123456789.x") if not runtime.startswith("provided") else "provided"
    number = runtime[len(family) :].lstrip(".").removesuffix(".x") or "al1"
    digest = hashlib.sha256(f"{runtime} {build}".encode()).hexdigest()
    return f"{family}:{number}.v1", f"arn:aws:lambda:{version.region}::runtime:{digest}"
