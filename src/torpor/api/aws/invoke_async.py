"""InvokeAsync, the older operation for asynchronous invocations (9.8)."""

import asyncio

from torpor.api.aws.call import Call, Handler, Reply
from torpor.api.aws.invocations import Invocations
from torpor.contracts.lambda_ import limits
from torpor.contracts.lambda_.identifiers import new_request_id
from torpor.contracts.lambda_.invoke_request import InvokeRequest
from torpor.contracts.lambda_.invoking import check_payload, check_size
from torpor.contracts.lambda_.wire import ApiResponse
from torpor.model.errors import StoreUnavailable

_ACCEPTED = 202


class InvokeAsyncOperations:
    """The one operation."""

    def __init__(self, invocations: Invocations) -> None:
        self._invocations = invocations

    def handlers(self) -> dict[str, Handler]:
        """By operation name."""
        return {"InvokeAsync": self.invoke}

    async def invoke(self, call: Call) -> Reply:
        """InvokeAsync: as Invoke with the type Event, for smaller payloads and without a trace."""
        payload = call.values["InvokeArgs"]
        check_size(len(payload), limits.EVENT_MAX_OLD)
        check_payload(payload)
        request = InvokeRequest(function=call.function, kind="Event", payload=payload or b"{}")
        answered: asyncio.Future[ApiResponse] = asyncio.get_running_loop().create_future()
        self._invocations.begin(request, call.place, new_request_id(), answered.set_result)
        answer = await answered
        if answer.status != _ACCEPTED:
            raise StoreUnavailable("The event could not be kept; send it again.")
        return Reply(_ACCEPTED)
