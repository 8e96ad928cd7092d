"""Managed instances: how their environments differ from the standard ones, and nothing else (contract 1.6, 2.6)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torpor.contracts.lambda_ import (
    environment,
    failures,
    limits,
    managed_extensions,
    managed_telemetry,
    policy,
    runtime_api,
)
from torpor.contracts.lambda_.contract import LambdaContract, log_facts
from torpor.contracts.lambda_.json_log import json_lines
from torpor.contracts.lambda_.platform_events import EventRules, PlatformEvent, platform_events
from torpor.model.entries import Entry
from torpor.model.failure import Failure, FailureKind
from torpor.model.function import FunctionVersion
from torpor.model.image import STANDARD, Image, Layout
from torpor.model.invocation import Invocation
from torpor.model.policy import LifecyclePolicy, ScalingPolicy, WhenFull
from torpor.model.records import Record
from torpor.model.start import Start

OUT_OF_MEMORY = "Runtime.OutOfMemory"


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagedContract:
    """Lambda Managed Instances: several invocations at once in an environment that never rests."""

    standard: LambdaContract
    """Says what is the same."""

    wire = runtime_api
    extension_wire = managed_extensions
    telemetry_wire = managed_telemetry
    server_wire = None
    logs_every_invocation = True
    files_max = limits.FILES_MAX
    processes_max = limits.PROCESSES_MAX + limits.MANAGED_CONCURRENCY_MAX
    """Each worker may be a process of its own."""

    def policy(self, version: FunctionVersion, start: Start = Start.ON_DEMAND) -> LifecyclePolicy:
        return policy.managed_policy(version, self.standard.long_init_limit)

    def scaling(self, version: FunctionVersion) -> ScalingPolicy:
        return ScalingPolicy(
            on_demand=False, when_full=WhenFull.REFUSE, minimum=version.minimum, maximum=version.maximum, counted=False
        )

    def image(self, runtime: str) -> str:
        return self.standard.image(runtime)

    def layout(self, version: FunctionVersion) -> Layout:
        return STANDARD

    def system(self, version: FunctionVersion, code: str) -> str:
        return ""

    def cpu_share(self, version: FunctionVersion) -> float:
        return self.standard.cpu_share(version)

    def may_clone(self, version: FunctionVersion) -> bool:
        """Runtime clients make their workers at their own start."""
        return False

    def program(self, version: FunctionVersion, image: Image, exists: Callable[[str], bool]) -> tuple[str, ...]:
        return self.standard.program(version, image, exists)

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
        own = self.standard.variables(version, image, paths=paths, api_address=api_address, log_stream=log_stream)
        return environment.managed_variables(version, own)

    def extension_variables(
        self,
        version: FunctionVersion,
        image: Image,
        *,
        paths: Mapping[str, str],
        api_address: str,
        start: Start = Start.ON_DEMAND,
    ) -> dict[str, str]:
        own = self.variables(version, image, paths=paths, api_address=api_address, log_stream="")
        return environment.managed_extension_variables(version, own)

    def framed_log_variable(self, version: FunctionVersion) -> str:
        """Workers open logs of their own."""
        return ""

    def worker_log_variable(self, version: FunctionVersion) -> str:
        return "" if version.runtime.startswith("provided") else environment.WORKER_LOG_VARIABLE

    def is_connection_per_worker(self, version: FunctionVersion) -> bool:
        """Workers that are processes keep one connection each; threads and tasks may share theirs."""
        return version.runtime.startswith("python")

    def log_stream(self, version: FunctionVersion, environment_id: str, wall: float) -> str:
        return self.standard.log_stream(version, environment_id, wall)

    def log_lines(self, entry: Entry) -> list[str]:
        """Always in JSON."""
        return json_lines(self.platform_events(entry), entry.wall, entry.version.system_log_level)

    def platform_events(self, entry: Entry) -> list[PlatformEvent]:
        return platform_events(entry.record, log_facts(entry, environment.MANAGED), entry.wall, _RULES)

    def line_filter(self, version: FunctionVersion) -> Callable[[str], bool] | None:
        return self.standard.line_filter(version)

    def is_traced(self, version: FunctionVersion) -> bool:
        return self.standard.is_traced(version)

    def segments(
        self, version: FunctionVersion, invocation: Invocation, steps: Sequence[tuple[Record, float]]
    ) -> list[bytes]:
        return self.standard.segments(version, invocation, steps)

    def credentials_answer(
        self, version: FunctionVersion, given: str, environment: str, wall: float
    ) -> tuple[int, tuple[str, str], bytes]:
        return self.standard.credentials_answer(version, given, environment, wall)

    def comments(self, version: FunctionVersion) -> None:
        """Nothing is added to what processes write."""

    def log_tail(self, lines: bytes) -> bytes:
        return self.standard.log_tail(lines)

    def failure(self, failure: Failure, version: FunctionVersion, request_id: str, wall: float) -> tuple[str, bytes]:
        kind = error_type(failure)
        return kind, failures.posted(failure) or failures.told(kind, error_text(failure), request_id)


def error_type(failure: Failure) -> str:
    """The error type that names this failure (5.4)."""
    if failure.kind is FailureKind.EXIT and failure.agent == "runtime" and failure.out_of_memory:
        return OUT_OF_MEMORY
    return failures.error_type(failure)


def error_text(failure: Failure) -> str:
    """One line that says what went wrong; how a runtime ended begins in lower case here (5.4)."""
    text = failures.error_text(failure)
    if failure.kind is FailureKind.EXIT and failure.agent == "runtime":
        return text[:1].lower() + text[1:]
    return text


_RULES = EventRules(error_type=error_type)
