"""A call of Invoke."""

import msgspec

from torpor.contracts.lambda_.names import FunctionName


class InvokeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A checked call of Invoke."""

    function: FunctionName
    kind: str
    """`RequestResponse`, `Event` or `DryRun`."""
    payload: bytes
    wants_log: bool = False
    client_context: str = ""
    trace: str = ""
    tenant: str = ""
