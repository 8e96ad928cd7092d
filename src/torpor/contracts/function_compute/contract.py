"""Function Compute as the engine sees it: one object for policy, program, variables and words."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torpor.contracts.function_compute import (
    environment,
    failures,
    invoking,
    limits,
    names,
    policy,
    runtimes,
)
from torpor.contracts.function_compute.environment import NO_CREDENTIALS, Credentials
from torpor.contracts.function_compute.failures import Cost
from torpor.contracts.function_compute.server_wire import FunctionComputeServerWire
from torpor.contracts.servers import ServersOnly
from torpor.model.entries import Entry
from torpor.model.failure import Failure, FailureKind
from torpor.model.function import FunctionVersion
from torpor.model.image import Image, Layout
from torpor.model.policy import LifecyclePolicy, ScalingPolicy
from torpor.model.records import InitEnded, InvocationEnded
from torpor.model.start import Start

_LOGGED = (FailureKind.TIMEOUT, FailureKind.EXIT, FailureKind.NO_ANSWER, FailureKind.CANCELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionComputeContract(ServersOnly):
    """Function Compute with this server's slice of the settings. Times in seconds."""

    credentials: Credentials = NO_CREDENTIALS
    start_limit: float = limits.START_LIMIT
    grace: float = limits.SHUTDOWN_GRACE
    instances: int = limits.INSTANCES
    idle_timeout: float = limits.IDLE_TIMEOUT

    logs_every_invocation = False
    files_max = limits.FILES_MAX
    processes_max = limits.PROCESSES_MAX

    @property
    def server_wire(self) -> FunctionComputeServerWire:
        return FunctionComputeServerWire(credentials=self.credentials)

    def policy(self, version: FunctionVersion, start: Start = Start.ON_DEMAND) -> LifecyclePolicy:
        return policy.instance_policy(version, start_limit=self.start_limit, grace=self.grace)

    def scaling(self, version: FunctionVersion) -> ScalingPolicy:
        return policy.scaling(version, together=self.instances, idle_timeout=self.idle_timeout)

    def cpu_share(self, version: FunctionVersion) -> float:
        return policy.cpu_share(version)

    def image(self, runtime: str) -> str:
        return runtimes.image_of(runtime)

    def layout(self, version: FunctionVersion) -> Layout:
        return runtimes.layout(version.runtime)

    def system(self, version: FunctionVersion, code: str) -> str:
        return ""

    def may_clone(self, version: FunctionVersion) -> bool:
        """The guests of built-in runtimes may be forks of a warm interpreter; a server of one's own is started."""
        return not runtimes.is_custom(version.runtime)

    def program(self, version: FunctionVersion, image: Image, exists: Callable[[str], bool]) -> tuple[str, ...]:
        """The configured command, else the built-in runtime's guest, else the package's `bootstrap`."""
        if version.server is not None and version.server.command:
            return version.server.command
        return (runtimes.BOOTSTRAP,) if runtimes.is_custom(version.runtime) else image.argv

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
        return environment.variables(
            version,
            image=image.environment,
            paths=paths,
            instance=log_stream,
            api_address="",
            port=port,
            credentials=self.credentials,
        )

    def log_stream(self, version: FunctionVersion, environment_id: str, wall: float) -> str:
        """One stream per instance, named as the instance."""
        return names.instance_id(environment_id, classic=names.is_classic(version))

    def log_lines(self, entry: Entry) -> list[str]:
        """Runtimes print their own marks; the platform adds only what no runtime could (1.6)."""
        record = entry.record
        failure = record.failure if isinstance(record, InvocationEnded | InitEnded) else None
        if failure is None:
            return []
        if isinstance(record, InvocationEnded):
            if failure.kind not in _LOGGED:
                return []
            cost = Cost(seconds=record.duration, memory_mb=entry.memory_mb)
            text = failures.run_failure(failure, cost)
            return [f"FC Invoke End RequestId: {record.id}, Error: {text}\n"]
        return [self._start_line(entry.version, failure)]

    def _start_line(self, version: FunctionVersion, failure: Failure) -> str:
        if failures.is_hooks(failure):
            return failures.hook_text(failure) + "\n"
        if failure.kind is FailureKind.EXIT:
            return failures.exit_text(failure, version) + "\n"
        return failures.start_failure(failure, version)[1].partition("\nLogs:")[0].partition(" Logs :")[0] + "\n"

    def comments(self, version: FunctionVersion) -> None:
        """Nothing is added to what processes write."""

    def log_tail(self, lines: bytes) -> bytes:
        """The end of an invocation's log; a character that the cut would split is left out."""
        return invoking.cut(lines)

    def failure(self, failure: Failure, version: FunctionVersion, request_id: str, wall: float) -> tuple[str, bytes]:
        return failures.told(failure, version, request_id)
