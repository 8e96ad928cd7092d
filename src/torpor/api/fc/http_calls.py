"""Functions called by HTTP: over the platform's own domain, its path form, and custom domains (1.3 to 1.5, 6)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from torpor.api.fc.async_calls import AsyncCalls, explained
from torpor.api.fc.domains import DomainOperations
from torpor.api.fc.invocations import Invocations, Watch, report
from torpor.api.fc.registry import Registry
from torpor.api.fc.triggers import LOCAL_DOMAIN, TriggerOperations
from torpor.api.relay import Caller, CallerRelay, NoCaller
from torpor.contracts.function_compute import failures, http_trigger, invoking, limits, names, routing, runtimes
from torpor.contracts.function_compute import server_wire as wire
from torpor.contracts.function_compute.api_failures import REQUEST_ID, ApiFailure, body, invalid, render_failure
from torpor.contracts.function_compute.http_trigger import CalledBy, HttpConfig
from torpor.contracts.function_compute.invoking import Control, Mode
from torpor.contracts.function_compute.names import Generation, Place
from torpor.contracts.function_compute.signing import verify
from torpor.contracts.http import JSON, ApiRequest, ApiResponse
from torpor.model.errors import TorporError
from torpor.model.event import EventRequest
from torpor.model.function import FunctionVersion
from torpor.model.invocation import HttpRequest, Invocation, Outcome

_PROXY_CLASSIC = re.compile(r"/(?:2016-08-15|2021-04-06)/proxy/([^/]+)/([^/]+)(/.*)?")
_ACCEPTED = 202
_PROXY = re.compile(r"/2023-03-30/proxy/([^/]+)(/.*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The function that a request is for, and what the request becomes on the way."""

    function: str
    service: str
    qualifier: str
    config: HttpConfig
    target: str
    """Path and query as the function sees them."""
    base_path: str = ""
    guarded: bool = True
    """It came over the platform's own domain, where browsers may not show answers."""


class HttpCalls:
    """Finds the function a request is for and passes the request on."""

    def __init__(
        self,
        registry: Registry,
        invocations: Invocations,
        triggers: TriggerOperations,
        domains: DomainOperations,
        keys: Mapping[str, str],
        place: Place,
        later: AsyncCalls,
    ) -> None:
        self._registry = registry
        self._invocations = invocations
        self._triggers = triggers
        self._domains = domains
        self._keys = keys
        self._place = place
        self._later = later

    def claims(self, path: str, host: str) -> bool:
        """Is a request for a function rather than for the API?"""
        return ("/proxy/" in path and _is_proxy(path)) or self.serves_host(host)

    def serves_host(self, host: str) -> bool:
        """Does a Host field name a trigger's domain, or a custom one?"""
        return (LOCAL_DOMAIN in host and self._prefix(host) != "") or self._domains.knows(host)

    def begin(self, request: ApiRequest, caller: Caller, peer: str, request_id: str, watch: Watch) -> None:
        """Answer through `caller`. Raises what refuses the request before it has begun."""
        found = self._find(request)
        self._check(found, request)
        origin = request.headers.get("origin")
        cors = found.config.cors_config
        extra = [(REQUEST_ID, request_id), ("Access-Control-Expose-Headers", invoking.EXPOSED_HTTP)]
        if cors is not None:
            fields = {name.lower(): value for name, value in request.headers.items()}
            passed = http_trigger.preflight(cors, fields) if request.method == "OPTIONS" else None
            if passed is not None:
                caller.reply(204, [(REQUEST_ID, request_id), *passed])
                return
            extra += http_trigger.cors_fields(cors, origin)
        if found.guarded:
            extra.append(wire.GUARDED_ANSWER)
        relay = CallerRelay(caller, extra)
        version = self._registry.resolve(found.function, found.service, found.qualifier).version
        control = invoking.read_control(request.headers)
        _check_body(len(request.body), control.mode)
        run = self._pass_on if runtimes.is_custom(version.runtime) else self._send_event
        run(_Run(found, request, peer, request_id, version, control, relay, watch, caller.upgrade))

    def _pass_on(self, run: "_Run") -> None:
        """To a server of the function's own: the request itself."""
        request, found = run.request, run.found
        waits = run.control.mode is Mode.SYNC
        base = [(wire.BASE_PATH, found.base_path)] if found.base_path else []
        http = HttpRequest(
            method=request.method,
            target=found.target,
            fields=[*wire.forwarded_fields(request.headers.items()), *base],
            relay=run.relay if waits else NoCaller(),
            length=len(request.body),
            peer=run.peer,
            upgrade=run.upgrade if waits else "",
        )
        self._submit(run, request.body, http)

    def _send_event(self, run: "_Run") -> None:
        """To a built-in runtime: an event that describes the request."""
        request, found = run.request, run.found
        path, _, query = found.target.partition("?")
        event = http_trigger.http_event(
            CalledBy(
                account=self._place.account,
                domain=request.headers.get("host").partition(":")[0],
                method=request.method,
                path=path,
                query=query,
                fields=wire.forwarded_fields(request.headers.items()),
                body=request.body,
                peer=run.peer,
                request_id=run.request_id,
                wall=self._registry.clock.wall(),
            )
        )
        self._submit(run, event, None)

    def _submit(self, run: "_Run", payload: bytes, http: HttpRequest | None) -> None:
        version, control = run.version, run.control
        if control.mode is Mode.ASYNC:
            self._accept(run, payload, http)
            return
        invocation = Invocation(
            id=run.request_id,
            payload=payload,
            resource=version.resource,
            content_type=invoking.EVENT_TYPE,
            qualifier=run.found.qualifier,
            wants_memory=True,
            http=http,
        )
        self._invocations.submit(version, invocation, run.done, run.watch)

    def _accept(self, run: "_Run", payload: bytes, http: HttpRequest | None) -> None:
        """For later: what is kept of the request is all that its server will see."""
        request = None
        if http is not None:
            fields = tuple((name, value) for name, value in http.fields)
            request = EventRequest(method=http.method, target=http.target, fields=fields, peer=http.peer)
        event = self._later.event(
            run.version, payload, run.request_id, run.found.qualifier, run.control, request=request
        )

        def reply(response: ApiResponse) -> None:
            run.relay.answer(response.status, () if response.status == _ACCEPTED else response.headers, response.body)

        self._invocations.accept(event, run.control, reply)

    def _find(self, request: ApiRequest) -> Target:
        target = f"{request.path}?{request.query}" if request.query else request.path
        wire.check_target(target)
        host = request.headers.get("host")
        prefix = self._prefix(host)
        if prefix:
            return self._of_domain_prefix(prefix, target)
        classic, current = _PROXY_CLASSIC.fullmatch(request.path), _PROXY.fullmatch(request.path)
        if classic is not None:
            service, _, qualifier = unquote(classic[1]).partition(".")
            return self._of_trigger(unquote(classic[2]), service, qualifier, classic[3], request.query)
        if current is not None:
            function, _, qualifier = unquote(current[1]).partition(".")
            return self._of_trigger(function, "", qualifier, current[2], request.query)
        return self._of_custom_domain(host, request.path, target)

    def _of_domain_prefix(self, prefix: str, target: str) -> Target:
        found = self._triggers.by_domain(prefix)
        if found is None:
            raise ApiFailure("DomainNameNotFound", f"domain name '{prefix}.{LOCAL_DOMAIN}' does not exist")
        record, qualifier, config = found
        return Target(
            function=names.function_of(record),
            service=names.service_of(record),
            qualifier=qualifier,
            config=config,
            target=target,
        )

    def _of_trigger(self, function: str, service: str, qualifier: str, path: str | None, query: str) -> Target:
        record = self._registry.record(function, service)
        config = self._triggers.of_function(record.name, qualifier)
        if config is None:
            raise ApiFailure("TriggerNotFound", f"function '{function}' has no HTTP trigger")
        below = path or "/"
        base = f"/{Generation.CLASSIC}/proxy/{service}/{function}/" if service else ""
        target = f"{below}?{query}" if query else below
        return Target(
            function=function, service=service, qualifier=qualifier, config=config, target=target, base_path=base
        )

    def _of_custom_domain(self, host: str, path: str, target: str) -> Target:
        found = self._domains.route(host, path)
        if found is None:
            raise ApiFailure("PathNotSupported", f"the domain '{host}' has no route for '{path}'")
        route, config = found
        if config is None:
            record = self._registry.record(route.function_name, route.service_name)
            config = self._triggers.of_function(record.name, route.qualifier)
        if config is None:
            raise ApiFailure("TriggerNotFound", f"function '{route.function_name}' has no HTTP trigger")
        return Target(
            function=route.function_name,
            service=route.service_name,
            qualifier=route.qualifier,
            config=config,
            target=routing.rewritten(route.rewrite_config, target),
            guarded=False,
        )

    def _check(self, found: Target, request: ApiRequest) -> None:
        if found.config.disable_internet:
            raise ApiFailure("AccessDenied", "access denied due to function internet URL is disable")
        if not found.config.takes(request.method):
            raise ApiFailure("AccessDenied", f"the method {request.method} is not allowed by the HTTP trigger")
        if found.config.auth_type != http_trigger.SIGNED:
            return
        if self._keys:
            verify(request, self._keys, self._registry.clock.wall(), trigger=True)
        elif _is_from_page(request):
            raise ApiFailure("AccessDenied", "a trigger with authType function takes no request of a web page")

    def _prefix(self, host: str) -> str:
        """The first label of a host below the domain of triggers."""
        name = host.lower().partition(":")[0]
        prefix, _, rest = name.partition(".")
        return prefix if rest == LOCAL_DOMAIN and self._triggers.by_domain(prefix) is not None else ""


@dataclass(frozen=True, slots=True)
class _Run:
    """One request on its way."""

    found: Target
    request: ApiRequest
    peer: str
    request_id: str
    version: FunctionVersion
    control: Control
    relay: CallerRelay
    watch: Watch
    upgrade: str
    """The protocol that the caller wants to change to; empty if none."""

    def done(self, result: Outcome | TorporError) -> None:
        """The function is through with it, or there is a reason why it never was."""
        if isinstance(result, TorporError):
            report(result, f"invocation {self.request_id}")
            self._answer(render_failure(result, self.request_id))
            return
        outcome = explained(result, self.version, self.request_id)
        if outcome.failure is not None:
            self._answer(_failed(outcome, self.request_id))
        elif not runtimes.is_custom(self.version.runtime):
            self._answer(_event_answer(outcome, self.request_id))

    def _answer(self, response: ApiResponse) -> None:
        self.relay.answer(response.status, response.headers, response.body)


def _is_proxy(path: str) -> bool:
    return bool(_PROXY_CLASSIC.fullmatch(path) or _PROXY.fullmatch(path))


def _is_from_page(request: ApiRequest) -> bool:
    """A server without keys trusts the programs of its machine, but not the pages that its browsers show."""
    site = request.headers.get("sec-fetch-site") or "none"
    return bool(request.headers.get("origin")) or site not in ("none", "same-origin")


def _event_answer(outcome: Outcome, request_id: str) -> ApiResponse:
    if outcome.error_type:
        return http_trigger.function_error()
    try:
        return http_trigger.http_answer(outcome.payload)
    except ApiFailure as error:
        return render_failure(error, request_id)


def _failed(outcome: Outcome, request_id: str) -> ApiResponse:
    """A request that no server answered."""
    status = failures.status_of(outcome.error_type, http=True)
    if status is not None:
        return ApiResponse(status=status, headers=(("Content-Type", JSON),), body=outcome.payload)
    headers: Sequence[tuple[str, str]] = (("Content-Type", JSON), ("X-Fc-Error-Type", outcome.error_type))
    payload = outcome.payload or body(failures.PLATFORM, "an internal error has occurred. Please retry.", request_id)
    return ApiResponse(status=502, headers=tuple(headers), body=payload)


def _check_body(size: int, mode: Mode) -> None:
    limit = limits.SYNC_PAYLOAD_MAX if mode is Mode.SYNC else limits.ASYNC_PAYLOAD_MAX
    if size > limit:
        raise invalid(f"the request's body is larger than {limit} bytes")
