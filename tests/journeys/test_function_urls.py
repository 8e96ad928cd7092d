"""Function URLs from outside: deployed with the SDK, called as web clients do."""

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.journeys.conftest import Deploy, require
from tests.support.functions import NODE, Package, node, python
from tests.support.lives import lives
from tests.support.server import ROLE, Function, TorporServer, eventually

SHOP = "https://shop.example"
ECHO = python("""
    import json, os, time
    def handler(event, context):
        query = event.get('queryStringParameters') or {}
        time.sleep(float(query.get('hold', 0)))
        if 'crash' in query:
            os._exit(3)
        if 'raise' in query:
            raise ValueError('secret')
        if 'plain' in query:
            return 'plain'
        return {'statusCode': 201, 'headers': {'X-Path': event['rawPath'], 'X-Same': context.aws_request_id},
                'cookies': ['a=b', 'c=d'], 'body': json.dumps(event)}
""")
STREAMING = node("""
    export const handler = awslambda.streamifyResponse(async (event, stream) => {
      const query = event.queryStringParameters ?? {};
      if (query.raise) throw new Error('before');
      if (!query.bare) {
        stream = awslambda.HttpResponseStream.from(stream, {
          statusCode: 202, headers: {'Content-Type': 'text/plain', 'X-Own': 'yes'}, cookies: ['a=b'] });
      }
      stream.write('first');
      await new Promise((resolve) => setTimeout(resolve, Number(query.hold ?? 0)));
      if (query.fail) throw new Error('in the middle');
      stream.write('last');
      stream.end();
    });
""")


@dataclass(frozen=True)
class Answer:
    status: int
    fields: dict[str, str]
    body: bytes


class Url:
    """A function's URL."""

    def __init__(self, function: Function, qualifier: str = "", **config: Any) -> None:
        which = {"FunctionName": function.name, **({"Qualifier": qualifier} if qualifier else {})}
        client = function.server.client
        made = client.create_function_url_config(**which, **{"AuthType": "NONE", **config})
        client.add_permission(
            **which, StatementId="open", Action="lambda:InvokeFunctionUrl", Principal="*", FunctionUrlAuthType="NONE"
        )
        self.address: str = made["FunctionUrl"]
        self.host = urlsplit(self.address).netloc
        self.identity = self.host.partition(".")[0]
        self.server = function.server

    @contextmanager
    def asking(
        self, target: str = "/", *, method: str = "GET", body: bytes | None = None, server: TorporServer | None = None,
        **fields: str,
    ) -> Iterator[http.client.HTTPResponse]:  # fmt: skip
        place = urlsplit((server or self.server).url)
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
        headers = {"Host": self.host} | {name.replace("_", "-"): value for name, value in fields.items()}
        try:
            connection.request(method, target, body, headers)
            yield connection.getresponse()
        finally:
            connection.close()

    def call(self, target: str = "/", **request: Any) -> Answer:
        with self.asking(target, **request) as reply:
            return Answer(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read())


@pytest.fixture
def echo(deploy: Deploy) -> Url:
    return Url(deploy(ECHO))


def test_a_web_client_calls_a_function(echo: Url) -> None:
    fields = {"Cookie": "k=v", "Content_Type": "application/json", "X_Amzn_Trace_Id": ""}
    answer = echo.call("/a%20b?x=1&x=2", method="POST", body=b'{"n": 1}', **fields)

    assert (answer.status, answer.fields["x-path"]) == (201, "/a%20b")
    assert answer.fields["set-cookie"] == "c=d"  # the last of the two
    event = json.loads(answer.body)
    assert (event["body"], event["isBase64Encoded"]) == ('{"n": 1}', False)
    assert (event["cookies"], event["queryStringParameters"]) == (["k=v"], {"x": "1,2"})
    assert event["requestContext"]["domainName"] == echo.host.partition(":")[0]
    assert answer.fields["x-same"] == answer.fields["x-amzn-requestid"] == event["requestContext"]["requestId"]
    assert echo.call("/?plain=1").body == b"plain"


def test_the_address_is_reached_by_name_and_by_path(echo: Url) -> None:
    port = urlsplit(echo.server.url).port
    assert echo.address == f"http://{echo.identity}.lambda-url.us-east-1.localhost:{port}/"
    below = echo.call(f"/_urls/{echo.identity}/x?plain=1", Host=f"127.0.0.1:{port}")
    assert (below.status, below.body) == (200, b"plain")


@pytest.mark.parametrize("path", ["/services/shop/", "/2015-03-31/functions", "/_torpor/environments", "/_urls/x/"])
def test_a_url_of_its_own_name_has_every_path(echo: Url, path: str) -> None:
    assert echo.call(path).fields["x-path"] == path


def test_failures_of_the_function_are_bad_gateways(echo: Url, deploy: Deploy) -> None:
    for target in ("/?raise=1", "/?crash=1"):
        answer = echo.call(target)
        assert (answer.status, answer.body) == (502, b"Internal Server Error")
    assert echo.call().status == 201
    slow = Url(deploy(ECHO, Timeout=1))
    assert slow.call("/?hold=3").status == 502


def test_more_requests_than_reserved_concurrency_are_told_to_wait(echo: Url, deploy: Deploy) -> None:
    function = deploy(ECHO)
    url = Url(function)
    function.server.client.put_function_concurrency(FunctionName=function.name, ReservedConcurrentExecutions=1)
    url.call()
    held = function.server.submit(lambda: url.call("/?hold=2"))
    eventually(lambda: any(each["phase"] == "serving" for each in function.environments()))
    refused = url.call()

    assert (refused.status, json.loads(refused.body)["Reason"]) == (
        429, "ReservedFunctionConcurrentInvocationLimitExceeded",
    )  # fmt: skip
    assert held.result(20).status == 201


def test_pages_reach_what_is_opened_to_them_and_nothing_else(deploy: Deploy) -> None:
    cors = {"AllowOrigins": [SHOP], "AllowMethods": ["POST"], "AllowHeaders": ["x-a"], "MaxAge": 9}
    url = Url(deploy(ECHO), Cors=cors)
    page = {"Origin": SHOP, "Sec_Fetch_Site": "cross-site"}
    asked = url.call(method="OPTIONS", Access_Control_Request_Method="POST", **page)
    assert (asked.status, asked.fields["access-control-allow-methods"]) == (200, "POST")
    assert url.call(method="POST", body=b"1", **page).fields["access-control-allow-origin"] == SHOP

    own = f"127.0.0.1:{urlsplit(url.server.url).port}"
    assert url.call("/2015-03-31/functions", Host=own, **page).status == 403
    assert url.call(f"/_urls/{url.identity}/", Host="evil.example").status == 403
    assert url.call(f"/_urls/{url.identity}/", Host=own, **page).status == 201


def test_an_alias_has_a_url_of_its_own(deploy: Deploy) -> None:
    function = deploy(python("def handler(event, context):\n    return context.function_version"))
    client = function.server.client
    client.publish_version(FunctionName=function.name)
    client.create_alias(FunctionName=function.name, Name="live", FunctionVersion="1")
    whole, live = Url(function), Url(function, "live")

    assert (whole.call().body, live.call().body) == (b"$LATEST", b"1")
    client.delete_alias(FunctionName=function.name, Name="live")
    gone = live.call()
    assert (gone.status, b"Forbidden." in gone.body) == (403, True)


@pytest.fixture
def streaming(server: TorporServer, deploy: Deploy) -> Url:
    require(server, NODE)
    return Url(deploy(STREAMING), InvokeMode="RESPONSE_STREAM")


def test_a_stream_reaches_its_caller_while_it_is_written(streaming: Url) -> None:
    with streaming.asking("/?hold=1500") as reply:
        assert (reply.status, reply.getheader("x-own"), reply.getheader("set-cookie")) == (202, "yes", "a=b")
        assert reply.read(5) == b"first"
        begun = time.monotonic()
        assert reply.read() == b"last"
        assert time.monotonic() - begun > 0.7


def test_a_stream_may_be_bytes_only(streaming: Url) -> None:
    answer = streaming.call("/?bare=1")
    assert (answer.status, answer.fields["content-type"], answer.body) == (
        200, "application/octet-stream", b"firstlast",
    )  # fmt: skip


def test_a_stream_that_fails_cannot_be_taken_for_whole(streaming: Url) -> None:
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        streaming.call("/?fail=1&hold=50")
    assert streaming.call("/?raise=1").status == 502
    assert streaming.call().body == b"firstlast"


def test_a_streaming_function_behind_a_buffered_url_answers_whole(server: TorporServer, deploy: Deploy) -> None:
    require(server, NODE)
    answer = Url(deploy(STREAMING)).call()

    assert (answer.status, answer.fields["x-own"], answer.body) == (202, "yes", b"firstlast")
    assert answer.fields["content-length"] == "9"


def test_a_large_body_goes_both_ways(deploy: Deploy) -> None:
    source = """
        def handler(event, context):
            return {'statusCode': 200, 'headers': {'Content-Type': 'image/png'}, 'isBase64Encoded': True,
                    'body': event['body']}
    """
    url, sent = Url(deploy(python(source), MemorySize=512)), bytes(range(256)) * 16_000
    answer = url.call(method="POST", body=sent, Content_Type="image/png")

    assert (answer.status, answer.fields["content-type"], answer.body == sent) == (200, "image/png", True)
    with url.asking(method="POST", body=bytes(7 << 20)) as refused:
        assert refused.status == 413


def test_urls_outlive_a_server_that_is_killed(tmp_path: Path) -> None:
    with lives(tmp_path) as servers:
        first = servers.start()
        url = Url(_kept(first, ECHO))
        assert url.call("/?plain=1").body == b"plain"
        servers.kill(first)
        again = servers.start()
        shown = again.client.get_function_url_config(FunctionName="kept")["FunctionUrl"]
        assert urlsplit(shown).hostname == urlsplit(url.address).hostname
        assert url.call("/?plain=1", server=again).body == b"plain"
        again.client.delete_function(FunctionName="kept")
        assert url.call("/?plain=1", server=again).status == 403
        servers.terminate(again)


def _kept(server: TorporServer, package: Package) -> Function:
    server.client.create_function(
        FunctionName="kept",
        Role=ROLE,
        Runtime=package.runtime,
        Handler=package.handler,
        Code={"ZipFile": package.archive},
    )
    return Function(server, "kept")
