"""Requests of the Function Compute API and of functions' callers in, answers out; no sockets."""

import asyncio
import logging
import random
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import parse_qsl, unquote

from torpor.api.aws.code_links import CodeLinks
from torpor.api.aws.objects import ObjectSource
from torpor.api.fc.async_calls import AsyncCalls
from torpor.api.fc.async_config import AsyncConfigOperations, Desk, TaskOperations
from torpor.api.fc.call import Call, Handler, render_reply
from torpor.api.fc.domains import DomainOperations
from torpor.api.fc.functions import FunctionOperations
from torpor.api.fc.http_calls import HttpCalls
from torpor.api.fc.invocations import Dispatcher, Invocations, InvokeCall, Watch, report
from torpor.api.fc.layers import LINK, LayerOperations
from torpor.api.fc.packages import PackageSource
from torpor.api.fc.registry import Instances, Registry
from torpor.api.fc.resources import ResourceOperations
from torpor.api.fc.routes import Router
from torpor.api.fc.scaling import ScalingOperations
from torpor.api.fc.services import AliasOperations, ServiceOperations, VersionOperations
from torpor.api.fc.triggers import TriggerOperations
from torpor.api.relay import Caller
from torpor.contracts.function_compute import invoking, limits, names
from torpor.contracts.function_compute.api_failures import (
    REQUEST_ID,
    ApiFailure,
    not_supported,
    render_failure,
    too_large,
)
from torpor.contracts.function_compute.names import Generation, Place
from torpor.contracts.function_compute.signing import verify
from torpor.contracts.http import ApiRequest, ApiResponse
from torpor.model.clock import Clock
from torpor.model.event import Event
from torpor.model.event_origin import EventOrigin
from torpor.service.events.port import Intake
from torpor.service.functions import Functions
from torpor.service.layers import Layers
from torpor.service.resources import Resources
from torpor.service.timers import Timers

_LOG = logging.getLogger(__name__)
Timed = Callable[[Sequence[Event], str, float], None]
"""Takes the events of a timer that goes off, the timer's name and the planned time."""
CODE_PREFIX = "/_torpor/fc-code/"
_OWN_PATHS = (*(f"/{generation}/" for generation in Generation), CODE_PREFIX)
_LARGE = 256 * 1024
"""Bodies from this size on, in bytes, are checked and decoded in a thread, so that other calls go on meanwhile."""
_INVOKE_CLASSIC = re.compile(r"/(2016-08-15|2021-04-06)/services/([^/]+)/functions/([^/]+)/invocations")
_INVOKE = re.compile(r"/2023-03-30/functions/([^/]+)/invocations")


@dataclass(frozen=True, slots=True, kw_only=True)
class FcSettings:
    """What a server's owner decides about this API."""

    account: str = "0000000000000000"
    region: str = "cn-hangzhou"
    keys: Mapping[str, str] = field(default_factory=dict)
    """Secrets by access key id; with none, signatures are not verified."""
    public_url: str = ""
    """How callers reach the server, for links; by default what the request's Host field says."""
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    """Signs links to packages."""
    objects: ObjectSource = field(default_factory=ObjectSource)
    prepare: Callable[[str], Awaitable[None]] | None = None
    """Makes the first start of a runtime quick; awaited before a new function is reported as made."""
    max_inline: int = limits.CODE_REQUEST_MAX
    """Largest package inside a request, in bytes."""
    event_wait_scale: float = 1.0
    """What waits before further attempts at asynchronous calls are multiplied by."""
    most_instances: int = limits.INSTANCES
    """Of all functions together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FcParts:
    """What the API stands on."""

    functions: Functions
    layers: Layers
    resources: Resources
    dispatcher: Dispatcher
    timers: Timers
    intake: Intake
    timed: Timed
    """Takes the events of timers."""
    desk: Desk
    instances: Instances
    clock: Clock


class FcFace:
    """The whole API: authenticates, routes, checks, calls the services and words the answers."""

    def __init__(self, parts: FcParts, settings: FcSettings, draw: Callable[[], float] = random.random) -> None:
        self._settings = settings
        self._clock = parts.clock
        self._place = Place(account=settings.account, region=settings.region)
        self._running: set[asyncio.Task[None]] = set()
        registry = Registry(
            functions=parts.functions,
            layers=parts.layers,
            resources=parts.resources,
            clock=parts.clock,
            draw=draw,
        )
        links = CodeLinks(settings.secret, parts.clock.wall, CODE_PREFIX)
        source = PackageSource(settings.objects, settings.max_inline)
        self._links = links
        self.events = AsyncCalls(
            registry, parts.intake, self._place, settings.event_wait_scale, settings.most_instances
        )
        """This API's rules for asynchronous calls."""
        self._invocations = Invocations(registry, parts.dispatcher, self.events)
        self._functions = FunctionOperations(registry, source, links, settings.prepare)
        self._layers = LayerOperations(registry, source, links)
        self._triggers = triggers = TriggerOperations(
            registry, parts.timers, partial(self._fire, registry, parts.timed)
        )
        domains = DomainOperations(registry)
        self._http = HttpCalls(registry, self._invocations, triggers, domains, settings.keys, self._place, self.events)
        self._router = Router(
            self._functions,
            ServiceOperations(registry),
            VersionOperations(registry),
            AliasOperations(registry),
            triggers,
            domains,
            self._layers,
            ScalingOperations(registry, parts.instances),
            AsyncConfigOperations(registry),
            TaskOperations(registry, parts.desk),
            ResourceOperations(registry, parts.instances),
        )

    def origins(self) -> Sequence[EventOrigin]:
        """What its timers make events of."""
        return self._triggers.origins()

    def _fire(
        self, registry: Registry, timed: Timed, record: str, qualifier: str, payload: bytes, timer: str, planned: float
    ) -> None:
        """A timer goes off: its event runs asynchronously."""
        function, service = names.function_of(record), names.service_of(record)
        try:
            version = registry.resolve(function, service, qualifier).version
        except ApiFailure as error:
            _LOG.warning("A timer of %s has nothing to call: %s", record, error)
            timed((), timer, planned)
            return
        request_id = names.new_request_id(self._clock.wall())
        event = self.events.event(version, payload, request_id, qualifier, source=f"timer:{timer}", planned=planned)
        timed((event,), timer, planned)

    def claims(self, path: str, host: str) -> bool:
        """Is a request with this raw path and Host field one for this face?"""
        return path.startswith(_OWN_PATHS) or self._http.serves_host(host)

    def serves_host(self, host: str) -> bool:
        """Does the Host field alone make it one, for a function? Such requests may be those of web pages."""
        return self._http.serves_host(host)

    def answer(self, request: ApiRequest, caller: Caller, peer: str, watch: Watch) -> None:
        """Answer one request through `caller`, from the event loop's thread; never raises.

        An invocation goes to the dispatcher before this returns. `watch` takes what stops it if the caller goes away.
        """
        request_id = names.new_request_id(self._clock.wall())
        try:
            if self._http.claims(request.path, request.headers.get("host")):
                self._http.begin(request, caller, peer, request_id, watch)
                return
            if request.path.endswith("/invocations") and len(request.body) < _LARGE:
                self._authenticate(request)
                if self._begin(request, caller, request_id, watch):
                    return
        except Exception as error:
            report(error, f"request {request_id} ({request.method} {request.path})")
            _send(caller, render_failure(error, request_id))
            return
        task = asyncio.get_running_loop().create_task(self._answer_later(request, caller, request_id, watch))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _answer_later(self, request: ApiRequest, caller: Caller, request_id: str, watch: Watch) -> None:
        try:
            if request.path.startswith(CODE_PREFIX):
                _send(caller, await self._package(request, request_id))
                return
            await self._authenticate_later(request)
            if not self._begin(request, caller, request_id, watch):
                _send(caller, await self._control(request, request_id))
        except Exception as error:
            report(error, f"request {request_id} ({request.method} {request.path})")
            _send(caller, render_failure(error, request_id))

    def _begin(self, request: ApiRequest, caller: Caller, request_id: str, watch: Watch) -> bool:
        call = _invoke_call(request)
        if call is None:
            return False
        self._invocations.begin(call, request_id, lambda response: _send(caller, response), watch)
        return True

    async def _control(self, request: ApiRequest, request_id: str) -> ApiResponse:
        generation, handler, values = self._routed(request)
        if len(request.body) > limits.CODE_REQUEST_MAX:
            raise too_large(limits.CODE_REQUEST_MAX)
        pairs = parse_qsl(request.query, keep_blank_values=True)
        call = Call(
            generation=generation,
            values=values,
            query=dict(pairs),
            headers=request.headers,
            body=request.body,
            place=self._place,
            base_url=self._base_url(request),
            tag_query={name[4:]: value for name, value in pairs if name.startswith("tag_")},
        )
        return render_reply(await handler(call), request_id)

    def _routed(self, request: ApiRequest) -> tuple[Generation, Handler, Mapping[str, str]]:
        version, _, rest = request.path.strip("/").partition("/")
        try:
            generation = Generation(version)
        except ValueError:
            raise not_supported(request.method, request.path) from None
        found = self._router.find(generation, request.method, rest)
        if found is None:
            raise not_supported(request.method, request.path)
        return generation, *found

    def _authenticate(self, request: ApiRequest) -> None:
        if self._settings.keys:
            verify(request, self._settings.keys, self._clock.wall())

    async def _authenticate_later(self, request: ApiRequest) -> None:
        if len(request.body) < _LARGE:
            self._authenticate(request)
        else:
            await asyncio.to_thread(self._authenticate, request)

    async def _package(self, request: ApiRequest, request_id: str) -> ApiResponse:
        if request.method != "GET":
            raise not_supported(request.method, request.path)
        name = request.path.removeprefix(CODE_PREFIX)
        if name.startswith(LINK):
            archive = await self._layers.archive(self._links.open(request.path, request.query)[0])
        else:
            archive = await self._functions.archive(request.path, request.query)
        headers = (("Content-Type", "application/zip"), (REQUEST_ID, request_id))
        return ApiResponse(status=200, headers=headers, body=archive)

    def _base_url(self, request: ApiRequest) -> str:
        return self._settings.public_url.rstrip("/") or f"http://{request.headers.get('host', 'localhost')}"


def _send(caller: Caller, response: ApiResponse) -> None:
    caller.reply(response.status, response.headers, response.body)


def _invoke_call(request: ApiRequest) -> InvokeCall | None:
    """The call of InvokeFunction that a request is; None if it is another."""
    if request.method != "POST":
        return None
    qualifier = dict(parse_qsl(request.query)).get("qualifier", "")
    current, classic = _INVOKE.fullmatch(request.path), _INVOKE_CLASSIC.fullmatch(request.path)
    if current is not None:
        generation, service, function = Generation.V3, "", current[1]
    elif classic is not None:
        generation, (service, _, dotted) = Generation(classic[1]), unquote(classic[2]).partition(".")
        function, qualifier = classic[3], qualifier or dotted
    else:
        return None
    return InvokeCall(
        generation=generation,
        service=service,
        function=unquote(function),
        qualifier="" if qualifier == names.LATEST else qualifier,
        payload=request.body,
        control=invoking.read_control(request.headers),
    )
