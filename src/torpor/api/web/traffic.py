"""The services' own traffic: requests by `N.localhost` or `/services/N/` go to their server, and its answers back."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from torpor.api.bodies import BoundedSource
from torpor.api.relay import CallerRelay
from torpor.contracts.lambda_.identifiers import new_request_id
from torpor.contracts.web import failures
from torpor.contracts.web.failures import ServiceError
from torpor.contracts.web.forwarded import REQUEST_ID, Forwarded, request_lines, wanted_upgrade
from torpor.contracts.web.names import SPACE
from torpor.contracts.web.policy import request_limit
from torpor.contracts.web.routing import Route, completed, prefix, relocated, route
from torpor.engine.groups import Request
from torpor.model.errors import NotFound, TorporError
from torpor.model.function import FunctionRecord, FunctionVersion
from torpor.model.invocation import HttpRequest, Invocation, Outcome
from torpor.service.functions import Functions
from torpor.transport import AnyHeaders, Exchange, Headers, header_lines

Done = Callable[[Outcome | TorporError], None]
_SCHEME = "http"
_MOVED = (201, *range(300, 400))
"""Statuses whose Location leads on."""


class Dispatcher(Protocol):
    """The single way in, as this face uses it."""

    def submit(
        self, version: FunctionVersion, invocation: Invocation, reserved: int | None, done: Done
    ) -> Request | None: ...

    def cancel(self, request: Request) -> None: ...


def is_traffic(exchange: Exchange) -> Route | None:
    """The service a request is for, and what its server sees of the path; None if it is for no service."""
    return route(exchange.headers.get("host"), exchange.target)


def streams(method: str, path: str, headers: Headers) -> bool:
    """Is a request passed on while its body still arrives?"""
    return route(headers.get("host"), path) is not None


class Traffic:
    """Passes requests on. Never waits and never raises."""

    def __init__(self, functions: Functions, dispatcher: Dispatcher) -> None:
        self._functions = functions
        self._dispatcher = dispatcher

    def handle(self, exchange: Exchange, name: str, target: str) -> None:
        """Pass one request on to the service `name`; see `is_traffic`."""
        identity = new_request_id()
        try:
            record = self._functions.get(SPACE + name)
        except NotFound:
            _refuse(exchange, identity, failures.no_such_service(name))
            return
        if target is not exchange.target and _is_page(exchange) and (place := completed(name, exchange.target)):
            exchange.reply(308, (("Location", place), (REQUEST_ID, identity)))
            return
        asked, version = _asked(exchange), record.latest.version
        limit = request_limit(version)
        if asked.upgrade and not version.persistent:
            _refuse(exchange, identity, failures.upgrade_refused(name))
        elif limit is not None and (asked.length > limit or len(exchange.body) > limit):
            _refuse(exchange, identity, failures.request_too_large())
        else:
            self._pass_on(exchange, asked, record, identity, target, name if target is not exchange.target else "")

    def _pass_on(
        self, exchange: Exchange, asked: "_Asked", record: FunctionRecord, identity: str, target: str, by_path: str
    ) -> None:
        """`by_path` is the service's name if the path named it."""
        version, payload = record.latest.version, exchange.body
        relay = PathRelay(exchange, by_path) if by_path else CallerRelay(exchange)
        source = _source(exchange, version) if exchange.source is not None else None
        http = HttpRequest(
            method=exchange.method,
            target=target,
            lines=asked.forwarded.of(identity, prefix(by_path) if by_path else ""),
            relay=relay,
            body=source,
            length=len(payload) if source is None else asked.declared,
            upgrade=asked.upgrade,
            peer=asked.peer,
        )
        invocation = Invocation(id=identity, payload=payload, resource=version.resource, http=http)
        done = partial(_done, exchange, version, relay, source, identity)
        request = self._dispatcher.submit(version, invocation, record.reserved_concurrency, done)
        if request is not None and not exchange.closed:
            exchange.on_disconnect = partial(self._dispatcher.cancel, request)


class PathRelay(CallerRelay):
    """For requests below `/services/N/`: where an answer leads to, begins so as well."""

    __slots__ = ("_host", "_name")

    def __init__(self, exchange: Exchange, name: str) -> None:
        super().__init__(exchange)
        self._name = name
        self._host = exchange.headers.get("host")

    def head(self, status: int, fields: AnyHeaders, length: int | None) -> None:
        if status in _MOVED:
            fields = relocated(header_lines(fields), self._name, self._host)
        super().head(status, fields, length)


def _is_page(exchange: Exchange) -> bool:
    """Is it a browser that asks for what it will show?"""
    return exchange.method in ("GET", "HEAD") and "text/html" in exchange.headers.get("accept")


@dataclass(slots=True)
class _Asked:
    """What a request's fields say, read once for all requests that repeat them."""

    peer: str
    forwarded: Forwarded
    upgrade: str
    """The protocol that the caller wants to change to; empty if none."""
    declared: int | None
    """Bytes of the whole body as the head says; None if it comes in chunks, or not at all."""
    length: int


def _asked(exchange: Exchange) -> _Asked:
    headers = exchange.headers
    asked = headers.kept
    if type(asked) is not _Asked:
        peer, length = exchange.peer, headers.get("content-length")
        declared = int(length) if length.isdigit() else None
        asked = headers.kept = _Asked(
            peer=peer,
            forwarded=request_lines(headers.raw, peer=peer, scheme=_SCHEME, host=headers.get("host")),
            upgrade=wanted_upgrade(headers.get("connection"), headers.get("upgrade")),
            declared=declared,
            length=declared or 0,
        )
    return asked


def _source(exchange: Exchange, version: FunctionVersion) -> BoundedSource | None:
    """What follows of the body, within the limit for all of it."""
    if exchange.source is None:
        return None
    limit = request_limit(version)
    return BoundedSource(exchange.source, None if limit is None else limit - len(exchange.body))


def _done(
    exchange: Exchange,
    version: FunctionVersion,
    relay: CallerRelay,
    source: BoundedSource | None,
    identity: str,
    result: Outcome | TorporError,
) -> None:
    """The invocation is over. What came of it has gone out already, unless it failed."""
    if isinstance(result, Outcome) and result.failure is None:
        return
    if relay.begun:
        relay.fail()
    elif source is not None and source.is_exceeded:
        _refuse(exchange, identity, failures.request_too_large())
    elif isinstance(result, TorporError):
        _refuse(exchange, identity, failures.refusal(result))
    elif result.failure is not None:
        _refuse(exchange, identity, failures.error_of(version, result.failure))


def _refuse(exchange: Exchange, identity: str, error: ServiceError) -> None:
    fields = (("Content-Type", failures.TYPE), (REQUEST_ID, identity), *failures.extra_fields(error))
    exchange.reply(failures.status_of(error.code), fields, error.body)
