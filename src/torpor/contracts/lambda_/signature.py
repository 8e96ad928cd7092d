"""Signatures of this API's requests (9.2)."""

from collections.abc import Mapping

from torpor.contracts import sigv4
from torpor.contracts.http import ApiRequest
from torpor.contracts.sigv4 import is_signed, region_of, signer_of

__all__ = ["SERVICE", "is_signed", "region_of", "signer_of", "verify"]

SERVICE = "lambda"


def verify(request: ApiRequest, keys: Mapping[str, str], now: float) -> str:
    """See `sigv4.verify`."""
    return sigv4.verify(request, keys, now, SERVICE)
