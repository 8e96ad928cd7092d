"""Requests by function URL: to whoever they are for as events, and answers back (9.10)."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from torpor.api.aws.attached import POLICY
from torpor.api.aws.invocations import Dispatcher, Invocations
from torpor.api.aws.url_registry import Found, UrlRegistry
from torpor.api.aws.url_reply import UrlReply, UrlStream
from torpor.api.bodies import BoundedSource
from torpor.api.exchanges import request_of
from torpor.contracts.lambda_ import limits
from torpor.contracts.lambda_.access import ANONYMOUS, is_allowed
from torpor.contracts.lambda_.failures_api import ApiFailure, code_of
from torpor.contracts.lambda_.http_prelude import MalformedPrelude
from torpor.contracts.lambda_.identifiers import new_request_id
from torpor.contracts.lambda_.names import FunctionName, Place
from torpor.contracts.lambda_.resource_policy import AUTH_TYPE, INVOKE_URL
from torpor.contracts.lambda_.signature import is_signed, signer_of, verify
from torpor.contracts.lambda_.url_answer import url_answer
from torpor.contracts.lambda_.url_config import AWS_IAM, NONE, RESPONSE_STREAM, UrlConfig
from torpor.contracts.lambda_.url_cors import preflight_fields
from torpor.contracts.lambda_.url_event import Signer, UrlRequest, url_event
from torpor.contracts.lambda_.url_failures import Forbidden, FunctionFailed, UnknownUrl
from torpor.contracts.lambda_.url_routing import UrlRoute, host_name, url_route
from torpor.contracts.lambda_.url_source import Source, source_of
from torpor.model.clock import Clock
from torpor.model.errors import NotFound, PlatformError, Throttled, TorporError
from torpor.model.function import FunctionRecord, FunctionVersion
from torpor.model.invocation import Invocation, Outcome, OutcomeStatus
from torpor.scheduling import ThrottleReason, TokenBucket
from torpor.service.attachments import Attachments
from torpor.service.functions import Functions
from torpor.transport import Exchange

_LARGE = 256 * 1024
"""Bodies from this size on, in bytes, become events in a thread, so that other calls go on meanwhile."""
_TOO_LARGE = f"Request must be smaller than {limits.REQUEST_MAX} bytes for the InvokeFunction operation"
_BUCKETS_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlParts:
    """What requests by URL need."""

    urls: UrlRegistry
    functions: Functions
    attachments: Attachments
    invocations: Invocations
    dispatcher: Dispatcher
    clock: Clock
    account: str
    keys: Mapping[str, str]
    """Secrets by access key id; with none, whoever signs is believed."""


@dataclass(slots=True, eq=False)
class _Call:
    """One request on its way."""

    route: UrlRoute
    found: Found
    config: UrlConfig
    record: FunctionRecord
    version: FunctionVersion
    reply: UrlReply
    source: Source
    trace: str
    upstream_trace: str
    stream: UrlStream | None = None

    @property
    def exchange(self) -> Exchange:
        return self.reply.exchange


class UrlTraffic:
    """Answers requests by URL. Never waits and never raises.

    A caller that goes away does not stop its function.
    """

    def __init__(self, parts: UrlParts) -> None:
        self._parts = parts
        self._rates = _Rates(parts.clock)
        self._running: set[asyncio.Task[None]] = set()

    def handle(self, exchange: Exchange) -> None:
        """Answer one request; see `url_routing.url_route` for which these are."""
        reply = UrlReply(exchange, new_request_id())
        try:
            call = self._called(exchange, reply)
        except Exception as error:
            reply.refuse(error)
            return
        if call is None:
            return
        if exchange.source is None:
            self._take(call, exchange.body)
        else:
            _Body(exchange, partial(self._take, call), reply.refuse)

    def _called(self, exchange: Exchange, reply: UrlReply) -> _Call | None:
        """What is asked; None if it has been answered. Raises what refuses it before its body is read."""
        route = url_route(exchange.headers.get("host"), exchange.target)
        found = None if route is None else self._parts.urls.find(route.identity)
        if route is None or found is None:
            raise UnknownUrl("There is no function URL of this id.")
        if found.config is None:
            raise Forbidden("The alias that the URL leads to was deleted.")
        config = found.config
        reply.cors = config.cors
        if exchange.method == "OPTIONS" and config.cors is not None:
            _answer_preflight(reply)
            return None
        self._admit(exchange, found, config)
        _check_declared(exchange)
        record, version, trace, upstream = self._leads_to(found, exchange.headers.get("x-amzn-trace-id"))
        reply.trace = trace
        source = source_of(exchange.peer, exchange.headers)
        return _Call(route, found, config, record, version, reply, source, trace, upstream)

    def _admit(self, exchange: Exchange, found: Found, config: UrlConfig) -> None:
        """Whether the caller may use it, as far as that is seen before the body is there. Raises Forbidden."""
        if config.auth == AWS_IAM:
            if not is_signed(request_of(exchange)) or (not self._parts.keys and _is_strange_page(exchange, config)):
                raise Forbidden("The URL takes signed requests only.")
            return
        policy = self._parts.attachments.find(POLICY, found.function, found.qualifier)
        if policy is None or not is_allowed(policy, INVOKE_URL, ANONYMOUS, {AUTH_TYPE: NONE}):
            raise Forbidden("No statement of the function's policy opens the URL to everyone.")

    def _leads_to(self, found: Found, trace: str) -> tuple[FunctionRecord, FunctionVersion, str, str]:
        named = FunctionName(name=found.function, qualifier=found.qualifier)
        try:
            region = self._parts.functions.get(found.function).latest.version.region
            place = Place(account=self._parts.account, region=region)
            return self._parts.invocations.resolve(named, place, trace)
        except (NotFound, ApiFailure) as error:
            if code_of(error) != "ResourceNotFoundException":
                raise
            raise Forbidden("What the URL leads to is gone.") from error

    def _take(self, call: _Call, body: bytes) -> None:
        """The body is there."""
        if len(body) < _LARGE:
            try:
                self._submit(call, self._event(call, body))
            except Exception as error:
                call.reply.refuse(error)
            return
        task = asyncio.get_running_loop().create_task(self._take_large(call, body))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _take_large(self, call: _Call, body: bytes) -> None:
        try:
            self._submit(call, await asyncio.to_thread(self._event, call, body))
        except Exception as error:
            call.reply.refuse(error)

    def _event(self, call: _Call, body: bytes) -> bytes:
        """The event of a request that may be made. Raises ApiFailure for one that may not."""
        if len(body) > limits.REQUEST_MAX:
            raise _too_large()
        exchange, now = call.exchange, self._parts.clock.wall()
        return url_event(
            UrlRequest(
                identity=call.route.identity,
                domain=_domain(call),
                method=exchange.method,
                target=call.route.target,
                headers=exchange.headers,
                body=body,
                source=call.source,
                signer=self._signer(call, body, now) if call.config.auth == AWS_IAM else None,
                request_id=call.reply.request_id,
                trace=call.trace,
                now=now,
            )
        )

    def _signer(self, call: _Call, body: bytes, now: float) -> Signer:
        """The owner's own keys need no statement of a policy. Raises ApiFailure."""
        request, keys = request_of(call.exchange, body), self._parts.keys
        access_key = verify(request, keys, now) if keys else signer_of(request)
        return Signer(access_key=access_key, account=self._parts.account, region=call.version.region)

    def _submit(self, call: _Call, event: bytes) -> None:
        self._rates.check(call.record)
        resource, qualifier = call.version.resource, call.found.qualifier
        call.stream = UrlStream(call.reply) if call.config.mode == RESPONSE_STREAM else None
        invocation = Invocation(
            id=call.reply.request_id,
            payload=event,
            resource=f"{resource}:{qualifier}" if qualifier else resource,
            trace=call.trace,
            upstream_trace=call.upstream_trace,
            qualifier=qualifier,
            sink=call.stream,
        )
        done = partial(_done, call)
        self._parts.dispatcher.submit(call.version, invocation, call.record.reserved_concurrency, done)


class _Body:
    """Collects the rest of a body that was served before it was complete."""

    __slots__ = ("_bounded", "_parts", "_refuse", "_take")

    def __init__(self, exchange: Exchange, take: Callable[[bytes], None], refuse: Callable[[Exception], None]) -> None:
        assert exchange.source is not None
        self._take = take
        self._refuse = refuse
        self._parts = [exchange.body]
        self._bounded = BoundedSource(exchange.source, limits.REQUEST_MAX - len(exchange.body))
        self._bounded.pump(self._parts.append, self._ended)

    def _ended(self, complete: bool) -> None:
        if complete:
            self._take(b"".join(self._parts))
        elif self._bounded.is_exceeded:
            self._refuse(_too_large())


@dataclass(slots=True)
class _Rates:
    """Requests a second to functions with reserved concurrency (8)."""

    clock: Clock
    buckets: dict[tuple[str, int], TokenBucket] = field(default_factory=dict)
    """By function and what it has reserved."""

    def check(self, record: FunctionRecord) -> None:
        """Raises Throttled. Without room for a single invocation that is said by whoever counts those."""
        if not record.reserved_concurrency:
            return
        key, now = (record.name, record.reserved_concurrency), self.clock.monotonic()
        rate = record.reserved_concurrency * limits.RATE_PER_CONCURRENCY
        bucket = self.buckets.get(key)
        if bucket is None:
            if len(self.buckets) >= _BUCKETS_MAX:
                self.buckets.clear()
            bucket = self.buckets[key] = TokenBucket(rate, rate, now)
        if not bucket.admits(1, now):
            message = f"{record.name} takes {rate} requests a second with its reserved concurrency."
            raise Throttled(message, reason=ThrottleReason.RESERVED_RATE)


def _answer_preflight(reply: UrlReply) -> None:
    headers, cors = reply.exchange.headers, reply.cors
    assert cors is not None
    wanted = headers.get("access-control-request-method"), headers.get("access-control-request-headers")
    fields = preflight_fields(cors, reply.origin, *wanted)
    reply.exchange.reply(200, [("x-amzn-RequestId", reply.request_id), *fields])


def _is_strange_page(exchange: Exchange, config: UrlConfig) -> bool:
    """Is it a request of a web page that the URL was not opened to? Anyone could make up a signature that a server
    without keys believes."""
    origin, site = exchange.headers.get("origin"), exchange.headers.get("sec-fetch-site") or "none"
    from_page = bool(origin) or site not in ("none", "same-origin")
    return from_page and not (config.cors is not None and config.cors.admits(origin))


def _check_declared(exchange: Exchange) -> None:
    declared = exchange.headers.get("content-length")
    if declared.isdecimal() and int(declared) > limits.REQUEST_MAX:
        raise _too_large()


def _too_large() -> ApiFailure:
    return ApiFailure("RequestTooLargeException", _TOO_LARGE)


def _domain(call: _Call) -> str:
    if call.route.by_path:
        return host_name(call.route.identity, call.version.region)
    name, _, port = call.exchange.headers.get("host").rpartition(":")
    return name if name and port.isdecimal() else call.exchange.headers.get("host")


def _done(call: _Call, result: Outcome | TorporError) -> None:
    """The function is through, or never began."""
    error = _failure(result)
    stream = call.stream
    if stream is not None and stream.begun:
        if error is None:
            stream.end()
        else:
            stream.fail(error)
    elif error is not None:
        call.reply.refuse(error)
    elif isinstance(result, Outcome):
        _answer(call.reply, result)


def _failure(result: Outcome | TorporError) -> TorporError | None:
    if isinstance(result, TorporError):
        return result
    if result.error_type:
        return FunctionFailed(f"The function has failed: {result.error_type}.")
    if result.status is OutcomeStatus.FAILURE:
        return PlatformError("The function could not be run because the platform failed. Send the request again.")
    return None


def _answer(reply: UrlReply, outcome: Outcome) -> None:
    try:
        answer = url_answer(outcome.payload, outcome.content_type)
    except MalformedPrelude as error:
        reply.refuse(error)
        return
    reply.send(*answer)
