"""Signature Version 4: who signed a request, for which region, and whether the signature is right (9.2).

A server without keys verifies nothing, but still reads the region from the credential scope.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, unquote

from torpor.contracts import limits
from torpor.contracts.api_failure import ApiFailure
from torpor.contracts.http import ApiRequest

ALGORITHM = "AWS4-HMAC-SHA256"
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256\s+Credential=(?P<credential>[^,\s]+)\s*,\s*"
    r"SignedHeaders=(?P<headers>[^,\s]+)\s*,\s*Signature=(?P<signature>[0-9a-f]{64})\s*"
)
_SCOPE = re.compile(r"Credential=[^/,\s]+/[0-9]{8}/([a-z0-9-]+)/")
_DATE = "%Y%m%dT%H%M%SZ"
MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What a request says about its own signature."""

    access_key: str
    day: str
    region: str
    service: str
    date: str
    headers: tuple[str, ...]
    signature: str
    lifetime: float | None = None
    """Seconds for which a pre-signed request holds; None for a signed header."""

    @property
    def scope(self) -> str:
        return f"{self.day}/{self.region}/{self.service}/aws4_request"


def region_of(request: ApiRequest, default: str) -> str:
    """The region the request was signed for, verified or not."""
    authorization = request.headers.get("authorization", "")
    found = _SCOPE.search(authorization)
    if found is None and "X-Amz-Credential" in request.query:
        found = _SCOPE.search("Credential=" + dict(parse_qsl(request.query)).get("X-Amz-Credential", ""))
    return found[1] if found else default


def verify(request: ApiRequest, keys: Mapping[str, str], now: float, service: str) -> str:
    """Check the signature, which has to be for `service`, and return the access key id that made it; `now` is in
    seconds since the epoch.

    Raises ApiFailure with the service's codes when it is missing, malformed, stale, by an unknown key or wrong.
    """
    signed = _read(request)
    secret = keys.get(signed.access_key)
    if secret is None:
        raise ApiFailure("UnrecognizedClientException", "The security token included in the request is invalid.")
    _check_scope(signed, service)
    _check_time(signed, now)
    _check_signed_headers(signed, request)
    claimed = signed.signature.encode()
    if not any(hmac.compare_digest(valid.encode(), claimed) for valid in _signatures(signed, request, secret)):
        raise ApiFailure("InvalidSignatureException", MISMATCH)
    return signed.access_key


def signer_of(request: ApiRequest) -> str:
    """The access key id that a request says has signed it, believed as it stands: for servers without keys.

    Raises ApiFailure when a signature is missing or malformed."""
    return _read(request).access_key


def is_signed(request: ApiRequest) -> bool:
    """Does the request carry a signature, good or not?"""
    return bool(request.headers.get("authorization", "")) or "X-Amz-Signature=" in request.query


def _read(request: ApiRequest) -> Signed:
    authorization = request.headers.get("authorization", "")
    if authorization:
        return _from_header(authorization, request)
    query = dict(parse_qsl(request.query, keep_blank_values=True))
    if "X-Amz-Signature" in query:
        return _from_query(query)
    raise ApiFailure("MissingAuthenticationTokenException", "Missing Authentication Token")


def _from_header(authorization: str, request: ApiRequest) -> Signed:
    found = _AUTHORIZATION.fullmatch(authorization.strip())
    date = request.headers.get("x-amz-date", "")
    if found is None or not date:
        raise _incomplete("Authorization has to hold Credential, SignedHeaders and Signature, beside X-Amz-Date.")
    return _signed(found["credential"], date, found["headers"], found["signature"], None)


def _from_query(query: Mapping[str, str]) -> Signed:
    try:
        lifetime = float(query["X-Amz-Expires"])
        parts = (query["X-Amz-Credential"], query["X-Amz-Date"], query["X-Amz-SignedHeaders"])
    except (KeyError, ValueError) as error:
        raise _incomplete("A pre-signed request lacks Credential, Date, Expires or SignedHeaders.") from error
    if query.get("X-Amz-Algorithm") != ALGORITHM or not 0 < lifetime <= limits.PRESIGNED_MAX:
        raise _incomplete("X-Amz-Algorithm or X-Amz-Expires is not supported.")
    return _signed(*parts, query["X-Amz-Signature"], lifetime)


def _signed(credential: str, date: str, headers: str, signature: str, lifetime: float | None) -> Signed:
    parts = credential.rsplit("/", 4)
    if len(parts) != 5 or parts[4] != "aws4_request":
        raise _incomplete(f"The credential is not <key>/<day>/<region>/<service>/aws4_request: {credential}")
    return Signed(
        access_key=parts[0],
        day=parts[1],
        region=parts[2],
        service=parts[3],
        date=date,
        headers=tuple(headers.split(";")),
        signature=signature,
        lifetime=lifetime,
    )


def _check_scope(signed: Signed, service: str) -> None:
    if signed.service != service:
        message = f"Credential should be scoped to correct service: '{service}'."
        raise ApiFailure("InvalidSignatureException", message)
    if not signed.date.startswith(signed.day):
        raise ApiFailure("InvalidSignatureException", "Date in Credential scope does not match the request's date.")


def _check_time(signed: Signed, now: float) -> None:
    try:
        made = datetime.strptime(signed.date, _DATE).replace(tzinfo=UTC).timestamp()
    except ValueError as error:
        raise _incomplete(f"The date is not of the form yyyymmddThhmmssZ: {signed.date}") from error
    shown = datetime.fromtimestamp(now, UTC).strftime(_DATE)
    if made > now + limits.CLOCK_SKEW:
        message = f"Signature not yet current: {signed.date} is still later than {shown} + 5 min."
        raise ApiFailure("InvalidSignatureException", message)
    if now > made + (signed.lifetime if signed.lifetime is not None else limits.CLOCK_SKEW):
        message = f"Signature expired: {signed.date} is now earlier than {shown} allows."
        raise ApiFailure("InvalidSignatureException", message)


def _check_signed_headers(signed: Signed, request: ApiRequest) -> None:
    if "host" not in signed.headers:
        raise _incomplete("The Host header has to be signed.")
    for name, _ in request.headers.items():
        lower = name.lower()
        if lower.startswith("x-amz-") and lower not in signed.headers:
            raise ApiFailure("InvalidSignatureException", f"The header {lower} is present but not signed.")


def _signatures(signed: Signed, request: ApiRequest, secret: str) -> tuple[str, ...]:
    """The valid signatures: clients differ in whether they encode a query anew or sign it as it stands."""
    query = [pair for pair in request.query.split("&") if pair and not pair.startswith("X-Amz-Signature=")]
    forms = dict.fromkeys((_query_as_sent(query), _query_encoded(query)))
    return tuple(_signature(signed, _canonical(signed, request, form), secret) for form in forms)


def _canonical(signed: Signed, request: ApiRequest, query: str) -> str:
    headers = "".join(f"{name}:{_header(request, name)}\n" for name in signed.headers)
    path = quote(_without_dots(request.path), safe="/~")
    lines = (request.method, path, query, headers, ";".join(signed.headers), _body_hash(request))
    return "\n".join(lines)


def _signature(signed: Signed, canonical: str, secret: str) -> str:
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"{ALGORITHM}\n{signed.date}\n{signed.scope}\n{digest}"
    key = b"AWS4" + secret.encode()
    for part in (signed.day, signed.region, signed.service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


def _body_hash(request: ApiRequest) -> str:
    actual = hashlib.sha256(request.body).hexdigest()
    claimed = request.headers.get("x-amz-content-sha256", "")
    if claimed and not hmac.compare_digest(claimed.encode(), actual.encode()):
        message = "The value of X-Amz-Content-Sha256 is not the SHA-256 of the request's body."
        raise ApiFailure("InvalidSignatureException", message)
    return actual


def _header(request: ApiRequest, wanted: str) -> str:
    return ",".join(" ".join(value.split()) for name, value in request.headers.items() if name.lower() == wanted)


def _query_as_sent(pairs: list[str]) -> str:
    split = sorted(tuple(pair.partition("=")[::2]) for pair in pairs)
    return "&".join(f"{name}={value}" for name, value in split)


def _query_encoded(pairs: list[str]) -> str:
    split = sorted(tuple(quote(unquote(part), safe="-_.~") for part in pair.partition("=")[::2]) for pair in pairs)
    return "&".join(f"{name}={value}" for name, value in split)


def _without_dots(path: str) -> str:
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    trailing = "/" if kept and path.endswith("/") else ""
    return "/" + "/".join(kept) + trailing


def _incomplete(message: str) -> ApiFailure:
    return ApiFailure("IncompleteSignatureException", message)
