"""InvokeAsync, the older operation for asynchronous invocations (9.8)."""

import asyncio

from torpor.api.aws.call import Call, Handler, Reply
from torpor.api.aws.invocations import Invocations
from torpor.contracts.lambda_ import limits
from torpor.contracts.lambda_.invoke_request import InvokeRequest
from torpor.contracts.lambda_.invoking import check_payload, check_size
from torpor.model.errors import TorporError

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
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def told(error: TorporError | None) -> None:
            if error is None:
                kept.set_result(None)
            else:
                kept.set_exception(error)

        self._invocations.begin_event(request, call.place, call.request_id, told)
        await kept
        return Reply(_ACCEPTED)
