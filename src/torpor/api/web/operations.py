"""The operator's routes for services.

- `GET /_torpor/services` lists all services.
- `PUT /_torpor/services/NAME` with a zip archive as its body begins to deploy its source: 202. Settings are JSON in the
  field `X-Torpor-Settings` (`contracts/web/settings.py` says which there are).
- `PUT /_torpor/services/NAME` with `Content-Type: application/json` changes settings and keeps what was built.
- `GET /_torpor/services/NAME` shows the service, `DELETE` removes it.
- `GET /_torpor/services/NAME/deployment?after=N&stage=S&wait=T` tells how far the last deployment is, with its output
  behind byte N; it waits up to T seconds for news.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any
from urllib.parse import parse_qs

import msgspec

from torpor.contracts.web import limits
from torpor.contracts.web.routing import addresses
from torpor.contracts.web.settings import ServiceSettings, read_settings, shown
from torpor.model.errors import CallerError, Conflict, FunctionError, InvalidRequest, NotFound, TooLarge, TorporError
from torpor.model.function import FunctionRecord
from torpor.service.services import Services
from torpor.transport import Exchange

PREFIX = "/_torpor/services"
SETTINGS_FIELD = "X-Torpor-Settings"
_JSON = "application/json"
_FIELDS = (("Content-Type", _JSON),)
_WAIT_MAX = 30.0
_SLACK = 1024 * 1024
_LARGE = 256 * 1024
"""Bytes of a body from which on its signature is checked in a thread."""
_LOG = logging.getLogger(__name__)
_STATUSES: tuple[tuple[type[TorporError], int], ...] = (
    (NotFound, 404),
    (Conflict, 409),
    (TooLarge, 413),
    (CallerError, 400),
    (FunctionError, 400),
    (TorporError, 503),
)
"""The first that fits counts."""
_Answer = tuple[int, Mapping[str, Any]]


def is_services_path(path: str) -> bool:
    """Is a path one of these routes?"""
    return path == PREFIX or path.startswith(PREFIX + "/")


def body_limit(method: str, path: str) -> int | None:
    """Bytes of a request's body that are read here; None for other paths."""
    if not is_services_path(path):
        return None
    return limits.PACKAGE_MAX + _SLACK if method == "PUT" else _SLACK


class ServicesFace:
    """Answers the operator's routes. `allowed` tells whether a request may see what only the operator should."""

    def __init__(self, services: Services, allowed: Callable[[Exchange], bool]) -> None:
        self._services = services
        self._allowed = allowed
        self._running: set[asyncio.Task[None]] = set()

    def handle(self, exchange: Exchange) -> None:
        """Answer one request; see `is_services_path`."""
        task = asyncio.get_running_loop().create_task(self._answer(exchange))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _answer(self, exchange: Exchange) -> None:
        try:
            status, body = await self._dispatch(exchange)
        except TorporError as error:
            status = next(status for kind, status in _STATUSES if isinstance(error, kind))
            body = {"message": str(error)}
        except Exception:
            _LOG.exception("%s %s failed", exchange.method, exchange.path)
            status, body = 500, {"message": "The platform failed; the server's own output says why."}
        _reply(exchange, status, body)

    async def _dispatch(self, exchange: Exchange) -> _Answer:
        if not await self._is_allowed(exchange):
            return 403, {"message": "Sign the request with one of the server's access keys."}
        name, _, rest = exchange.path[len(PREFIX) + 1 :].partition("/")
        routes: Mapping[tuple[str, bool, str], Callable[[Exchange, str], Coroutine[Any, Any, _Answer]]] = {
            ("GET", False, ""): self._list,
            ("GET", True, ""): self._show,
            ("PUT", True, ""): self._put,
            ("DELETE", True, ""): self._delete,
            ("GET", True, "deployment"): self._deployment,
        }
        route = routes.get((exchange.method, bool(name), rest))
        if route is not None:
            return await route(exchange, name)
        if any(key[1:] == (bool(name), rest) for key in routes):
            return 405, {"message": f"{exchange.method} is not answered here."}
        return 404, {"message": f"There is nothing at {exchange.path}."}

    async def _is_allowed(self, exchange: Exchange) -> bool:
        """A signature covers the whole body: that of a large one is looked at while other requests go on."""
        if len(exchange.body) < _LARGE:
            return self._allowed(exchange)
        return await asyncio.to_thread(self._allowed, exchange)

    async def _list(self, exchange: Exchange, name: str) -> _Answer:
        return 200, {"services": [_shown(record, exchange) for record in self._services.all()]}

    async def _show(self, exchange: Exchange, name: str) -> _Answer:
        return 200, _shown(self._services.get(name), exchange)

    async def _put(self, exchange: Exchange, name: str) -> _Answer:
        if exchange.headers.get("content-type").partition(";")[0].strip().lower() == _JSON:
            return 200, _shown(self._services.configure(name, read_settings(exchange.body)), exchange)
        if not exchange.body:
            raise InvalidRequest("The body is empty: send a zip archive of the source, or settings as JSON.")
        deployment = await self._services.deploy(name, exchange.body, _settings_field(exchange))
        return 202, {"name": name, "deployment": deployment.number, "stage": deployment.stage}

    async def _delete(self, exchange: Exchange, name: str) -> _Answer:
        self._services.delete(name)
        return 200, {"deleted": name}

    async def _deployment(self, exchange: Exchange, name: str) -> _Answer:
        deployment = self._services.deployment(name)
        query = {key: values[0] for key, values in parse_qs(exchange.query).items()}
        try:
            after, wait = int(query.get("after") or 0), min(float(query.get("wait") or 0), _WAIT_MAX)
        except ValueError as error:
            raise InvalidRequest("`after` and `wait` are numbers.") from error
        if wait > 0:
            await deployment.wait(after, query.get("stage", ""), wait)
        output, size = deployment.output(after)
        return 200, {
            "deployment": deployment.number,
            "stage": deployment.stage,
            "output": output.decode(errors="replace"),
            "after": size,
            "message": deployment.message,
            "exit_status": deployment.exit_status,
        }


def _settings_field(exchange: Exchange) -> ServiceSettings:
    return read_settings(exchange.headers.get(SETTINGS_FIELD).encode())


def _shown(record: FunctionRecord, exchange: Exchange) -> dict[str, Any]:
    value = shown(record)
    host = exchange.headers.get("host")
    return value | {"urls": addresses(value["name"], f"http://{host}") if host else ()}


def _reply(exchange: Exchange, status: int, body: Mapping[str, Any]) -> None:
    exchange.reply(status, _FIELDS, msgspec.json.encode(body) + b"\n")
