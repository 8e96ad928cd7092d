"""Requests by function URL: how they are found, let in, told to the function, and answered."""

import gzip
import http.client
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from tests.contracts.aws_support import KEYS, new_function
from tests.contracts.url_support import Answer, UrlServer, open_url, serving_urls, url_of

from torpor.api.aws import AwsSettings
from torpor.model.errors import PlatformError, ShuttingDown, Throttled
from torpor.model.invocation import Outcome, OutcomeStatus

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
FORBIDDEN = {
    "Message": "Forbidden. For troubleshooting Function URL authorization issues, see: "
    "https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html"
}
UNKNOWN = "a" * 32
SHOP = "https://shop.example"
PRELUDE = "application/vnd.awslambda.http-integration-response"
END = b"\0" * 8


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UrlServer]:
    with serving_urls(tmp_path_factory.mktemp("code"), AwsSettings(keys=KEYS)) as running:
        yield running


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UrlServer]:
    """A server without keys."""
    with serving_urls(tmp_path_factory.mktemp("code"), AwsSettings()) as running:
        yield running


@pytest.fixture(scope="module")
def url(client: Any) -> str:
    return open_url(client, "open")


@pytest.fixture(autouse=True)
def echoing(server: UrlServer) -> None:
    server.runner.script = None
    server.runner.seen.clear()


def json_of(answer: Answer) -> Any:
    return json.loads(answer.body)


# How a request gets there


def test_a_request_becomes_an_event_and_the_result_its_answer(server: UrlServer, url: str) -> None:
    server.runner.answers({"statusCode": 201, "headers": {"X-Own": "1"}, "cookies": ["a=b"], "body": "made"})
    fields = [("X-A", "1"), ("x-a", "2"), ("Cookie", "c=d"), ("Content-Type", "text/plain")]
    answer = server.call(url, "/a%20b?x=1&x=2", method="PUT", fields=fields, body="hä".encode())

    assert (answer.status, answer.body) == (201, b"made")
    assert (answer.get("x-own"), answer.get("set-cookie"), answer.get("content-type")) == (
        "1", "a=b", "application/json",
    )  # fmt: skip
    event, (version, invocation) = server.runner.event, server.runner.seen[-1]
    assert (event["rawPath"], event["queryStringParameters"], event["body"]) == ("/a%20b", {"x": "1,2"}, "hä")
    assert (event["headers"]["x-a"], event["cookies"]) == ("1,2", ["c=d"])
    context = event["requestContext"]
    assert context["domainName"] == server.host(url).partition(":")[0]
    assert (context["domainPrefix"], context["apiId"], context["accountId"]) == (url, url, "anonymous")
    assert "authorizer" not in context
    assert re.fullmatch(UUID, context["requestId"])
    assert answer.get("x-amzn-requestid") == context["requestId"] == invocation.id
    assert event["headers"]["x-amzn-trace-id"] == answer.get("x-amzn-trace-id") == invocation.trace
    assert (version.function, invocation.resource) == ("open", "arn:aws:lambda:us-east-1:000000000000:function:open")
    assert re.fullmatch(r"\d\d/[A-Z][a-z][a-z]/\d{4}:\d\d:\d\d:\d\d \+0000", context["time"])


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "PURGE"])
def test_any_method_is_taken(server: UrlServer, url: str, method: str) -> None:
    answer = server.call(url, "/", method=method)

    assert answer.status == 200
    assert server.runner.event["requestContext"]["http"]["method"] == method
    assert (answer.body == b"") is (method == "HEAD")


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body_have_none(server: UrlServer, url: str, status: int) -> None:
    server.runner.answers({"statusCode": status, "body": "dropped"})
    answer = server.call(url)

    assert (answer.status, answer.body, answer.get("content-length")) == (status, b"", None)


@pytest.mark.parametrize(
    "host",
    [
        "{id}.lambda-url.us-east-1.on.aws",
        "{id}.lambda-url.us-east-1.localhost",
        "{id}.lambda-url.eu-west-9.example.com:99",
        "{ID}.LAMBDA-URL.US-EAST-1.LOCALHOST",
    ],
)
def test_any_host_that_begins_as_a_urls_is_one(server: UrlServer, url: str, host: str) -> None:
    given = host.format(id=url, ID=url.upper())
    answer = server.request("GET", "/2015-03-31/functions", [("Host", given)])

    assert answer.status == 200
    assert server.runner.event["rawPath"] == "/2015-03-31/functions"
    assert server.runner.event["requestContext"]["domainName"] == given.partition(":")[0]


def test_a_path_leads_there_as_well(server: UrlServer, url: str) -> None:
    for target, path in ((f"/_urls/{url}", "/"), (f"/_urls/{url}/x/y?a=1", "/x/y")):
        assert server.request("GET", target, [("Host", "127.0.0.1")]).status == 200
        event = server.runner.event
        assert event["rawPath"] == path
        assert event["requestContext"]["domainName"] == f"{url}.lambda-url.us-east-1.localhost"


@pytest.mark.parametrize("identity", [UNKNOWN, "x", "", "a.b", "ä"])
def test_an_unknown_url_is_forbidden(server: UrlServer, identity: str) -> None:
    answer = server.call(identity, method="POST", body=b"{}")

    assert (answer.status, json_of(answer)) == (403, {"Message": None})
    assert answer.get("x-amzn-errortype") == "AccessDeniedException"
    assert re.fullmatch(UUID, answer.get("x-amzn-requestid") or "")


def test_the_address_of_the_caller_is_the_peers_or_what_a_proxy_here_says(server: UrlServer, url: str) -> None:
    server.call(url)
    assert server.runner.event["requestContext"]["http"]["sourceIp"] == "127.0.0.1"
    server.call(url, fields=[("X-Forwarded-For", "8.8.8.8, 1.2.3.4"), ("X-Forwarded-Proto", "https")])
    event = server.runner.event
    assert event["requestContext"]["http"]["sourceIp"] == "1.2.3.4"
    assert event["headers"]["x-forwarded-proto"] == "https"


def test_the_callers_trace_goes_on(server: UrlServer, url: str) -> None:
    trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
    answer = server.call(url, fields=[("X-Amzn-Trace-Id", trace)])

    counted = answer.get("x-amzn-trace-id")
    assert re.fullmatch(re.escape(trace) + r";Lineage=1:[0-9a-f]{8}:1", counted or "")
    assert server.runner.event["headers"]["x-amzn-trace-id"] == server.runner.seen[-1][1].trace == counted


def test_an_alias_leads_to_its_version(client: Any, server: UrlServer) -> None:
    new_function(client, "aliased")
    client.publish_version(FunctionName="aliased")
    client.create_alias(FunctionName="aliased", Name="live", FunctionVersion="1")
    identity = url_of(client, "aliased", "live")

    assert server.call(identity).status == 200
    version, invocation = server.runner.seen[-1]
    assert (version.version, invocation.qualifier) == ("1", "live")
    assert invocation.resource.endswith(":function:aliased:live")


# Bodies


def test_a_body_in_chunks_is_put_together(server: UrlServer, url: str) -> None:
    fields = [("Transfer-Encoding", "chunked"), ("Content-Type", "text/plain")]
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (b"a" * 70_000, b"b", b"c" * 3)) + b"0\r\n\r\n"
    server.call(url, method="POST", fields=fields, body=body)

    event = server.runner.event
    assert event["body"] == "a" * 70_000 + "bccc"
    assert event["headers"]["content-length"] == "70004"
    assert "transfer-encoding" not in event["headers"]


def test_a_binary_body_is_base64(server: UrlServer, url: str) -> None:
    server.call(url, method="POST", fields=[("Content-Type", "application/json")], body=gzip.compress(b"{}"))
    assert server.runner.event["isBase64Encoded"] is True


def test_a_body_of_six_megabytes_is_taken_and_one_byte_more_is_not(server: UrlServer, url: str) -> None:
    server.runner.answers({"statusCode": 200})
    limit, fields = 6 * 1024 * 1024, [("Content-Type", "text/plain")]

    # A path whose bodies the API itself would bound otherwise.
    assert server.call(url, "/2020/upload", method="POST", fields=fields, body=b"x" * limit).status == 200
    assert len(server.runner.event["body"]) == limit
    declared = server.call(url, method="POST", fields=[*fields, ("Content-Length", str(limit + 1))])
    assert declared.status == 413
    assert "must be smaller than 6291456 bytes" in json_of(declared)["message"]


def test_a_body_in_chunks_that_grows_too_large_is_refused(server: UrlServer, url: str) -> None:
    piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    answer = server.call(url, method="POST", fields=[("Transfer-Encoding", "chunked")], body=piece * 97 + b"0\r\n\r\n")
    assert answer.status == 413
    assert server.runner.seen == []


# Results that are none


@pytest.mark.parametrize(
    "result",
    [
        {"statusCode": "many"},
        {"statusCode": 99},
        {"statusCode": 200, "headers": {"a": "b\r\nc: d"}},
        {"statusCode": 200, "body": "!", "isBase64Encoded": True},
    ],
)
def test_a_malformed_answer_is_a_bad_gateway(server: UrlServer, url: str, result: Any) -> None:
    server.runner.answers(result)
    answer = server.call(url)

    assert (answer.status, answer.body) == (502, b"Internal Server Error")
    assert re.fullmatch(UUID, answer.get("x-amzn-requestid") or "")
    assert answer.get("x-amzn-trace-id")


@pytest.mark.parametrize(
    ("status", "error_type"),
    [(OutcomeStatus.ERROR, "Unhandled"), (OutcomeStatus.TIMEOUT, "Sandbox.Timedout")],
)
def test_a_function_that_fails_tells_its_caller_nothing(
    server: UrlServer, url: str, status: OutcomeStatus, error_type: str
) -> None:
    server.runner.answers({"errorMessage": "secret"}, status=status, error_type=error_type)
    answer = server.call(url)

    assert (answer.status, answer.body) == (502, b"Internal Server Error")


@pytest.mark.parametrize(
    ("error", "status", "key", "value"),
    [
        (Throttled("full", reason="ReservedFunctionConcurrentInvocationLimitExceeded"), 429, "Reason",
         "ReservedFunctionConcurrentInvocationLimitExceeded"),
        (ShuttingDown("bye"), 503, "Type", "Service"),
        (PlatformError("broken"), 500, "Type", "Service"),
    ],
)  # fmt: skip
def test_what_the_platform_refuses_has_the_apis_words(
    server: UrlServer, url: str, error: Any, status: int, key: str, value: str
) -> None:
    server.runner.fails(error)
    answer = server.call(url)

    assert (answer.status, json_of(answer)[key]) == (status, value)
    assert answer.get("x-amzn-errortype")
    assert (answer.get("x-amzn-requestid") or "").count(",") == 0


def test_a_platform_that_fails_is_no_bad_gateway(server: UrlServer, url: str) -> None:
    server.runner.answers(b"", status=OutcomeStatus.FAILURE)
    assert server.call(url).status == 500


def test_requests_a_second_are_ten_for_each_unit_of_reserved_concurrency(client: Any, server: UrlServer) -> None:
    identity = open_url(client, "bounded")
    client.put_function_concurrency(FunctionName="bounded", ReservedConcurrentExecutions=1)
    answers = [server.call(identity) for _ in range(20)]
    statuses = [answer.status for answer in answers]

    assert statuses[:10] == [200] * 10
    assert 429 in statuses
    refused = next(answer for answer in answers if answer.status == 429)
    assert json_of(refused)["Reason"] == "ReservedFunctionInvocationRateLimitExceeded"
    assert refused.get("retry-after") == "1"
    client.delete_function_concurrency(FunctionName="bounded")
    assert {server.call(identity).status for _ in range(20)} == {200}


# Who may


def test_a_url_open_to_all_needs_the_statement_that_says_so(client: Any, server: UrlServer) -> None:
    new_function(client, "closed")
    made = client.create_function_url_config(FunctionName="closed", AuthType="NONE")
    identity = made["FunctionUrl"].partition("://")[2].partition(".")[0]
    statement = {"FunctionName": "closed", "Action": "lambda:InvokeFunctionUrl", "Principal": "*"}

    refused = server.call(identity)
    assert (refused.status, json_of(refused)) == (403, FORBIDDEN)
    assert refused.get("x-amzn-errortype") == "AccessDeniedException"
    client.add_permission(**statement, StatementId="other", FunctionUrlAuthType="AWS_IAM")
    assert server.call(identity).status == 403
    client.add_permission(**statement, StatementId="open", FunctionUrlAuthType="NONE")
    assert server.call(identity).status == 200
    client.remove_permission(FunctionName="closed", StatementId="open")
    assert server.call(identity).status == 403
    assert len(server.runner.seen) == 1


def test_the_statement_of_the_function_does_not_open_the_url_of_an_alias(client: Any, server: UrlServer) -> None:
    open_url(client, "whole")
    client.publish_version(FunctionName="whole")
    client.create_alias(FunctionName="whole", Name="live", FunctionVersion="1")
    made = client.create_function_url_config(FunctionName="whole", Qualifier="live", AuthType="NONE")
    identity = made["FunctionUrl"].partition("://")[2].partition(".")[0]

    assert server.call(identity).status == 403


@pytest.fixture(scope="module")
def guarded(client: Any) -> str:
    new_function(client, "guarded")
    return url_of(client, "guarded", AuthType="AWS_IAM")


def signed(
    server: UrlServer,
    identity: str,
    target: str = "/",
    body: bytes = b"",
    *,
    secret: str = KEYS["AKIATEST"],
    service: str = "lambda",
    by_query: bool = False,
    by_path: bool = False,
) -> Answer:
    """A request of a client that signs; by query, as a link does, it has no body."""
    body, method = (b"", "GET") if by_query else (body, "POST")
    address = f"{server.url}/_urls/{identity}" if by_path else f"http://{server.host(identity)}"
    request = AWSRequest(method=method, url=address + target, data=body, headers={"Content-Type": "text/plain"})
    signer = (SigV4QueryAuth if by_query else SigV4Auth)(Credentials("AKIATEST", secret, "token"), service, "us-east-1")
    signer.add_auth(request)
    host, _, rest = request.url.partition("://")[2].partition("/")
    fields = [("Host", host), *request.headers.items(), ("Content-Length", str(len(body)))]
    return server.request(method, f"/{rest}", fields, body)


@pytest.mark.parametrize("by_query", [False, True])
@pytest.mark.parametrize("by_path", [False, True])
@pytest.mark.parametrize("target", ["/", "/a%20b/c?x=1&y=a%2Fb"])
def test_the_owners_signature_opens_a_guarded_url(
    server: UrlServer, guarded: str, by_query: bool, by_path: bool, target: str
) -> None:
    answer = signed(server, guarded, target, b"hello", by_query=by_query, by_path=by_path)

    assert answer.status == 200, answer.body
    event = server.runner.event
    assert event["requestContext"]["accountId"] == "000000000000"
    assert event["requestContext"]["authorizer"]["iam"]["accessKey"] == "AKIATEST"
    assert event.get("body") == (None if by_query else "hello")
    assert "authorization" not in event["headers"]


def test_a_large_signed_body_is_checked_whole(server: UrlServer, guarded: str) -> None:
    server.runner.answers({"statusCode": 200})
    assert signed(server, guarded, body=b"x" * 1_000_000).status == 200
    assert signed(server, guarded, body=b"x" * 1_000_000, secret="other").status == 403


def test_a_guarded_url_refuses_whoever_does_not_sign_right(server: UrlServer, guarded: str) -> None:
    unsigned = server.call(guarded, method="POST", body=b"{}")
    assert (unsigned.status, json_of(unsigned)) == (403, FORBIDDEN)
    for wrong in (
        signed(server, guarded, secret="other"),
        signed(server, guarded, secret="other", by_query=True),
        signed(server, guarded, service="execute-api"),
        server.call(guarded, fields=[("Authorization", "AWS4-HMAC-SHA256 nonsense")]),
        server.call(guarded, fields=[("Authorization", "Bearer token")]),
        server.call(guarded, "/?X-Amz-Signature=00"),
    ):
        assert wrong.status == 403
        assert wrong.get("x-amzn-errortype")
    assert server.runner.seen == []


def test_a_signature_is_for_one_request_only(server: UrlServer, guarded: str) -> None:
    request = AWSRequest(method="POST", url=f"http://{server.host(guarded)}/", data=b"mine")
    SigV4Auth(Credentials("AKIATEST", KEYS["AKIATEST"]), "lambda", "us-east-1").add_auth(request)
    fields = list(request.headers.items())
    assert server.call(guarded, "/", method="POST", fields=fields, body=b"mine").status == 200
    assert server.call(guarded, "/", method="POST", fields=fields, body=b"other").status == 403
    assert server.call(guarded, "/x", method="POST", fields=fields, body=b"mine").status == 403


def test_a_server_without_keys_believes_every_signature_but_no_page_that_makes_one_up(trusting: UrlServer) -> None:
    client = trusting.client()
    new_function(client, "guarded")
    identity = url_of(client, "guarded", AuthType="AWS_IAM")

    assert trusting.call(identity).status == 403
    assert signed(trusting, identity, secret="any").status == 200
    forged = "/?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a/20200101/r/lambda/aws4_request&X-Amz-Date=x"
    forged += "&X-Amz-Expires=9&X-Amz-SignedHeaders=host&X-Amz-Signature=0"
    assert trusting.call(identity, forged).status == 200
    assert trusting.call(identity, forged, fields=[("Origin", "https://evil.example")]).status == 403
    assert trusting.call(identity, forged, fields=[("Sec-Fetch-Site", "cross-site")]).status == 403
    client.update_function_url_config(FunctionName="guarded", Cors={"AllowOrigins": [SHOP]})
    assert trusting.call(identity, forged, fields=[("Origin", SHOP)]).status == 200


# Pages of other origins


@pytest.fixture(scope="module")
def shared(client: Any) -> str:
    cors = {
        "AllowOrigins": [SHOP],
        "AllowMethods": ["GET", "PUT"],
        "AllowHeaders": ["x-a"],
        "ExposeHeaders": ["x-b"],
        "AllowCredentials": True,
        "MaxAge": 60,
    }
    return open_url(client, "shared", Cors=cors)


def preflight(server: UrlServer, identity: str, origin: str) -> Answer:
    fields = [("Origin", origin), ("Access-Control-Request-Method", "PUT"), ("Access-Control-Request-Headers", "x-a")]
    return server.call(identity, "/any", method="OPTIONS", fields=fields)


def test_the_service_answers_preflights_itself(server: UrlServer, shared: str) -> None:
    answer = preflight(server, shared, SHOP)

    assert (answer.status, answer.body, server.runner.seen) == (200, b"", [])
    assert answer.get("access-control-allow-origin") == SHOP
    assert answer.get("access-control-allow-credentials") == "true"
    assert answer.get("access-control-allow-methods") == "GET,PUT"
    assert answer.get("access-control-allow-headers") == "x-a"
    assert answer.get("access-control-max-age") == "60"
    other = preflight(server, shared, "https://evil.example")
    assert (other.status, other.get("access-control-allow-origin")) == (200, None)
    assert server.call(shared, method="OPTIONS").status == 200
    assert server.runner.seen == []


def test_a_preflight_needs_neither_signature_nor_statement(client: Any, server: UrlServer) -> None:
    new_function(client, "signing-pages")
    identity = url_of(client, "signing-pages", AuthType="AWS_IAM", Cors={"AllowOrigins": [SHOP]})

    assert preflight(server, identity, SHOP).get("access-control-allow-origin") == SHOP
    refused = server.call(identity, fields=[("Origin", SHOP)])
    assert (refused.status, refused.get("access-control-allow-origin")) == (403, SHOP)


def test_the_configuration_stands_in_place_of_what_the_function_says(server: UrlServer, shared: str) -> None:
    own = {"Access-Control-Allow-Origin": "*", "access-control-allow-methods": "DELETE", "Vary": "Accept"}
    server.runner.answers({"statusCode": 200, "headers": own})
    answer = server.call(shared, fields=[("Origin", SHOP)])

    assert answer.get("access-control-allow-origin") == SHOP
    assert answer.get("access-control-allow-methods") is None
    assert answer.get("access-control-expose-headers") == "x-b"
    assert answer.get("vary") == "Accept,Origin"
    other = server.call(shared, fields=[("Origin", "https://evil.example")])
    assert (other.status, other.get("access-control-allow-origin")) == (200, None)


def test_pages_may_read_failures_too(server: UrlServer, shared: str) -> None:
    server.runner.answers({}, status=OutcomeStatus.ERROR, error_type="Unhandled")
    answer = server.call(shared, fields=[("Origin", SHOP)])

    assert (answer.status, answer.get("access-control-allow-origin")) == (502, SHOP)


def test_without_a_configuration_the_function_answers_pages_as_it_likes(server: UrlServer, url: str) -> None:
    server.runner.answers({"statusCode": 204, "headers": {"Access-Control-Allow-Origin": "*"}})
    answer = preflight(server, url, SHOP)

    assert (answer.status, answer.get("access-control-allow-origin")) == (204, "*")
    assert server.runner.event["requestContext"]["http"]["method"] == "OPTIONS"


# Streams


@pytest.fixture(scope="module")
def streamed(client: Any) -> str:
    return open_url(client, "streamed", InvokeMode="RESPONSE_STREAM", Cors={"AllowOrigins": ["*"]})


def test_a_stream_begins_with_its_prelude(server: UrlServer, streamed: str) -> None:
    head = {"statusCode": 206, "headers": {"Content-Type": "text/html", "X-A": 1}, "cookies": ["a=1", "b=2"]}
    text = json.dumps(head).encode()
    server.runner.streams(PRELUDE, [text[:5], text[5:] + END[:3], END[3:] + b"<p>", b"", b"one", b"two"])
    answer = server.call(streamed, fields=[("Origin", SHOP)])

    assert (answer.status, answer.body) == (206, b"<p>onetwo")
    assert (answer.get("content-type"), answer.get("x-a"), answer.get("set-cookie")) == ("text/html", "1", "a=1,b=2")
    assert answer.get("transfer-encoding") == "chunked"
    assert answer.get("access-control-allow-origin") == "*"
    assert answer.get("x-amzn-requestid") == server.runner.event["requestContext"]["requestId"]


def test_a_stream_without_a_prelude_is_bytes(server: UrlServer, streamed: str) -> None:
    server.runner.streams("application/octet-stream", [b"a\0b", b"c" * 200_000, b"d"])
    answer = server.call(streamed)

    assert (answer.status, answer.get("content-type")) == (200, "application/octet-stream")
    assert answer.body == b"a\0b" + b"c" * 200_000 + b"d"
    server.runner.streams("", [])
    empty = server.call(streamed)
    assert (empty.status, empty.get("content-type"), empty.body) == (200, "application/octet-stream", b"")


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("status", [200, 204, 304])
def test_a_stream_without_room_for_a_body_has_none(server: UrlServer, streamed: str, method: str, status: int) -> None:
    server.runner.streams(PRELUDE, [b'{"statusCode": %d}' % status + END, b"body"])
    answer = server.call(streamed, method=method)

    assert (answer.status, answer.body) == (status, b"body" if (method, status) == ("GET", 200) else b"")


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b"{}"],
        [b'{"statusCode": 200}' + END[:7]],
        [b"no json" + END, b"more"],
        [b'{"statusCode": 101}' + END, b"more"],
        [b'{"headers": {"a": "b\\nc: d"}}' + END],
        [b"{" * 70_000, b"{" * 70_000],
        [b"{}\0\0\0more", b"more"],
    ],
)
def test_a_stream_whose_prelude_is_none_is_a_bad_gateway(server: UrlServer, streamed: str, pieces: list[bytes]) -> None:
    server.runner.streams(PRELUDE, pieces)
    answer = server.call(streamed)

    assert (answer.status, answer.body) == (502, b"Internal Server Error")


@pytest.mark.parametrize("kind", [PRELUDE, "text/plain"])
def test_a_function_that_fails_in_the_middle_breaks_the_connection_off(
    server: UrlServer, streamed: str, kind: str
) -> None:
    failed = Outcome(status=OutcomeStatus.ERROR, payload=b"{}", error_type="Unhandled")
    server.runner.streams(kind, [b"{}" + END + b"begun"], failed)
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        server.call(streamed)


def test_a_function_that_fails_before_its_prelude_is_through_is_a_bad_gateway(server: UrlServer, streamed: str) -> None:
    failed = Outcome(status=OutcomeStatus.TIMEOUT, payload=b"{}", error_type="Sandbox.Timedout")
    server.runner.streams(PRELUDE, [b'{"statusCode": 2'], failed)

    assert server.call(streamed).status == 502


def test_a_function_that_fails_before_its_first_byte_is_a_bad_gateway(server: UrlServer, streamed: str) -> None:
    failed = Outcome(status=OutcomeStatus.ERROR, payload=b"{}", error_type="Unhandled")
    server.runner.streams("application/octet-stream", [], failed)

    assert server.call(streamed).status == 502


def test_a_function_that_answers_whole_may_have_a_streaming_url(server: UrlServer, streamed: str) -> None:
    server.runner.answers({"statusCode": 418, "body": "short"})
    answer = server.call(streamed)
    assert (answer.status, answer.body) == (418, b"short")
    server.runner.answers({}, status=OutcomeStatus.ERROR, error_type="Unhandled")
    assert server.call(streamed).status == 502


def test_a_streaming_function_behind_a_buffered_url_is_collected(server: UrlServer, url: str) -> None:
    server.runner.streams(PRELUDE, [b'{"statusCode": 201, "cookies": ["a=b"]}' + END, b"one", b"two"])
    answer = server.call(url)
    assert (answer.status, answer.body, answer.get("set-cookie")) == (201, b"onetwo", "a=b")
    assert answer.get("content-length") == "6"
    assert server.runner.seen[-1][1].sink is None
    server.runner.streams("text/plain", [b"one", b"two"])
    plain = server.call(url)
    assert (plain.status, plain.get("content-type"), plain.body) == (200, "text/plain", b"onetwo")


def test_the_clients_of_the_api_are_not_disturbed(server: UrlServer, client: Any) -> None:
    assert client.get_function(FunctionName="open")["Configuration"]["FunctionName"] == "open"
    refused = server.request("GET", "/_url/x", [("Host", "127.0.0.1")])
    assert refused.status != 200


def test_a_server_without_keys_wants_the_statement_as_well(trusting: UrlServer) -> None:
    client = trusting.client()
    new_function(client, "shut")
    made = client.create_function_url_config(FunctionName="shut", AuthType="NONE")
    identity = made["FunctionUrl"].partition("://")[2].partition(".")[0]

    assert trusting.call(identity).status == 403
