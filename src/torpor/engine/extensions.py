"""The in-sandbox API for extensions: HTTP calls in, machine events out, and the machine's notices as parked answers.

What is allowed when is the machine's to say; the endpoint knows who is who and what each is still to be told.
"""

import os
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from torpor.engine.contract import ExtensionWire
from torpor.lifecycle import EXTENSIONS, AgentCall, AgentState, TransitionRefused
from torpor.lifecycle.events import AgentFailed, AgentRegistered, Event, NextRequested
from torpor.model.errors import InvalidRequest
from torpor.model.function import FunctionVersion
from torpor.model.invocation import Invocation
from torpor.model.runtime_calls import ExtensionCall
from torpor.transport import Exchange

_JSON = (("Content-Type", "application/json"),)
_Message = tuple[list[tuple[str, str]], bytes]


class Host(Protocol):
    """What the endpoint needs of its environment."""

    @property
    def takes_registrations(self) -> bool:
        """May extensions register now?"""
        ...

    def feed(self, event: Event) -> None:
        """Pass an event to the machine. Raises TransitionRefused if it may not be."""
        ...


@dataclass(slots=True)
class _Extension:
    """A registered extension."""

    agent: str
    parked: Exchange | None = None
    """Its open request for an event."""
    untold: _Message | None = None
    """The event that it has not been told because no request of it was open."""
    failed: AgentState | None = None
    """Set once it has reported an error: nothing more is taken from it."""


class ExtensionsEndpoint:
    """One environment's Extensions API."""

    def __init__(
        self,
        host: Host,
        wire: ExtensionWire,
        version: FunctionVersion,
        deadline_ms: Callable[[float], int],
    ) -> None:
        self._host = host
        self._wire = wire
        self._version = version
        self._external: frozenset[str] = frozenset()
        self._deadline_ms = deadline_ms
        self._by_identifier: dict[str, _Extension] = {}
        self._by_agent: dict[str, _Extension] = {}

    def announce(self, external: Iterable[str]) -> None:
        """These agents are what the environment starts as processes."""
        self._external = frozenset(external)

    def handle(self, exchange: Exchange) -> None:
        """Answer a call, at once or, for an event, when there is one."""
        call = self._wire.parse_call(exchange.method, exchange.path)
        if call is ExtensionCall.REGISTER:
            self._register(exchange)
        elif call is ExtensionCall.UNKNOWN:
            exchange.reply(*self._wire.unrouted(exchange.method, exchange.path))
        else:
            self._identified(exchange, call)

    def caller(self, exchange: Exchange) -> str:
        """The agent that makes a call of another API; empty, and the call answered, if it is none or has failed."""
        identifier = exchange.headers.get(self._wire.IDENTIFIER_HEADER)
        extension = self._by_identifier.get(identifier.lower())
        if extension is None:
            _reply(exchange, 403, self._unidentified(identifier, ExtensionCall.UNKNOWN))
            return ""
        if extension.failed is not None:
            refused = TransitionRefused(extension.agent, extension.failed, AgentCall.NEXT)
            _reply(exchange, 403, self._wire.refusal(refused, identifier))
            return ""
        return extension.agent

    def notify_invoke(self, agent: str, invocation: Invocation, deadline: float) -> None:
        """Tell an extension of an invocation; `deadline` is a monotonic time."""
        message = self._wire.invoke_event(invocation, self._deadline_ms(deadline), str(uuid.uuid4()))
        self._tell(self._by_agent[agent], message)

    def notify_shutdown(self, agent: str, reason: str, deadline: float) -> None:
        """Tell an extension that the environment ends; `deadline` is a monotonic time."""
        self._tell(self._by_agent[agent], self._wire.shutdown_event(reason, self._deadline_ms(deadline)))

    def forget(self) -> None:
        """The processes start anew: former identifiers are worth nothing."""
        self._by_identifier.clear()
        self._by_agent.clear()

    # -- registration

    def _register(self, exchange: Exchange) -> None:
        name = exchange.headers.get(self._wire.NAME_HEADER)
        agent = EXTENSIONS + name
        try:
            refused = self._registered(agent, exchange) if name else self._wire.EMPTY_NAME
        except InvalidRequest as error:
            refused = self._wire.error_body(str(error), error.what)
        except TransitionRefused as error:
            refused = self._wire.refusal(error, name)
        if refused:
            _reply(exchange, 403, refused)

    def _refused(self, agent: str) -> bytes:
        """Why it may not register now; empty if it may."""
        if agent in self._external:
            return self._wire.TOO_MANY if self._is_full and agent not in self._by_agent else b""
        if not self._host.takes_registrations:
            return self._wire.REGISTRATION_CLOSED
        if agent in self._by_agent:
            return self._wire.NAME_TAKEN
        return self._wire.TOO_MANY if self._is_full else b""

    @property
    def _is_full(self) -> bool:
        return len(self._by_agent) >= self._wire.EXTENSIONS_MAX

    def _registered(self, agent: str, exchange: Exchange) -> bytes:
        """Register it; why that cannot be, empty if it could. Raises InvalidRequest and TransitionRefused too."""
        internal = agent not in self._external
        invoke, shutdown = self._wire.wanted_events(exchange.body, internal=internal)
        if refused := self._refused(agent):
            return refused
        self._host.feed(AgentRegistered(agent, invoke, shutdown, internal))
        identifier = str(uuid.uuid4())
        self._by_identifier[identifier] = self._by_agent[agent] = _Extension(agent)
        features = exchange.headers.get(self._wire.FEATURE_HEADER)
        exchange.reply(200, *self._wire.registered(self._version, identifier, features))
        return b""

    # -- calls of registered extensions

    def _identified(self, exchange: Exchange, call: ExtensionCall) -> None:
        identifier = exchange.headers.get(self._wire.IDENTIFIER_HEADER)
        extension = self._by_identifier.get(identifier.lower())
        if call is not ExtensionCall.NEXT and self._is_untyped(exchange, identifier):
            _reply(exchange, 403, self._wire.MISSING_ERROR_TYPE)
        elif extension is None:
            _reply(exchange, 403, self._unidentified(identifier, call))
        else:
            self._take(exchange, call, extension, identifier)

    def _take(self, exchange: Exchange, call: ExtensionCall, extension: _Extension, identifier: str) -> None:
        try:
            if call is ExtensionCall.NEXT:
                self._next(exchange, extension)
            else:
                self._failed(exchange, extension, starting=call is ExtensionCall.INIT_ERROR)
        except TransitionRefused as refused:
            _reply(exchange, 403, self._wire.refusal(refused, identifier))

    def _is_untyped(self, exchange: Exchange, identifier: str) -> bool:
        """Is it an error of somebody, known or not, that lacks its type?"""
        return self._wire.is_identifier(identifier) and not exchange.headers.get(self._wire.ERROR_TYPE_HEADER)

    def _unidentified(self, identifier: str, call: ExtensionCall) -> bytes:
        if not identifier:
            return self._wire.MISSING_IDENTIFIER
        if not self._wire.is_identifier(identifier):
            return self._wire.INVALID_IDENTIFIER
        return self._wire.unknown(identifier, call)

    def _next(self, exchange: Exchange, extension: _Extension) -> None:
        _check_alive(extension, AgentCall.NEXT)
        before = extension.parked
        if before is not None and not before.closed:
            raise TransitionRefused(extension.agent, AgentState.READY, AgentCall.NEXT)
        extension.parked = exchange
        try:
            self._host.feed(NextRequested(extension.agent))
        except TransitionRefused:
            extension.parked = None
            raise
        if extension.untold is not None and extension.parked is not None:
            self._tell(extension, extension.untold)

    def _failed(self, exchange: Exchange, extension: _Extension, *, starting: bool) -> None:
        _check_alive(extension, AgentCall.FAIL if starting else AgentCall.GIVE_UP)
        kind = self._wire.INIT_ERROR if starting else self._wire.EXIT_ERROR
        self._host.feed(AgentFailed(extension.agent, kind, exchange.body, starting))
        extension.failed = AgentState.FAILED if starting else AgentState.GAVE_UP
        _reply(exchange, 202, self._wire.ACCEPTED)

    def _tell(self, extension: _Extension, message: _Message) -> None:
        """Answer the open request; without one, or if its peer has gone, the next request is answered with it."""
        exchange, extension.parked = extension.parked, None
        told = exchange is not None and exchange.reply(200, *message)
        extension.untold = None if told else message


def external_extensions(layers: Iterable[str], folder: str) -> tuple[str, ...]:
    """The names of the regular files directly in `folder` of the merged layers (host paths, later ones win), sorted."""
    found: dict[str, bool] = {}
    for layer in layers:
        try:
            with os.scandir(f"{layer}/{folder}") as entries:
                found |= {entry.name: entry.is_file() for entry in entries}
        except OSError:
            continue  # most layers have no extensions
    return tuple(sorted(name for name, is_file in found.items() if is_file))


def _check_alive(extension: _Extension, call: AgentCall) -> None:
    if extension.failed is not None:
        raise TransitionRefused(extension.agent, extension.failed, call)


def _reply(exchange: Exchange, status: int, body: bytes) -> None:
    exchange.reply(status, _JSON, body)
