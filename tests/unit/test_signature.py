"""Requests signed by the official client, checked by hand-written verification."""

import datetime
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from torpor.contracts.lambda_.failures_api import ApiFailure
from torpor.contracts.lambda_.signature import region_of, verify
from torpor.contracts.lambda_.wire import ApiRequest

KEYS = {"AKIA": "secret", "OTHER": "another"}
FUNCTIONS = "/2015-03-31/functions"


class Fields:
    """Header fields as a server sees them."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self.pairs = list(pairs)

    def get(self, name: str, default: str = "", /) -> str:
        return next((value for key, value in self.pairs if key.lower() == name.lower()), default)

    def items(self) -> list[tuple[str, str]]:
        return self.pairs


def received(method: str, url: str, headers: Iterable[tuple[str, str]], body: bytes) -> ApiRequest:
    parts = urlsplit(url)
    return ApiRequest(method=method, path=parts.path, query=parts.query, headers=Fields(headers), body=body)


def signed(
    target: str,
    *,
    method: str = "POST",
    body: bytes = b"{}",
    key: str = "AKIA",
    secret: str = "secret",
    region: str = "eu-west-3",
    service: str = "lambda",
    token: str | None = None,
    headers: dict[str, str] | None = None,
) -> ApiRequest:
    url = "http://localhost:9001" + target
    request = AWSRequest(method=method, url=url, data=body, headers=headers or {})
    auth.SigV4Auth(Credentials(key, secret, token), service, region).add_auth(request)
    fields = [("Host", "localhost:9001"), ("User-Agent", "any"), *request.headers.items()]
    return received(method, url, fields, body)


def presigned(target: str, *, lifetime: int = 60, body: bytes = b"") -> ApiRequest:
    request = AWSRequest(method="GET", url="http://localhost:9001" + target, data=body)
    auth.SigV4QueryAuth(Credentials("AKIA", "secret"), "lambda", "eu-west-3", expires=lifetime).add_auth(request)
    return received("GET", request.url, [("Host", "localhost:9001")], body)


def now() -> float:
    return datetime.datetime.now(datetime.UTC).timestamp()


def code_of(request: ApiRequest, moment: float | None = None) -> str:
    with pytest.raises(ApiFailure) as error:
        verify(request, KEYS, now() if moment is None else moment)
    return error.value.code


def changed(request: ApiRequest, **fields: Any) -> ApiRequest:
    values = {name: getattr(request, name) for name in ("method", "path", "query", "headers", "body")}
    return ApiRequest(**(values | fields))


@pytest.mark.parametrize(
    "target",
    [
        FUNCTIONS,
        FUNCTIONS + "/",
        FUNCTIONS + "/f/invocations",
        FUNCTIONS + "/arn%3Aaws%3Alambda%3Aeu-west-3%3A000000000000%3Afunction%3Af/invocations",
        FUNCTIONS + "/a/../f//invocations",
        "/2017-03-31/tags/arn%3Aaws?tagKeys=b&tagKeys=a&tagKeys=a%20b",
        FUNCTIONS + "?MaxItems=2&Marker=a%2Bb%3D&Empty=&flag",
        FUNCTIONS + "?z=%C3%BC&a=~x*y%2A&a=%7e",
        "/",
    ],
)
def test_request_signed_by_the_client_is_accepted(target: str) -> None:
    assert verify(signed(target), KEYS, now()) == "AKIA"


def test_header_values_are_compared_without_extra_blanks() -> None:
    request = signed(FUNCTIONS, headers={"X-Amz-Client-Context": "a   b"})
    assert verify(request, KEYS, now()) == "AKIA"


def test_query_that_another_client_signs_in_encoded_form_is_accepted() -> None:
    request = signed(FUNCTIONS + "?a=%2A&b=~")
    assert verify(changed(request, query="b=%7e&a=%2a"), KEYS, now()) == "AKIA"


def test_temporary_credentials_sign_their_token_too() -> None:
    request = signed(FUNCTIONS, token="session")
    assert verify(request, KEYS, now()) == "AKIA"
    headers = [(k, "forged" if k == "X-Amz-Security-Token" else v) for k, v in request.headers.items()]
    assert code_of(changed(request, headers=Fields(headers))) == "InvalidSignatureException"


@pytest.mark.parametrize(
    "change",
    [
        {"body": b'{"more":1}'},
        {"method": "PUT"},
        {"path": FUNCTIONS + "/g"},
        {"query": "Qualifier=2"},
        {"query": "Qualifier=1&Qualifier=2"},
    ],
)
def test_changed_request_is_refused(change: dict[str, Any]) -> None:
    request = signed(FUNCTIONS + "/f?Qualifier=1")
    assert code_of(changed(request, **change)) == "InvalidSignatureException"


def test_header_added_after_signing_is_refused() -> None:
    request = signed(FUNCTIONS)
    headers = Fields([*request.headers.items(), ("X-Amz-Invocation-Type", "DryRun")])
    assert code_of(changed(request, headers=headers)) == "InvalidSignatureException"


def test_signed_header_given_twice_is_refused() -> None:
    request = signed(FUNCTIONS, headers={"X-Amz-Invocation-Type": "DryRun"})
    headers = Fields([*request.headers.items(), ("X-Amz-Invocation-Type", "Event")])
    assert code_of(changed(request, headers=headers)) == "InvalidSignatureException"


def test_content_hash_that_is_not_the_bodys_is_refused() -> None:
    request = signed(FUNCTIONS, headers={"X-Amz-Content-Sha256": "UNSIGNED-PAYLOAD"})
    assert code_of(request) == "InvalidSignatureException"


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"key": "NOBODY"}, "UnrecognizedClientException"),
        ({"secret": "wrong"}, "InvalidSignatureException"),
        ({"key": "OTHER"}, "InvalidSignatureException"),
        ({"service": "s3"}, "InvalidSignatureException"),
    ],
)
def test_wrong_key_secret_or_service_is_refused(values: dict[str, Any], code: str) -> None:
    assert code_of(signed(FUNCTIONS, **values)) == code


@pytest.mark.parametrize(("offset", "accepted"), [(290, True), (310, False), (-290, True), (-310, False)])
def test_clock_may_differ_by_five_minutes(offset: int, accepted: bool) -> None:
    request = signed(FUNCTIONS)
    if accepted:
        assert verify(request, KEYS, now() + offset) == "AKIA"
    else:
        assert code_of(request, now() + offset) == "InvalidSignatureException"


def test_unsigned_request_is_refused() -> None:
    request = received("GET", "http://localhost" + FUNCTIONS, [("Host", "localhost")], b"")
    assert code_of(request) == "MissingAuthenticationTokenException"


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer abc",
        "AWS4-HMAC-SHA256 Credential=AKIA, SignedHeaders=host, Signature=" + "0" * 64,
        "AWS4-HMAC-SHA256 Credential=AKIA/20260101/r/lambda/aws4_request, SignedHeaders=host, Signature=zz",
        "AWS4-HMAC-SHA256 Credential=AKIA/20260101/r/lambda/aws4_request, Signature=" + "0" * 64,
    ],
)
def test_malformed_authorization_is_refused(authorization: str) -> None:
    headers = [("Host", "x"), ("X-Amz-Date", "20260101T000000Z"), ("Authorization", authorization)]
    request = received("GET", "http://localhost" + FUNCTIONS, headers, b"")
    assert code_of(request) == "IncompleteSignatureException"


def test_presigned_request_holds_until_it_expires() -> None:
    request = presigned(FUNCTIONS + "/f?Qualifier=%24LATEST", lifetime=60)
    assert verify(request, KEYS, now() + 58) == "AKIA"
    assert code_of(request, now() + 62) == "InvalidSignatureException"


def test_changed_presigned_request_is_refused() -> None:
    request = presigned(FUNCTIONS + "/f?Qualifier=1")
    for old, new in (("Qualifier=1", "Qualifier=2"), ("Expires=60", "Expires=99"), ("Signature=", "Signature=%C3%BC")):
        query = request.query.replace(old, new)
        assert query != request.query
        assert code_of(changed(request, query=query)) == "InvalidSignatureException"


@pytest.mark.parametrize("expires", ["0", "604801", "nan", "inf", "soon"])
def test_presigned_request_without_a_sensible_lifetime_is_refused(expires: str) -> None:
    request = presigned(FUNCTIONS)
    query = request.query.replace("X-Amz-Expires=60", f"X-Amz-Expires={expires}")
    assert code_of(changed(request, query=query)) == "IncompleteSignatureException"


def test_region_is_read_from_the_scope_of_either_form() -> None:
    assert region_of(signed(FUNCTIONS, region="ap-south-2"), "us-east-1") == "ap-south-2"
    assert region_of(presigned(FUNCTIONS), "us-east-1") == "eu-west-3"
    assert region_of(received("GET", "http://localhost/", [], b""), "us-east-1") == "us-east-1"
