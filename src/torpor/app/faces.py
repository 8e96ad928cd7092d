"""Every face of the server on its one port: who answers which request."""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from torpor.api import aws, eventbridge, fc, logs
from torpor.api.admin import PREFIX as ADMIN_PREFIX
from torpor.api.admin import AdminFace
from torpor.api.aws import AwsFace, AwsSettings, ObjectSource
from torpor.api.aws.code_links import PREFIX as AWS_CODE
from torpor.api.eventbridge import EventsSettings, RulesFace
from torpor.api.fc import FcFace, FcParts, FcSettings
from torpor.api.fc.face import CODE_PREFIX as FC_CODE
from torpor.api.logs import LogsFace, LogsSettings
from torpor.api.same_machine import SameMachine
from torpor.api.web import ServicesFace, Traffic
from torpor.api.web.operations import body_limit as services_limit
from torpor.api.web.operations import is_services_path
from torpor.api.web.traffic import is_traffic
from torpor.api.web.traffic import streams as streams_service
from torpor.contracts.function_compute.names import Generation
from torpor.contracts.lambda_.url_routing import PREFIX as URL_PREFIX
from torpor.contracts.lambda_.url_routing import names_url
from torpor.settings import Settings
from torpor.transport import Application, Exchange, Headers

_FC_PATHS = tuple(f"/{generation}/" for generation in Generation)
_AWS_PATHS = ("/2", "/_torpor/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Faces:
    """The faces, ready to answer."""

    aws: AwsFace
    fc: FcFace
    admin: AdminFace
    services: ServicesFace
    traffic: Traffic
    logs: LogsFace
    rules: RulesFace


def aws_settings(settings: Settings, prepare: Callable[[str], Awaitable[None]]) -> AwsSettings:
    return AwsSettings(
        account=settings.account,
        region=settings.region,
        keys=settings.access_keys,
        prepare=prepare,
        event_wait_scale=settings.event_wait_scale,
        max_inline=settings.max_package,
        objects=ObjectSource(endpoint=settings.aws_endpoint_url),
        url_domain=settings.url_domain,
        secret=secrets.token_bytes(32),
    )


def fc_face(settings: Settings, parts: FcParts, prepare: Callable[[str], Awaitable[None]]) -> FcFace:
    own = FcSettings(
        account=settings.account,
        region=settings.fc_region,
        keys=settings.access_keys,
        objects=ObjectSource(endpoint=settings.aws_endpoint_url),
        prepare=prepare,
        max_inline=settings.fc_max_package,
        event_wait_scale=settings.event_wait_scale,
        most_instances=settings.fc_instances,
    )
    return FcFace(parts, own)


def logs_settings(settings: Settings) -> LogsSettings:
    return LogsSettings(account=settings.account, region=settings.region, keys=settings.access_keys)


def events_settings(settings: Settings) -> EventsSettings:
    return EventsSettings(account=settings.account, region=settings.region, keys=settings.access_keys)


def application(faces: Faces, settings: Settings) -> Application:
    """Traffic to services and functions first, which is the most and may come from web pages; then what only the
    server's operators may ask."""
    pages = SameMachine(settings.host) if not settings.access_keys else None
    operated, traffic, urls = _operated(faces, pages), faces.traffic.handle, faces.aws.urls.handle

    def misled(exchange: Exchange) -> bool:
        """Was it meant for another host? Then it is refused: by path, pages of this server are its own."""
        reason = "" if pages is None else pages.refuses_host(exchange)
        if reason:
            exchange.reply(403, *error_face(403, reason))
        return bool(reason)

    def answer(exchange: Exchange) -> None:
        route = is_traffic(exchange)
        if route is not None and route[1] is exchange.target:
            traffic(exchange, *route)
            return
        host = exchange.headers.get("host")
        if names_url(host):
            urls(exchange)
        elif route is None and not exchange.path.startswith(URL_PREFIX):
            operated(exchange, host)
        elif not misled(exchange):
            if route is not None:
                traffic(exchange, *route)
            else:
                urls(exchange)

    return answer


def _operated(faces: Faces, pages: SameMachine | None) -> Callable[[Exchange, str], None]:
    """The operator's routes, then each cloud's API by its paths."""
    admin, services = faces.admin.handle, faces.services.handle
    cloud, functions = aws.mount(faces.aws), fc.mount(faces.fc)

    def answer(exchange: Exchange, host: str) -> None:
        path = exchange.path
        if faces.fc.serves_host(host):
            functions(exchange)
        elif pages is not None and (reason := pages.refuses(exchange)):
            exchange.reply(403, *error_face(403, reason))
        elif path == "/" and eventbridge.claims(exchange):
            faces.rules.handle(exchange)
        elif path == "/" and logs.claims(exchange):
            faces.logs.handle(exchange)
        elif is_services_path(path):
            services(exchange)
        elif path.startswith(ADMIN_PREFIX) and not path.startswith((AWS_CODE, FC_CODE)):
            admin(exchange)
        elif faces.fc.claims(path, host):
            functions(exchange)
        else:
            cloud(exchange)

    return answer


def streams(method: str, path: str, headers: Headers) -> bool:
    """Is a request served while its body still arrives? Those to function URLs may have any path, and a limit of their
    own."""
    return streams_service(method, path, headers) or path.startswith(URL_PREFIX) or names_url(headers.get("host"))


def body_limit(settings: Settings, method: str, path: str) -> int:
    """Bytes of a request's body that are read whole."""
    own = services_limit(method, path)
    if own is not None:
        return own
    if path.startswith(_FC_PATHS) or not path.startswith(_AWS_PATHS):
        return fc.body_limit(method, path)
    return min(aws.body_limit(method, path), settings.max_body)


def error_face(status: int, reason: str) -> tuple[Sequence[tuple[str, str]], bytes]:
    """The form for requests that are refused before any face sees them."""
    return aws.error_face(status, reason)
