"""The standard Lambda contract as the engine sees it: one object for policy, program, variables and words."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from torpor.contracts.lambda_ import (
    environment,
    extensions_api,
    failures,
    limits,
    policy,
    runtime_api,
    segments,
    snap_start,
    telemetry_api,
    tracing,
)
from torpor.contracts.lambda_.environment import Credentials
from torpor.contracts.lambda_.identifiers import random_digits
from torpor.contracts.lambda_.json_log import json_lines
from torpor.contracts.lambda_.log_facts import LogFacts
from torpor.contracts.lambda_.log_levels import is_wanted
from torpor.contracts.lambda_.platform_events import EventRules, PlatformEvent, platform_events
from torpor.contracts.lambda_.platform_log import LogStyle, PlatformLog, stamp
from torpor.model.entries import Entry
from torpor.model.failure import Failure, FailureKind
from torpor.model.function import FunctionVersion
from torpor.model.image import STANDARD, Image, Layout
from torpor.model.invocation import Invocation, OutcomeStatus
from torpor.model.policy import LifecyclePolicy, ScalingPolicy, WhenFull
from torpor.model.records import InitStarted, Record, RestoreStarted, RuntimeDone
from torpor.model.start import Start

BOOTSTRAPS = ("/var/runtime/bootstrap", *failures.BOOTSTRAPS)
_FILTER_THEMSELVES = ("python", "nodejs")
WRAPPER = "AWS_LAMBDA_EXEC_WRAPPER"


@dataclass(frozen=True, slots=True, kw_only=True)
class LambdaContract:
    """Standard Lambda, with this server's slice of the settings. Times in seconds."""

    credentials: Credentials
    init_limit: float = limits.INIT_LIMIT
    restore_limit: float = limits.RESTORE_LIMIT
    long_init_limit: float = limits.EXTENDED_INIT_FLOOR
    """Of an Init that no invocation waits for, unless the function's timeout is longer."""
    proactive_init: bool = False
    """Initialise one environment of a new version ahead of its first invocation."""
    single_use: bool = False
    clone: bool = True
    log: PlatformLog = field(default_factory=PlatformLog)
    endpoint_url: str = ""
    """Given to functions as their AWS endpoint if not empty."""
    token_key: bytes = b""
    """Out of this the tokens are made by which environments from snapshots get their credentials."""

    wire = runtime_api
    extension_wire = extensions_api
    telemetry_wire = telemetry_api
    server_wire = None
    logs_every_invocation = True
    files_max = limits.FILES_MAX
    processes_max = limits.PROCESSES_MAX

    def policy(self, version: FunctionVersion, start: Start = Start.ON_DEMAND) -> LifecyclePolicy:
        long = policy.extended_init_limit(version, self.long_init_limit)
        limit = self.init_limit if start is Start.ON_DEMAND else long
        return policy.lambda_policy(
            start, init_limit=limit, restore_limit=self.restore_limit, single_use=self.single_use
        )

    def scaling(self, version: FunctionVersion) -> ScalingPolicy:
        return ScalingPolicy(
            on_demand=True,
            when_full=WhenFull.REFUSE,
            minimum=version.minimum,
            kept_as=Start.PROVISIONED,
            starts_as=Start.RESTORED if version.is_restored else Start.ON_DEMAND,
            ahead=int(self.proactive_init and not version.minimum),
            maximum=version.maximum,
        )

    def image(self, runtime: str) -> str:
        return runtime

    def layout(self, version: FunctionVersion) -> Layout:
        return STANDARD

    def system(self, version: FunctionVersion, code: str) -> str:
        return ""

    def cpu_share(self, version: FunctionVersion) -> float:
        return policy.cpu_share(version)

    def may_clone(self, version: FunctionVersion) -> bool:
        """A wrapper program in front of the runtime needs a real start."""
        return self.clone and WRAPPER not in version.environment

    def program(self, version: FunctionVersion, image: Image, exists: Callable[[str], bool]) -> tuple[str, ...]:
        """The managed runtime's program, behind a wrapper if one is set, or the first `bootstrap` found (1.1, 6)."""
        if image.argv:
            wrapper = version.environment.get(WRAPPER)
            return image.wrapped(wrapper) if wrapper else image.argv
        return (next((path for path in BOOTSTRAPS if exists(path)), failures.NO_BOOTSTRAP),)

    def variables(
        self,
        version: FunctionVersion,
        image: Image,
        *,
        paths: Mapping[str, str],
        api_address: str,
        log_stream: str,
        port: int = 0,
        start: Start = Start.ON_DEMAND,
    ) -> dict[str, str]:
        return environment.runtime_variables(
            version,
            image=image.environment,
            paths=paths,
            api_address=api_address,
            log_stream=log_stream,
            endpoint_url=self.endpoint_url,
            start=start,
            access=self._access(version, api_address, start),
        )

    def _access(self, version: FunctionVersion, api_address: str, start: Start) -> Mapping[str, str]:
        """An environment that many are made from holds no credentials: each of those asks for its own."""
        if start in (Start.SAVED, Start.RESTORED):
            return snap_start.variables(api_address, self._token(version))
        return self.credentials.variables

    def _token(self, version: FunctionVersion) -> str:
        return snap_start.token_of(self.token_key, version) if version.is_restored else ""

    def credentials_answer(
        self, version: FunctionVersion, given: str, environment: str, wall: float
    ) -> tuple[int, tuple[str, str], bytes]:
        """What an environment from a snapshot is told that asks for its credentials with this token (2.8)."""
        return snap_start.credentials_answer(self.credentials, self._token(version), given, environment, wall)

    def extension_variables(
        self,
        version: FunctionVersion,
        image: Image,
        *,
        paths: Mapping[str, str],
        api_address: str,
        start: Start = Start.ON_DEMAND,
    ) -> dict[str, str]:
        own = self.variables(version, image, paths=paths, api_address=api_address, log_stream="", start=start)
        return environment.extension_variables(version, own)

    def framed_log_variable(self, version: FunctionVersion) -> str:
        return "" if version.runtime.startswith("provided") else environment.FRAMED_LOG_VARIABLE

    def worker_log_variable(self, version: FunctionVersion) -> str:
        return ""

    def is_connection_per_worker(self, version: FunctionVersion) -> bool:
        return False

    def log_stream(self, version: FunctionVersion, environment_id: str, wall: float) -> str:
        return environment.log_stream(version, environment_id, wall)

    def log_lines(self, entry: Entry) -> list[str]:
        record, version = entry.record, entry.version
        if type(record) is RuntimeDone and not _has_line(record, version):
            return []  # the most frequent record, so it is made for nothing as rarely as can be
        if version.log_format == "JSON":
            return json_lines(self.platform_events(entry), entry.wall, version.system_log_level)
        return self.log.render(record, _facts(entry), entry.wall)

    def platform_events(self, entry: Entry) -> list[PlatformEvent]:
        return platform_events(entry.record, _facts(entry), entry.wall, self._rules)

    def line_filter(self, version: FunctionVersion) -> Callable[[str], bool] | None:
        """Runtimes of two families leave lines below the level out themselves."""
        level = version.application_log_level
        if version.log_format != "JSON" or version.runtime.startswith(_FILTER_THEMSELVES):
            return None
        return lambda text: is_wanted(text, level)

    @property
    def _rules(self) -> EventRules:
        return EventRules(log=self.log)

    def is_traced(self, version: FunctionVersion) -> bool:
        return version.tracing == tracing.ACTIVE

    def segments(
        self, version: FunctionVersion, invocation: Invocation, steps: Sequence[tuple[Record, float]]
    ) -> list[bytes]:
        documents = segments.segments(version, invocation, steps, lambda: random_digits(16))
        return [msgspec.json.encode(document) for document in documents]

    def comments(self, version: FunctionVersion) -> None:
        """Nothing is added to what processes write."""

    def log_tail(self, lines: bytes) -> bytes:
        """The end of an invocation's log; a character that the cut would split is left out."""
        return lines[-limits.TAIL_LOG :].decode(errors="ignore").encode()

    def failure(self, failure: Failure, version: FunctionVersion, request_id: str, wall: float) -> tuple[str, bytes]:
        if failure.kind is FailureKind.TIMEOUT and self.log.style is LogStyle.OLD:
            body = failures.old_timeout_payload(request_id, stamp(wall), failure.limit)
            return failures.SANDBOX_TIMEOUT, body
        return failures.error_type(failure), failures.payload(failure, request_id)


def _facts(entry: Entry) -> LogFacts:
    return log_facts(entry, environment.initialization(entry.start))


def log_facts(entry: Entry, initialization: str) -> LogFacts:
    """What the lines of a record say beside it."""
    version = entry.version
    name = resource = ""
    if isinstance(entry.record, InitStarted | RestoreStarted):
        name, resource = environment.runtime_version(version)
    return LogFacts(
        function=version.function,
        version=version.version,
        memory_mb=version.memory_mb,
        memory_used_mb=entry.memory_mb,
        runtime_version=name,
        runtime_resource=resource,
        resource=f"{version.resource}:{version.version}",
        trace=entry.trace,
        initialization=initialization,
        tenant=version.tenant,
        instance=entry.stream,
    )


def _has_line(record: RuntimeDone, version: FunctionVersion) -> bool:
    if version.log_format != "JSON":
        return False
    return record.status is not OutcomeStatus.SUCCESS or version.system_log_level == "DEBUG"
