"""Web services as the engine sees them: one object for policy, program, variables, probe and words."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torpor.contracts.web import environment, failures, limits, platform_log, policy, probe
from torpor.contracts.web.diagnosis import Diagnosis
from torpor.model.failure import Failure
from torpor.model.function import FunctionVersion
from torpor.model.image import Image
from torpor.model.invocation import Invocation
from torpor.model.policy import LifecyclePolicy, ScalingPolicy
from torpor.model.records import Record

IMAGE = "server"
"""The image that has whatever interpreters the host has, and no client of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebContract:
    """Web services, with this server's slice of the settings. Times in seconds."""

    start_limit: float = limits.START_LIMIT
    """From the start command to the first answer."""

    files_max = limits.FILES_MAX
    processes_max = limits.PROCESSES_MAX
    code_at = environment.APP
    as_root = False

    def policy(self, version: FunctionVersion) -> LifecyclePolicy:
        return policy.policy(version, start_limit=self.start_limit)

    def scaling(self, version: FunctionVersion) -> ScalingPolicy:
        return policy.scaling(version)

    def cpu_share(self, version: FunctionVersion) -> float:
        return policy.cpu_share(version)

    def may_clone(self, version: FunctionVersion) -> bool:
        """Any program may be a server: none is warm already."""
        return False

    def image(self, version: FunctionVersion) -> str:
        """The identifier of its image."""
        return IMAGE

    def writable(self, version: FunctionVersion) -> bool:
        """May its processes write more than `/tmp`?"""
        return version.persistent

    def working_folder(self, version: FunctionVersion) -> str:
        """Where the program is started, as seen inside."""
        return environment.APP

    def probe(self, version: FunctionVersion) -> probe.Probe:
        """How to find out that the server is there."""
        return probe.probe(environment.port(version), start_limit=self.start_limit)

    def response_limit(self, version: FunctionVersion) -> int | None:
        """Bytes that the body of an answer may have; None for as many as it likes."""
        return policy.response_limit(version)

    def program(self, version: FunctionVersion, image: Image, exists: Callable[[str], bool]) -> tuple[str, ...]:
        """Bash with the start command; to be started in a process group of its own, as Bash passes no signal on."""
        return version.server.command if version.server is not None else ()

    def variables(
        self, version: FunctionVersion, image: Image, *, paths: Mapping[str, str], api_address: str, log_stream: str
    ) -> dict[str, str]:
        return environment.server_variables(version, image.environment, paths.get("task", environment.APP))

    def extension_variables(
        self, version: FunctionVersion, image: Image, *, paths: Mapping[str, str], api_address: str
    ) -> dict[str, str]:
        """Services have no extensions."""
        return {}

    def framed_log_variable(self, version: FunctionVersion) -> str:
        return ""

    def log_stream(self, version: FunctionVersion, environment_id: str, wall: float) -> str:
        return environment.log_stream(environment_id, wall)

    def log_lines(
        self, version: FunctionVersion, image: Image, record: Record, *, wall: float, memory_mb: int, trace: str = ""
    ) -> list[str]:
        return platform_log.lines(version, record)

    def diagnosis(self, version: FunctionVersion) -> Diagnosis:
        """Reads the output of one environment of the version and adds hints to it."""
        return Diagnosis(persistent=version.persistent)

    def is_traced(self, version: FunctionVersion) -> bool:
        return False

    def segments(
        self, version: FunctionVersion, invocation: Invocation, steps: Sequence[tuple[Record, float]]
    ) -> list[bytes]:
        return []

    def log_tail(self, lines: bytes) -> bytes:
        """As much of a server's last output as is told with a failure."""
        return lines[-limits.OUTPUT_BYTES :]

    def server_failure(
        self, version: FunctionVersion, failure: Failure, *, starting: bool, output: bytes
    ) -> tuple[str, bytes]:
        """The error's code (its status: `failures.status_of`) and the text for the caller.

        `starting` tells that the server had not become ready; `output` is what it wrote last.
        """
        word = failures.start_error if starting else failures.request_error
        error = word(version, failure, output)
        return error.code, error.body
