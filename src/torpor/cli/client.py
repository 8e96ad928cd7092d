"""Talking to a server over HTTP, signed when access keys are configured."""

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from functools import cached_property
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from torpor.contracts.function_compute.names import Generation
from torpor.contracts.http import ApiRequest
from torpor.model.errors import AccessDenied, CallerError, InvalidRequest, NotFound, PlatformError, TorporError
from torpor.settings import Settings, is_loopback, resolve

FUNCTIONS = "/2015-03-31/functions"
ADMIN = "/_torpor"
_FC_PATHS = tuple(f"/{generation}/" for generation in Generation)
_PATIENCE = 30.0
_WILDCARDS = ("0.0.0.0", "::", "")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a server answered: a success."""

    status: int
    headers: Mapping[str, str]
    """By name in lower case."""
    body: bytes

    @cached_property
    def json(self) -> Any:
        """The body's JSON. Raises PlatformError if it is none."""
        try:
            return json.loads(self.body or b"null")
        except ValueError as error:
            raise PlatformError("The answer is not JSON: is that a Torpor server?") from error


class Client:
    """One server. Every method raises PlatformError if no server answers, CallerError for what it refuses."""

    def __init__(self, endpoint: str, *, keys: Mapping[str, str], region: str) -> None:
        parts = urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidRequest(f"{endpoint} is no server's address: give one like http://127.0.0.1:8700.")
        self.endpoint = f"{parts.scheme}://{parts.netloc}"
        self._parts = parts
        self.is_here = is_loopback(parts.hostname)
        """Does it run on this machine, as far as its address tells?"""
        self._key = next(iter(keys.items()), None)
        self._region = region

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        patience: float = _PATIENCE,
    ) -> Answer:
        """One request; `patience` is the longest wait for the answer in seconds."""
        target = path + (f"?{urlencode(query)}" if query else "")
        sent = self._signed(method, target, body, dict(headers or {}))
        try:
            answer = self._exchange(method, target, body, sent, patience)
        except TimeoutError as error:
            raise PlatformError(f"The server at {self.endpoint} did not answer within {patience:.0f} s.") from error
        except (ConnectionResetError, BrokenPipeError, http.client.HTTPException) as error:
            lost = "was lost before it answered; what was asked of it may have been done."
            raise PlatformError(f"The connection to the server at {self.endpoint} {lost}") from error
        except OSError as error:
            raise PlatformError(
                f"No Torpor server answers at {self.endpoint}: start one with `torpor serve`, "
                "or name another with --endpoint."
            ) from error
        if answer.status >= http.client.BAD_REQUEST:
            raise _refusal(answer)
        return answer

    def send(self, method: str, path: str, value: object, patience: float = _PATIENCE) -> Answer:
        """One request with a JSON body."""
        body = json.dumps(value).encode()
        return self.request(method, path, body=body, headers={"Content-Type": "application/json"}, patience=patience)

    def get(self, path: str) -> Any:
        """The JSON found at `path`."""
        return self.request("GET", path).json

    def _exchange(self, method: str, target: str, body: bytes, headers: dict[str, str], patience: float) -> Answer:
        secure = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(self._parts.hostname or "", self._parts.port, timeout=patience)
        try:
            connection.request(method, target, body, headers)
            reply = connection.getresponse()
            named = {name.lower(): value for name, value in reply.getheaders()}
            return Answer(status=reply.status, headers=named, body=reply.read())
        finally:
            connection.close()

    def _signed(self, method: str, target: str, body: bytes, headers: dict[str, str]) -> dict[str, str]:
        if self._key is None:
            return headers
        if target.startswith(_FC_PATHS):
            return _signed_for_fc(method, target, body, headers, *self._key)
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        request = AWSRequest(method, self.endpoint + target, headers=headers, data=body)
        SigV4Auth(Credentials(*self._key), "lambda", self._region).add_auth(request)
        return dict(request.headers.items())


class _Fields(dict[str, str]):
    """Header fields by their names in lower case."""

    def get(self, name: str, default: str = "", /) -> str:  # type: ignore[override]
        return super().get(name.lower(), default)


def _signed_for_fc(
    method: str, target: str, body: bytes, headers: dict[str, str], key: str, secret: str
) -> dict[str, str]:
    from torpor.contracts.function_compute.signing_classic import authorization

    path, _, query = target.partition("?")
    fields = _Fields({name.lower(): value for name, value in headers.items()} | {"date": formatdate(usegmt=True)})
    request = ApiRequest(method=method, path=path, query=query, headers=fields, body=body)
    return {**fields, "authorization": authorization(request, key, secret)}


def client(endpoint: str | None) -> Client:
    """The server at `endpoint`, or the one the settings in force describe. Raises InvalidRequest."""
    settings = resolve()
    return Client(endpoint or _endpoint(settings), keys=settings.access_keys, region=settings.region)


def function_path(name: str, *rest: str) -> str:
    """The path of a function's resource."""
    return "/".join((FUNCTIONS, quote(name, safe=""), *rest))


def _endpoint(settings: Settings) -> str:
    host = "127.0.0.1" if settings.host in _WILDCARDS or is_loopback(settings.host) else settings.host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def _refusal(answer: Answer) -> TorporError:
    try:
        value = json.loads(answer.body)
        message = str(value.get("message") or value.get("Message") or "") if isinstance(value, dict) else ""
    except ValueError:
        message = ""
    message = message or f"The server answered {answer.status} without saying why."
    if answer.status == http.client.NOT_FOUND:
        return NotFound(message)
    if answer.status == http.client.FORBIDDEN:
        return AccessDenied(f"{message.rstrip('.')}. Set the server's access keys (TORPOR_ACCESS_KEYS=ID:SECRET).")
    return CallerError(message) if answer.status < http.client.INTERNAL_SERVER_ERROR else PlatformError(message)
