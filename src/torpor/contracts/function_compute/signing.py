"""Who signed a request, and is the signature right? Every scheme that the generations' clients use (3.3)."""

import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import msgspec

from torpor.contracts.function_compute import limits, signing_acs, signing_classic
from torpor.contracts.function_compute.api_failures import MISMATCH, ApiFailure, invalid
from torpor.contracts.http import ApiRequest


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """What a request says about its own signature."""

    access_key: str
    signature: str
    date: str
    expires: float | None = None
    """Seconds since the epoch until which a signed link holds; None for a signed request."""


def verify(request: ApiRequest, keys: Mapping[str, str], now: float, *, trigger: bool = False) -> str:
    """Check the signature and return the access key id that made it; `now` is in seconds since the epoch.

    `trigger` is for requests that call a function by HTTP: these are signed in their own way. Raises ApiFailure with
    the service's codes when the signature is missing, malformed, stale, by an unknown key or wrong.
    """
    scheme, signed = _read(request)
    secret = keys.get(signed.access_key)
    if secret is None:
        raise ApiFailure("InvalidAccessKeyID", f"invalid access key ID '{signed.access_key}'")
    _check_time(signed, now)
    valid = _SCHEMES[scheme].signatures(request, secret, trigger=trigger)
    claimed = signed.signature.encode()
    # Every candidate is compared, so that the time tells nothing about which one matched.
    if not any([hmac.compare_digest(candidate.encode(), claimed) for candidate in valid]):
        raise ApiFailure("SignatureNotMatch", MISMATCH)
    return signed.access_key


_SCHEMES: Mapping[str, "signing_acs.Scheme"] = {
    "FC": signing_classic.HeaderScheme(),
    "link": signing_classic.LinkScheme(),
    "acs": signing_acs.OldScheme(),
    "ACS3-HMAC-SHA256": signing_acs.CurrentScheme(),
}


def _read(request: ApiRequest) -> tuple[str, Signed]:
    authorization = request.headers.get("authorization").strip()
    if not authorization:
        if not signing_classic.has_link_signature(request):
            raise _missing("Authorization")
        key, signature, expires = signing_classic.read_link(request)
        return "link", Signed(access_key=key, signature=signature, date="", expires=_epoch(expires))
    scheme, _, rest = authorization.partition(" ")
    if scheme not in _SCHEMES or scheme == "link":
        raise invalid(f"authorization scheme '{scheme}' is not supported")
    key, signature = _SCHEMES[scheme].read(rest)
    return scheme, Signed(access_key=key, signature=signature, date=_date_of(request, scheme))


def _date_of(request: ApiRequest, scheme: str) -> str:
    field = request.headers.get
    date = field("x-acs-date") if scheme == "ACS3-HMAC-SHA256" else field("date") or field("x-fc-date")
    if not date:
        raise _missing("x-acs-date" if scheme == "ACS3-HMAC-SHA256" else "Date")
    return date


def _check_time(signed: Signed, now: float) -> None:
    if signed.expires is not None:
        if now > signed.expires:
            raise ApiFailure("AccessDenied", "the signed URL has expired")
        return
    made = _parsed(signed.date)
    if abs(now - made) > limits.CLOCK_SKEW:
        shown = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        message = f"the difference between the request time '{signed.date}' and the current time '{shown}' is too large"
        raise ApiFailure("AccessDenied", message)


def _parsed(date: str) -> float:
    try:
        if date[:1].isdigit():
            return datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp()
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError) as error:
        raise invalid(f"the request's date '{date}' is not valid") from error


def _epoch(text: str) -> float:
    try:
        return float(int(text))
    except ValueError as error:
        raise invalid(f"x-fc-expires '{text}' is not a number of seconds") from error


def _missing(name: str) -> ApiFailure:
    return ApiFailure("MissingRequiredHeader", f"required HTTP header {name} was not specified")
