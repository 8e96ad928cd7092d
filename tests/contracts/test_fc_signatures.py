"""Who may call: every way of signing that clients know, right and wrong."""

import base64
import hmac
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import fc2
import pytest
from alibabacloud_fc20230330 import models as v3
from alibabacloud_fc_open20210406 import models as v2
from fc2.auth import Auth
from tests.contracts.fc_support import KEY, SECRET, Server, fc_warnings, new_classic, new_v3, serving

from torpor.api.fc import FcSettings

pytestmark = fc_warnings


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "code") as running:
        yield running


@pytest.mark.parametrize("name", ["v3", "open"])
def test_generated_clients_with_a_wrong_secret_or_an_unknown_key_are_refused(server: Server, name: str) -> None:
    def ask(client: Any) -> None:
        if name == "v3":
            client.list_functions(v3.ListFunctionsRequest(prefix="a b+c", limit=3))
        else:
            client.list_services(v2.ListServicesRequest(prefix="a b+c"))

    make = getattr(server, name)
    ask(make())
    with pytest.raises(Exception) as wrong:
        ask(make(secret="wrong"))
    with pytest.raises(Exception) as unknown:
        ask(make(key="LTAIunknown"))

    assert wrong.value.code == "SignatureNotMatch"
    assert unknown.value.code == "InvalidAccessKeyID"


def test_the_mode_before_the_current_one_is_understood(server: Server) -> None:
    server.v3(signature_algorithm="v2").list_functions(v3.ListFunctionsRequest(prefix="a", limit=3))

    with pytest.raises(Exception) as wrong:
        server.v3(secret="wrong", signature_algorithm="v2").list_functions(v3.ListFunctionsRequest())

    assert wrong.value.code == "SignatureNotMatch"


def test_the_classic_client_with_a_wrong_secret_or_an_unknown_key_is_refused(server: Server) -> None:
    server.classic().list_services(prefix="a b")
    with pytest.raises(fc2.FcError) as wrong:
        server.classic(secret="wrong").list_services()
    with pytest.raises(fc2.FcError) as unknown:
        server.classic(key="LTAIunknown").list_services()

    assert wrong.value.err_code == "SignatureNotMatch"
    assert wrong.value.status_code == 403
    assert unknown.value.err_code == "InvalidAccessKeyID"


def _classic(server: Server, date: str, **more: str) -> tuple[int, bytes]:
    path = "/2016-08-15/services"
    headers = {"date": date, "content-type": "application/json", **more}
    headers["authorization"] = Auth(KEY, SECRET).sign_request("GET", path, headers)
    status, _, body = server.request("GET", path, headers=headers)
    return status, body


def test_an_old_date_and_one_that_is_none_are_refused(server: Server) -> None:
    import time

    now = time.time()

    assert _classic(server, formatdate(now - 600, usegmt=True))[0] == 200
    assert _classic(server, formatdate(now - 1000, usegmt=True))[0] == 403
    assert _classic(server, formatdate(now + 1000, usegmt=True))[0] == 403
    assert b"too large" in _classic(server, formatdate(now - 1000, usegmt=True))[1]
    assert _classic(server, "yesterday")[0] == 400


def test_a_signed_body_that_was_changed_is_refused(server: Server) -> None:
    client = server.v3()
    new_v3(client, "hello")
    from alibabacloud_tea_openapi.utils import Utils

    path = "/2023-03-30/functions/hello/invocations"
    digest = Utils.hash(b"signed", "ACS3-HMAC-SHA256").hex()
    headers = {"host": f"127.0.0.1:{server.port}", "x-acs-date": Utils.get_timestamp(), "x-acs-content-sha256": digest}

    class Request:
        method, pathname, query = "POST", path, {}

    Request.headers = headers  # type: ignore[attr-defined]
    signature = Utils.get_authorization(Request, "ACS3-HMAC-SHA256", digest, KEY, SECRET)
    signed = {**headers, "authorization": signature}

    assert server.request("POST", path, b"signed", signed)[0] == 200
    assert server.request("POST", path, b"forged", signed)[0] == 403


def test_no_signature_at_all_is_told(server: Server) -> None:
    status, _, body = server.request("GET", "/2016-08-15/services")

    assert status == 400
    assert b"required HTTP header Authorization was not specified" in body


def test_a_server_without_keys_takes_every_call(tmp_path: Path) -> None:
    with serving(tmp_path / "code", FcSettings()) as server:
        assert server.request("GET", "/2016-08-15/services")[0] == 200
        server.v3(key="any", secret="any").list_functions(v3.ListFunctionsRequest())


def _with_trigger(server: Server, tmp_path: Path) -> Any:
    client = server.classic()
    new_classic(client, "shop", "hello", tmp_path)
    client.create_trigger("shop", "hello", "web", "http", {"authType": "function", "methods": ["GET"]}, None, None)
    return client


def test_http_triggers_of_services_are_signed_with_their_query(server: Server, tmp_path: Path) -> None:
    client = _with_trigger(server, tmp_path)
    server.dispatcher.serve = lambda invocation: _serve(invocation)

    signed = client.do_http_request("GET", "shop", "hello", "/a b", params={"z": "1 2", "a": ["x", "y"]})
    unsigned = server.request("GET", "/2016-08-15/proxy/shop/hello/a")

    assert signed.status_code == 200
    assert signed.text == "/a%20b?z=1+2&a=x&a=y"
    assert unsigned[0] == 400


def _serve(invocation: Any) -> None:
    relay = invocation.http.relay
    relay.head(200, [("Content-Type", "text/plain")], None)
    relay.data(invocation.http.target.encode())
    relay.end()


@pytest.mark.parametrize(("lifetime", "status"), [(60, 200), (-60, 403)])
def test_signed_links_hold_until_they_end(server: Server, tmp_path: Path, lifetime: int, status: int) -> None:
    import time

    _with_trigger(server, tmp_path)
    server.dispatcher.serve = lambda invocation: _serve(invocation)
    path = "/2016-08-15/proxy/shop/hello/a b"
    expires = str(int(time.time()) + lifetime)
    query = {"x-fc-access-key-id": KEY, "x-fc-expires": expires, "n": "1"}
    lines = "\n".join(sorted(f"{name}={value}" for name, value in query.items()))
    text = f"GET\n\n\n{expires}\n{path}\n{lines}"
    query["x-fc-signature"] = base64.b64encode(hmac.digest(SECRET.encode(), text.encode(), "sha256")).decode()

    answer = server.request("GET", f"{quote(path)}?{urlencode(query)}")
    forged = server.request("GET", f"{quote(path)}?{urlencode(query | {'n': '2'})}")

    assert answer[0] == status
    assert forged[0] == 403


def test_current_http_triggers_are_signed_without_the_body(server: Server) -> None:
    from alibabacloud_tea_openapi.utils import Utils

    client = server.v3()
    new_v3(client, "hello")
    config = '{"authType":"function","methods":["POST"]}'
    trigger = v3.CreateTriggerInput(trigger_name="web", trigger_type="http", trigger_config=config)
    client.create_trigger("hello", v3.CreateTriggerRequest(body=trigger))
    server.dispatcher.serve = lambda invocation: _serve(invocation)
    path = "/2023-03-30/proxy/hello/a"

    class Request:
        method, pathname, query = "POST", path, {"b": "1 2"}
        headers = {"x-acs-date": Utils.get_timestamp()}  # noqa: RUF012

    signature = Utils.get_authorization(Request, "ACS3-HMAC-SHA256", "", KEY, SECRET)
    wrong = Utils.get_authorization(Request, "ACS3-HMAC-SHA256", "", KEY, "wrong")

    def ask(authorization: str) -> int:
        return server.request("POST", f"{path}?b=1+2", b"body", {**Request.headers, "authorization": authorization})[0]

    assert ask(signature) == 200
    assert ask(wrong) == 403
