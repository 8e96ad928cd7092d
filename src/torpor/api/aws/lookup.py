"""Functions and versions as calls name them, and how they are shown."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from torpor.api.aws.call import Call, about
from torpor.contracts.lambda_ import capacity, rendering
from torpor.contracts.lambda_.failures_api import alias_not_found, function_not_found, not_in_state, update_in_progress
from torpor.contracts.lambda_.names import FunctionName
from torpor.contracts.lambda_.rendering import Moment
from torpor.model.function import LATEST, FunctionRecord, FunctionVersion, VersionRecord
from torpor.service.functions import Functions
from torpor.service.states import PENDING, VersionStates


class States(Protocol):
    """Knows how far the environments of a managed version are."""

    def __call__(self, version: FunctionVersion, /) -> tuple[str, str, str]:
        """State (`Pending`, `Active`, `Failed`, …), reason and reason's code; the last two may be empty."""
        ...


def always_active(_version: FunctionVersion) -> tuple[str, str, str]:
    """For servers without managed instances."""
    return "Active", "", ""


class Lookup:
    """Finds and shows what operations are about."""

    def __init__(self, functions: Functions, states: States, version_states: VersionStates) -> None:
        """`states` are those of managed versions, `version_states` those of the others."""
        self._functions = functions
        self.states = states
        self._version_states = version_states

    def record(self, call: Call, named: FunctionName) -> FunctionRecord:
        """The function, whatever its qualifier. Raises ApiFailure."""
        with about(call, named):
            return self._functions.get(named.name)

    def version(self, call: Call, named: FunctionName) -> VersionRecord:
        """The version named; an alias stands for its first one. Raises ApiFailure."""
        record = self.record(call, named)
        alias = record.aliases.get(named.qualifier)
        with about(call, named):
            return self._functions.resolve(record.name, alias.version if alias else named.qualifier)

    def arn(self, call: Call, named: FunctionName) -> str:
        """The ARN of what is named: the function, or one of its versions or aliases. Raises ApiFailure."""
        record, arn = self.record(call, named), call.place.function_arn(named.name, named.qualifier)
        if named.qualifier in ("", LATEST) or named.qualifier in record.versions or named.qualifier in record.aliases:
            return arn
        if named.qualifier.isdecimal() or named.qualifier.startswith("$"):
            raise function_not_found(arn)
        raise alias_not_found(arn)

    def shown(self, kept: VersionRecord, moment: Moment, qualifier: str = "") -> dict[str, Any]:
        """A version's configuration; the ARN carries `qualifier`, or the version's own if it is a published one."""
        version = kept.version
        if version.version != LATEST:
            qualifier = qualifier or version.version
            if version.contract == capacity.CONTRACT and moment is not Moment.LISTED:
                return rendering.configuration(kept, moment, qualifier, self.states(version))
        elif moment is Moment.SETTLED and self._version_states.is_updating(version.function):
            moment = Moment.UPDATED
        state = self._version_states.of(version)
        told = None if state.is_active or moment is Moment.LISTED else (state.name, state.reason, state.code)
        return rendering.configuration(kept, moment, qualifier, told)

    @contextmanager
    def updating(self, call: Call, named: FunctionName) -> Iterator[FunctionRecord]:
        """While the body changes the function, other changes are refused. Raises ApiFailure if it cannot be changed
        now, because somebody is at it or it is not there or not active."""
        record = self.record(call, named)
        state = self._version_states.of(record.latest.version)
        if state.name == PENDING:
            raise not_in_state(state.name)
        if self._version_states.is_updating(named.name):
            raise update_in_progress(call.place.function_arn(named.name))
        with self._version_states.updating(named.name):
            yield record


def published(record: FunctionRecord) -> Iterator[tuple[str, VersionRecord]]:
    """Every version of a function with a key by which they sort: the newest, unpublished one first, then by number."""
    yield f"{record.name}\0", record.latest
    for number, kept in record.versions.items():
        yield f"{record.name}\0{number:0>20}" if number.isdecimal() else f"{record.name}\0!{number}", kept
