"""The event of a function behind a URL, field by field."""

import base64
import json
from typing import Any

import pytest

from torpor.contracts.lambda_.url_event import Signer, UrlRequest, url_event
from torpor.contracts.lambda_.url_source import source_of
from torpor.transport import Headers

ID = "abcdefghijklmnopqrstuvwxyz012345"
DOMAIN = f"{ID}.lambda-url.us-west-2.on.aws"
Fields = list[tuple[str, str]]
NOW = 1583348638.390


def event(
    target: str = "/",
    fields: Fields | None = None,
    body: bytes = b"",
    *,
    method: str = "GET",
    peer: str = "1.2.3.4",
    signer: Signer | None = None,
) -> Any:
    given = [("Host", DOMAIN), *(fields or [])]
    headers = Headers([(name.encode("latin-1"), value.encode("latin-1")) for name, value in given])
    request = UrlRequest(
        identity=ID,
        domain=DOMAIN,
        method=method,
        target=target,
        headers=headers,
        body=body,
        source=source_of(peer, headers),
        signer=signer,
        request_id="the-id",
        trace="Root=1-0-0",
        now=NOW,
    )
    return json.loads(url_event(request))


def test_a_whole_event_is_the_contracts() -> None:
    fields = [("Cookie", "c1=v1; c2=v2"), ("User-Agent", "agent"), ("Content-Type", "text/plain")]

    assert event("/my/path?a=1&a=2&b=3", fields, b"Hello", method="POST") == {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/my/path",
        "rawQueryString": "a=1&a=2&b=3",
        "cookies": ["c1=v1", "c2=v2"],
        "headers": {
            "host": DOMAIN,
            "cookie": "c1=v1; c2=v2",
            "user-agent": "agent",
            "content-type": "text/plain",
            "content-length": "5",
            "x-amzn-trace-id": "Root=1-0-0",
            "x-forwarded-for": "1.2.3.4",
            "x-forwarded-port": "80",
            "x-forwarded-proto": "http",
        },
        "queryStringParameters": {"a": "1,2", "b": "3"},
        "requestContext": {
            "accountId": "anonymous",
            "apiId": ID,
            "authentication": None,
            "domainName": DOMAIN,
            "domainPrefix": ID,
            "http": {
                "method": "POST",
                "path": "/my/path",
                "protocol": "HTTP/1.1",
                "sourceIp": "1.2.3.4",
                "userAgent": "agent",
            },
            "requestId": "the-id",
            "routeKey": "$default",
            "stage": "$default",
            "time": "04/Mar/2020:19:03:58 +0000",
            "timeEpoch": 1583348638390,
        },
        "body": "Hello",
        "isBase64Encoded": False,
    }


def test_what_is_empty_is_left_out() -> None:
    bare = event()

    assert not {"cookies", "queryStringParameters", "body"} & bare.keys()
    assert (bare["rawQueryString"], bare["isBase64Encoded"]) == ("", False)
    assert "content-length" not in bare["headers"]
    assert bare["requestContext"]["http"]["userAgent"] == ""


@pytest.mark.parametrize(
    ("target", "path", "query", "parameters"),
    [
        ("/a%20b/%C3%A4?x=%20y", "/a%20b/%C3%A4", "x=%20y", {"x": " y"}),
        ("/?x=a+b&x=%2B", "/", "x=a+b&x=%2B", {"x": "a b,+"}),
        ("/?flag&empty=", "/", "flag&empty=", {"flag": "", "empty": ""}),
        ("/?a=1?b=2", "/", "a=1?b=2", {"a": "1?b=2"}),
        ("/?&&", "/", "&&", None),
        ("/%zz%?%zz=%", "/%zz%", "%zz=%", {"%zz": "%"}),
        ("/%00?n=%00", "/%00", "n=%00", {"n": "\0"}),
        ("/?x=%ff", "/", "x=%ff", {"x": "\ufffd"}),
        ("//evil/../a", "//evil/../a", "", None),
    ],
)
def test_the_path_stays_as_it_came_and_parameters_are_decoded(
    target: str, path: str, query: str, parameters: dict[str, str] | None
) -> None:
    told = event(target)

    assert (told["rawPath"], told["rawQueryString"]) == (path, query)
    assert told["requestContext"]["http"]["path"] == path
    assert told.get("queryStringParameters") == parameters


@pytest.mark.parametrize(
    ("given", "told", "missing"),
    [
        ([("X-A", "1"), ("x-a", "2")], {"x-a": "1,2"}, []),
        ([("Cookie", "a=1;b=2"), ("cookie", "c=3")], {"cookie": "a=1;b=2; c=3"}, []),
        ([("Connection", "close, X-Own"), ("X-Own", "1")], {}, ["connection", "x-own"]),
        ([("Connection", "host")], {"host": DOMAIN}, ["connection"]),
        ([("Transfer-Encoding", "chunked"), ("TE", "x"), ("Upgrade", "h2c"), ("Keep-Alive", "5"), ("Expect", "x"),
          ("Proxy-Authorization", "secret")], {},
         ["transfer-encoding", "te", "upgrade", "keep-alive", "expect", "proxy-authorization"]),
        ([("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-Host", "evil"), ("Forwarded", "for=6.6.6.6")],
         {"x-forwarded-for": "1.2.3.4"}, ["x-forwarded-host", "forwarded"]),
        ([("X-Amzn-Trace-Id", "Root=made-up")], {"x-amzn-trace-id": "Root=1-0-0"}, []),
        ([("Authorization", "Bearer t")], {"authorization": "Bearer t"}, []),
        ([("X-Umlaut", "\xe4")], {"x-umlaut": "\xe4"}, []),
    ],
)  # fmt: skip
def test_headers_are_lower_case_and_joined_without_those_of_the_connection(
    given: Fields, told: dict[str, str], missing: list[str]
) -> None:
    headers = event("/", given)["headers"]

    assert headers | told == headers
    assert not set(missing) & headers.keys()


def test_a_proxy_of_this_machine_says_where_a_request_comes_from() -> None:
    given = [("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "shop.example")]
    told = event("/", given, peer="127.0.0.1")

    assert told["requestContext"]["http"]["sourceIp"] == "1.2.3.4"
    expected = {
        "x-forwarded-for": "1.2.3.4",
        "x-forwarded-proto": "https",
        "x-forwarded-port": "443",
        "x-forwarded-host": "shop.example",
    }
    assert told["headers"] | expected == told["headers"]


@pytest.mark.parametrize(
    ("content_type", "body", "is_text"),
    [
        ("text/plain", b"Hello", True),
        ("text/html; charset=utf-8", "hä".encode(), True),
        ("application/json", b'{"a": 1}', True),
        ("Application/JSON;charset=utf-8", b"{}", True),
        ("application/problem+json", b"{}", True),
        ("application/xml", b"<a/>", True),
        ("image/svg+xml", b"<a/>", True),
        ("application/javascript", b"1", True),
        ("text/plain", b"\0", True),
        ("text/plain", b"\xff", False),
        ("application/json", b"\x1f\x8b\x08", False),
        ("application/x-www-form-urlencoded", b"a=1", False),
        ("multipart/form-data; boundary=x", b"--x--", False),
        ("application/octet-stream", b"abc", False),
        ("image/png", b"\x89PNG", False),
        ("", b"abc", False),
    ],
)
def test_a_body_is_text_if_its_type_says_so_and_base64_otherwise(content_type: str, body: bytes, is_text: bool) -> None:
    told = event("/", [("Content-Type", content_type)] if content_type else [], body)

    assert told["isBase64Encoded"] is not is_text
    assert told["body"] == (body.decode() if is_text else base64.b64encode(body).decode())


def test_who_signed_stands_in_the_event_and_the_signature_does_not() -> None:
    signer = Signer(access_key="AKIATEST", account="111122223333", region="us-west-2")
    given = [("Authorization", "AWS4-HMAC-SHA256 …".encode().decode("latin-1")), ("X-Amz-Date", "20200304T190358Z")]
    told = event("/", given, signer=signer)

    assert told["requestContext"]["accountId"] == "111122223333"
    assert told["requestContext"]["authorizer"] == {
        "iam": {
            "accessKey": "AKIATEST",
            "accountId": "111122223333",
            "callerId": "111122223333",
            "cognitoIdentity": None,
            "principalOrgId": None,
            "userArn": "arn:aws:iam::111122223333:root",
            "userId": "111122223333",
        }
    }
    assert "authorization" not in told["headers"]
    assert told["headers"]["x-amz-date"] == "20200304T190358Z"
