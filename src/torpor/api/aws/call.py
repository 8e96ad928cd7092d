"""One call of a control-plane operation, and how its answer is written."""

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from torpor.contracts.lambda_.failures_api import told_of_function
from torpor.contracts.lambda_.names import FunctionName, Place, function_name
from torpor.contracts.lambda_.wire import JSON, ApiResponse
from torpor.model.errors import TorporError


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The checked input of an operation, and where it arrived."""

    values: Mapping[str, Any]
    place: Place
    base_url: str
    """How the caller reaches this server, without a slash at the end."""
    request_id: str = ""

    @property
    def function(self) -> FunctionName:
        """The function the call is about. Raises ApiFailure."""
        return function_name(self.values["FunctionName"], self.values.get("Qualifier", ""), self.place)


@dataclass(frozen=True, slots=True)
class Reply:
    """What an operation answers; None stands for an empty body."""

    status: int
    body: Mapping[str, Any] | None = None


Handler: TypeAlias = Callable[[Call], Awaitable[Reply]]


def render_reply(reply: Reply, request_id: str) -> ApiResponse:
    """The answer of a successful call."""
    headers = (("Content-Type", JSON), ("x-amzn-RequestId", request_id))
    body = b"" if reply.body is None else json.dumps(reply.body, separators=(",", ":")).encode()
    return ApiResponse(status=reply.status, headers=headers, body=body)


@contextmanager
def about(call: Call, named: FunctionName) -> Iterator[None]:
    """Errors of the services leave the block in the cloud's own words."""
    try:
        yield
    except TorporError as error:
        told = told_of_function(error, call.place.function_arn(named.name, named.qualifier))
        if told is error:
            raise
        raise told from error
