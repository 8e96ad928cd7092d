"""What all contracts have in common whose runtimes are servers: no poller, no extension, no worker that is known, and
nobody who subscribes to telemetry."""

from collections.abc import Mapping, Sequence

from torpor.model.entries import Entry
from torpor.model.function import FunctionVersion
from torpor.model.image import Image
from torpor.model.invocation import Invocation
from torpor.model.records import Record
from torpor.model.start import Start


class ServersOnly:
    """The part of a contract that says nothing."""

    __slots__ = ()

    wire = None
    extension_wire = None
    telemetry_wire = None

    def extension_variables(
        self,
        version: FunctionVersion,
        image: Image,
        *,
        paths: Mapping[str, str],
        api_address: str,
        start: Start = Start.ON_DEMAND,
    ) -> dict[str, str]:
        return {}

    def credentials_answer(
        self, version: FunctionVersion, given: str, environment: str, wall: float
    ) -> tuple[int, tuple[str, str], bytes]:
        raise NotImplementedError("servers have no snapshots")

    def framed_log_variable(self, version: FunctionVersion) -> str:
        return ""

    def worker_log_variable(self, version: FunctionVersion) -> str:
        return ""

    def is_connection_per_worker(self, version: FunctionVersion) -> bool:
        return False

    def is_traced(self, version: FunctionVersion) -> bool:
        return False

    def segments(
        self, version: FunctionVersion, invocation: Invocation, steps: Sequence[tuple[Record, float]]
    ) -> list[bytes]:
        return []

    def platform_events(self, entry: Entry) -> list[str]:
        return []

    def line_filter(self, version: FunctionVersion) -> None:
        """Lines have no levels that the platform knows."""
