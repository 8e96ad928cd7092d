"""Web services as the engine sees them: one object for policy, program, variables, wire and words."""

import os.path
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torpor.contracts.servers import ServersOnly
from torpor.contracts.web import environment, failures, limits, platform_log, policy
from torpor.contracts.web.diagnosis import Diagnosis
from torpor.contracts.web.server_wire import WebWire
from torpor.model.entries import Entry
from torpor.model.failure import Failure
from torpor.model.function import FunctionVersion
from torpor.model.image import Image, Layout
from torpor.model.policy import LifecyclePolicy, ScalingPolicy
from torpor.model.start import Start

IMAGE = "server"
"""The image that has whatever interpreters the host has, and no client of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebContract(ServersOnly):
    """Web services, with this server's slice of the settings. Times in seconds."""

    start_limit: float = limits.START_LIMIT
    """From the start command to the first answer."""

    logs_every_invocation = False
    files_max = limits.FILES_MAX
    processes_max = limits.PROCESSES_MAX

    @property
    def server_wire(self) -> WebWire:
        return WebWire(self.start_limit)

    def policy(self, version: FunctionVersion, start: Start = Start.ON_DEMAND) -> LifecyclePolicy:
        return policy.policy(version, start_limit=self.start_limit)

    def scaling(self, version: FunctionVersion) -> ScalingPolicy:
        return policy.scaling(version)

    def image(self, runtime: str) -> str:
        return IMAGE

    def layout(self, version: FunctionVersion) -> Layout:
        """Not as root; a persistent service may write everywhere."""
        return Layout(code_at=environment.APP, writable=version.persistent)

    def system(self, version: FunctionVersion, code: str) -> str:
        """The build's changes to system folders, which it leaves beside the application."""
        folder = f"{code}/{environment.SYSTEM}"
        return folder if os.path.isdir(folder) else ""

    def cpu_share(self, version: FunctionVersion) -> float:
        return policy.cpu_share(version)

    def may_clone(self, version: FunctionVersion) -> bool:
        """Any program may be a server: none is warm already."""
        return False

    def program(self, version: FunctionVersion, image: Image, exists: Callable[[str], bool]) -> tuple[str, ...]:
        """Bash with the start command; to be started in a process group of its own, as Bash passes no signal on."""
        return version.server.command if version.server is not None else ()

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
        return environment.server_variables(version, image.environment, paths.get("task", environment.APP), port)

    def log_stream(self, version: FunctionVersion, environment_id: str, wall: float) -> str:
        return environment.log_stream(environment_id, wall)

    def log_lines(self, entry: Entry) -> list[str]:
        return platform_log.lines(entry.version, entry.record)

    def comments(self, version: FunctionVersion) -> Callable[[str], list[str]]:
        """Hints are added to what a server writes."""
        return Diagnosis(persistent=version.persistent).read

    def log_tail(self, lines: bytes) -> bytes:
        """Callers of services get no log."""
        return b""

    def failure(self, failure: Failure, version: FunctionVersion, request_id: str, wall: float) -> tuple[str, bytes]:
        """The error's code, whose status is `failures.status_of(code)`, and the text for the caller."""
        error = failures.error_of(version, failure)
        return error.code, error.body
