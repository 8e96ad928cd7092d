"""Requests of the AWS Lambda API in, answers out; no sockets."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torpor.api.aws.async_invocations import AsyncInvocations
from torpor.api.aws.attached import KINDS
from torpor.api.aws.call import Call, render_reply
from torpor.api.aws.code_links import PREFIX, CodeLinks
from torpor.api.aws.control import Control, ControlParts
from torpor.api.aws.event_sources import Sources
from torpor.api.aws.function_settings import ends_circles
from torpor.api.aws.invocations import Dispatcher, Invocations, Reply, report
from torpor.api.aws.layers import is_layer_link
from torpor.api.aws.lookup import Lookup, States, always_active
from torpor.api.aws.objects import ObjectSource
from torpor.api.aws.packages import PackageSource
from torpor.api.aws.provisioned import StandingOf, none_standing
from torpor.api.aws.streams import Caller
from torpor.api.aws.url_registry import UrlRegistry
from torpor.api.aws.url_traffic import UrlParts, UrlTraffic
from torpor.contracts.lambda_ import limits
from torpor.contracts.lambda_.failures_api import ApiFailure, not_built, render_failure
from torpor.contracts.lambda_.identifiers import new_request_id
from torpor.contracts.lambda_.invoking import parse_invoke, parse_streaming_invoke
from torpor.contracts.lambda_.names import Place
from torpor.contracts.lambda_.operations import Route, api_model
from torpor.contracts.lambda_.reading import read_input
from torpor.contracts.lambda_.signature import region_of, verify
from torpor.contracts.lambda_.streaming import SUFFIX as STREAMING
from torpor.contracts.lambda_.validation import check
from torpor.contracts.lambda_.wire import ApiRequest, ApiResponse
from torpor.model.clock import Clock
from torpor.model.errors import NotFound
from torpor.model.event_origin import EventOrigin
from torpor.service.attachments import Attachments
from torpor.service.events.port import Intake
from torpor.service.functions import Functions
from torpor.service.layers import Layers
from torpor.service.resources import Resources
from torpor.service.states import VersionStates

_LOG = logging.getLogger(__name__)
_LARGE = 256 * 1024
"""Bodies from this size on, in bytes, are checked and decoded in a thread, so that other calls go on meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsSettings:
    """What a server's owner decides about this API."""

    account: str = "000000000000"
    region: str = "us-east-1"
    """For requests that are not signed for any."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """Secrets by access key id; with none, signatures are not verified."""
    public_url: str = ""
    """How callers reach the server, for links; by default what the request's Host field says."""
    url_domain: str = ""
    """The address below which function URLs have names, as in `https://HOST`; by default this machine's own."""
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    """Signs links to packages."""
    objects: ObjectSource = field(default_factory=ObjectSource)
    prepare: Callable[[str], Awaitable[None]] | None = None
    """Makes the first start of a runtime quick; awaited before a new function is reported as made."""
    event_wait_scale: float = 1.0
    """What waits before further attempts at events are multiplied by."""
    max_inline: int = limits.ZIPPED_MAX
    """Largest package inside a request, in bytes; packages from an object store may be larger."""


class AwsFace:
    """The whole API: authenticates, routes, checks, calls the services and words the answers."""

    def __init__(
        self,
        functions: Functions,
        layers: Layers,
        dispatcher: Dispatcher,
        settings: AwsSettings,
        clock: Clock,
        *,
        resources: Resources,
        states: States = always_active,
        version_states: VersionStates | None = None,
        standing: StandingOf = none_standing,
        intake: Intake | None = None,
        sources: Sources | None = None,
    ) -> None:
        """`states` are those of managed versions, `version_states` those of the others; `intake` takes events,
        `sources` read queues."""
        self._functions = functions
        version_states = version_states or VersionStates()
        attachments = Attachments(resources, KINDS)
        self._invocations = Invocations(
            functions, dispatcher, clock, states, version_states, partial(ends_circles, attachments)
        )
        self.events = AsyncInvocations(
            functions, attachments, self._invocations, intake, clock, settings.event_wait_scale
        )
        """This API's rules for asynchronous invocations."""
        self._invocations.accept = self.events.accept
        self._running: set[asyncio.Task[None]] = set()
        self._settings = settings
        self._clock = clock
        self._model = api_model()
        self._links = CodeLinks(settings.secret, clock.wall)
        self._places: dict[str, Place] = {}
        urls = UrlRegistry(attachments)
        self.urls = self._url_traffic(urls, attachments, dispatcher)
        """Answers requests by function URL."""
        control = Control(
            ControlParts(
                functions=functions,
                layers=layers,
                resources=resources,
                attachments=attachments,
                invocations=self._invocations,
                lookup=Lookup(functions, states, version_states),
                urls=urls,
                source=PackageSource(objects=settings.objects, max_inline=settings.max_inline),
                links=self._links,
                clock=clock,
                standing=standing,
                prepare=settings.prepare,
                url_domain=settings.url_domain,
                sources=sources,
            )
        )
        self._layers = control.layers
        self._event_sources = control.event_sources
        self._handlers = control.handlers

    def _url_traffic(self, urls: UrlRegistry, attachments: Attachments, dispatcher: Dispatcher) -> UrlTraffic:
        return UrlTraffic(
            UrlParts(
                urls=urls,
                functions=self._functions,
                attachments=attachments,
                invocations=self._invocations,
                dispatcher=dispatcher,
                clock=self._clock,
                account=self._settings.account,
                keys=self._settings.keys,
            )
        )

    def resume_sources(self) -> None:
        """Read the queues of the event source mappings that were kept. Called once the server takes calls."""
        if self._event_sources is not None:
            self._event_sources.resume()

    def origins(self) -> Sequence[EventOrigin]:
        """What its event source mappings make events of."""
        return self._event_sources.origins() if self._event_sources is not None else []

    def answer(self, request: ApiRequest, reply: Reply, caller: Caller) -> None:
        """Answer one request through `reply`, called once and from the event loop's thread; never raises. An answer
        that is a stream goes to `caller` instead.

        An invocation goes to the dispatcher before this returns. A caller that goes away does not stop its function
        (9.8), so nothing here is ever cancelled."""
        if request.path.endswith("/invocations") and len(request.body) < _LARGE:
            request_id = new_request_id()
            try:
                if self._settings.keys:
                    verify(request, self._settings.keys, self._clock.wall())
                place = self._place(request)
                invoke = parse_invoke(request.method, request.path, request.query, request.headers, request.body, place)
                if invoke is not None:
                    self._invocations.begin(invoke, place, request_id, reply)
                    return
            except Exception as error:
                report(error, f"request {request_id} ({request.method} {request.path})")
                reply(render_failure(error, request_id))
                return
        streams = request.path.endswith(STREAMING)
        work = self._stream(request, reply, caller) if streams else self._answer_later(request, reply)
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _stream(self, request: ApiRequest, reply: Reply, caller: Caller) -> None:
        request_id = new_request_id()
        try:
            if self._settings.keys:
                await self._verify(request)
            place = self._place(request)
            invoke = parse_streaming_invoke(
                request.method, request.path, request.query, request.headers, request.body, place
            )
            if invoke is None:
                raise self._unknown(request)
            self._invocations.begin_streamed(invoke, place, request_id, reply, caller)
        except Exception as error:
            report(error, f"request {request_id} ({request.method} {request.path})")
            reply(render_failure(error, request_id))

    async def _answer_later(self, request: ApiRequest, reply: Reply) -> None:
        reply(await self.handle(request))

    async def handle(self, request: ApiRequest) -> ApiResponse:
        """Answer one request. Never raises: what goes wrong is answered in the API's own form."""
        request_id = new_request_id()
        try:
            response = await self._answer(request, request_id)
        except Exception as error:
            report(error, f"request {request_id} ({request.method} {request.path})")
            response = render_failure(error, request_id)
        if request.method == "HEAD":
            return ApiResponse(status=response.status, headers=response.headers)
        return response

    async def _answer(self, request: ApiRequest, request_id: str) -> ApiResponse:
        if request.path.startswith(PREFIX):
            return await self._package(request, request_id)
        if self._settings.keys:
            await self._verify(request)
        place = self._place(request)
        invoke = parse_invoke(request.method, request.path, request.query, request.headers, request.body, place)
        if invoke is not None:
            waiting: asyncio.Future[ApiResponse] = asyncio.get_running_loop().create_future()
            self._invocations.begin(invoke, place, request_id, waiting.set_result)
            return await waiting
        return await self._control(request, place, request_id)

    async def _control(self, request: ApiRequest, place: Place, request_id: str) -> ApiResponse:
        route = self._model.find(request.method, request.path, request.query)
        if route is None:
            raise self._unknown(request)
        name = route.operation.name
        handler = self._handlers.get(name)
        if handler is None:
            raise not_built(f"The operation {name}")
        if len(request.body) > limits.CREATE_REQUEST_MAX:
            message = f"Request must be smaller than {limits.CREATE_REQUEST_MAX} bytes for the {name} operation"
            raise ApiFailure("RequestEntityTooLargeException", message)
        values = await self._values(route, request)
        call = Call(values=values, place=place, base_url=self._base_url(request), request_id=request_id)
        return render_reply(await handler(call), request_id)

    async def _values(self, route: Route, request: ApiRequest) -> dict[str, Any]:
        if len(request.body) < _LARGE:
            return self._checked(route, request)
        return await asyncio.to_thread(self._checked, route, request)

    def _checked(self, route: Route, request: ApiRequest) -> dict[str, Any]:
        values = read_input(self._model, route, request)
        if route.operation.input_shape:
            check(route.operation.input_shape, values, self._model.shapes)
        return values

    async def _verify(self, request: ApiRequest) -> None:
        now = self._clock.wall()
        if len(request.body) < _LARGE:
            verify(request, self._settings.keys, now)
        else:
            await asyncio.to_thread(verify, request, self._settings.keys, now)

    async def _package(self, request: ApiRequest, request_id: str) -> ApiResponse:
        if request.method != "GET":
            raise self._unknown(request)
        name, digest = self._links.open(request.path, request.query)
        archive = await self._layers.archive_of(name) if is_layer_link(name) else await self._archive(name, digest)
        headers = (("Content-Type", "application/zip"), ("x-amzn-RequestId", request_id))
        return ApiResponse(status=200, headers=headers, body=archive)

    async def _archive(self, name: str, digest: str) -> bytes:
        record = self._functions.get(name)
        for kept in (record.latest, *record.versions.values()):
            if kept.version.code.digest == digest:
                return await self._functions.packages.archive(kept.version.code)
        raise NotFound("The function has other code by now; ask for a new link with GetFunction.")

    def _place(self, request: ApiRequest) -> Place:
        signed = request.query or request.headers.get("authorization")
        region = region_of(request, self._settings.region) if signed else self._settings.region
        place = self._places.get(region)
        if place is None:
            place = Place(account=self._settings.account, region=region)
            if len(self._places) < 64:
                self._places[region] = place
        return place

    def _base_url(self, request: ApiRequest) -> str:
        return self._settings.public_url.rstrip("/") or f"http://{request.headers.get('host', 'localhost')}"

    def _unknown(self, request: ApiRequest) -> ApiFailure:
        allowed = self._model.allowed_methods(request.path)
        hint = f"; it answers to {', '.join(allowed)}" if allowed else ""
        message = f"There is no operation {request.method} {request.path}{hint}."
        return ApiFailure("UnknownOperationException", message)
