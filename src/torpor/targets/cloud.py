"""Operations of cloud services, through their vendor's client library: at its own addresses, or at one endpoint that
speaks as they do."""

import threading
from collections.abc import Mapping
from functools import partial
from typing import Any

from torpor.model.errors import TargetDown, TargetRefused, TorporError
from torpor.model.parcel import ToService
from torpor.targets.aside import aside

_CONNECT = 5.0
_READ = 30.0
"""Seconds; more than a queue lets anybody wait for a message."""
_SERVER_ERROR = 500
_LATER = frozenset((408, 429))
_THROTTLES = ("Throttl", "TooManyRequests", "RequestLimitExceeded", "SlowDown", "LimitExceeded")
_DUMMY = "test"
"""Stands for a key where requests go to an endpoint that was named, and the server's environment has none."""


class CloudServices:
    """Calls of any service, each in a thread of its own."""

    def __init__(self, endpoint: str = "") -> None:
        """`endpoint` answers for every service; empty for the vendor's own."""
        self._endpoint = endpoint
        self._clients: dict[tuple[str, str], Any] = {}
        self._making = threading.Lock()
        self._session: Any = None

    async def send(self, parcel: ToService) -> None:
        """Raises TargetDown or TargetRefused."""
        await self.call(parcel)

    async def call(self, parcel: ToService) -> Mapping[str, Any]:
        """What the service answers. Raises TargetDown or TargetRefused."""
        return await aside(partial(self._call, parcel))

    def _call(self, parcel: ToService) -> Mapping[str, Any]:
        try:
            operation = getattr(self._client(parcel.service, parcel.region), parcel.operation)
            answer: Mapping[str, Any] = operation(**parcel.values)
        except Exception as error:
            raise _translated(error) from error
        _check_entries(answer)
        return answer

    def _client(self, service: str, region: str) -> Any:
        with self._making:  # the library's sessions are not safe for threads, its clients are
            client = self._clients.get((service, region))
            if client is None:
                client = self._clients[service, region] = self._made(service, region)
            return client

    def _made(self, service: str, region: str) -> Any:
        # Imported only when needed: most servers send nothing anywhere.
        import botocore.session
        from botocore.config import Config

        self._session = self._session or botocore.session.get_session()
        config = Config(
            connect_timeout=_CONNECT,
            read_timeout=_READ,
            max_pool_connections=64,
            retries={"total_max_attempts": 1},
            s3={"addressing_style": "path" if self._endpoint else "auto"},
        )
        if self._endpoint and self._session.get_credentials() is None:
            self._session.set_credentials(_DUMMY, _DUMMY)
        place = {"endpoint_url": self._endpoint} if self._endpoint else {}
        return self._session.create_client(service, region_name=region, config=config, **place)


def _check_entries(answer: Mapping[str, Any]) -> None:
    """Some operations succeed as a whole while they refuse what they were given."""
    if answer.get("FailedEntryCount"):
        entry: Mapping[str, Any] = next((entry for entry in answer.get("Entries", ()) if entry.get("ErrorCode")), {})
        code = str(entry.get("ErrorCode", ""))
        kind = TargetDown if code.startswith(("Internal", *_THROTTLES)) else TargetRefused
        raise kind(f"{code}: {entry.get('ErrorMessage', 'no reason given')}")


def _translated(error: Exception) -> TorporError:
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        told = error.response.get("Error", {})
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", _SERVER_ERROR)
        code, message = str(told.get("Code", status)), str(told.get("Message", ""))
        later = status >= _SERVER_ERROR or status in _LATER or code.startswith(_THROTTLES)
        return (TargetDown if later else TargetRefused)(f"{code}: {message}"[:500])
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return TargetDown(
            "The server's environment has no credentials for this service; set them, or name an endpoint."
        )
    if isinstance(error, exceptions.ParamValidationError):
        return TargetRefused(str(error)[:500])
    return TargetDown(f"{type(error).__name__}: {error}"[:500])
