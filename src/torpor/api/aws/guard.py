"""Who may use the server's own routes: whoever could use its API."""

from collections.abc import Callable, Mapping

from torpor.api.exchanges import request_of
from torpor.contracts.lambda_.signature import verify
from torpor.model.clock import Clock
from torpor.model.errors import TorporError
from torpor.transport import Exchange


def operator_guard(keys: Mapping[str, str], clock: Clock) -> Callable[[Exchange], bool]:
    """A check that a request is signed with one of `keys`; without keys every (local) request passes."""

    def allowed(exchange: Exchange) -> bool:
        if not keys:
            return True
        try:
            verify(request_of(exchange), keys, clock.wall())
        except TorporError:
            return False
        return True

    return allowed
