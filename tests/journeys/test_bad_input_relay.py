"""Answers and requests that no relay should pass on as they are: neither side can speak for anybody else."""

import time
from collections.abc import Iterator

import pytest
from tests.support.raw_service import SOURCE, START, RawService, Reply
from tests.support.server import TorporServer, eventually
from tests.support.web_services import service

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture(scope="module")
def raw(server: TorporServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RawService]:
    folder = tmp_path_factory.mktemp("raw")
    with service(server, folder, {"server.py": SOURCE}, *START, "--persistent") as found:
        yield RawService(found)


@pytest.fixture(autouse=True)
def _unharmed(raw: RawService) -> Iterator[None]:
    """Whatever was said, the same instance goes on."""
    eventually(lambda: raw.works(), what="the service answering")
    before = [entry["id"] for entry in raw.service.environments()]
    yield
    assert raw.works()
    assert [entry["id"] for entry in raw.service.environments()] == before


NO_ANSWERS = {
    "garbage": b"GARBAGE\r\n\r\n",
    "another version": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "status below 100": b"HTTP/1.1 099 Early\r\nContent-Length: 2\r\n\r\nok",
    "status of four digits": b"HTTP/1.1 1000 Late\r\nContent-Length: 2\r\n\r\nok",
    "status that is no number": b"HTTP/1.1 abc OK\r\n\r\n",
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 4\r\n\r\nokok",
    "length and chunks": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunks and length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "coding identity": OK + b"Transfer-Encoding: identity\r\n\r\nok",
    "coding before chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "negative length": OK + b"Content-Length: -2\r\n\r\nok",
    "length beyond all": OK + b"Content-Length: 99999999999999999999999\r\n\r\nok",
    "length with a sign": OK + b"Content-Length: +2\r\n\r\nok",
    "NUL in a value": OK + b"A: b\x00c\r\nContent-Length: 2\r\n\r\nok",
    "space before the colon": OK + b"Content-Length : 2\r\n\r\nok",
    "field without a colon": OK + b"nonsense\r\nContent-Length: 2\r\n\r\nok",
    "lone carriage return": OK + b"A: b\rContent-Length: 4\r\n\r\nokok",
    "switch unasked": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
    "interim answers without end": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 5_000,
    "head over the limit": OK + b"A: " + b"x" * 70_000 + b"\r\nContent-Length: 2\r\n\r\nok",
    "too many fields": OK + b"A: b\r\n" * 300 + b"Content-Length: 2\r\n\r\nok",
}


@pytest.mark.parametrize("case", NO_ANSWERS)
def test_what_is_no_answer_is_told_as_such(raw: RawService, case: str) -> None:
    reply = raw.answers(NO_ANSWERS[case])

    assert reply.status == 502
    assert "is not HTTP/1.1" in reply.text
    assert reply.whole


LENGTH = OK + b"Content-Length: %d\r\n\r\n"
CHUNKS = OK + b"Transfer-Encoding: chunked\r\n\r\n"
BROKEN = {
    "less than was said": f"conn.sendall({LENGTH % 100 + b'x' * 10!r}); conn.close()",
    "reset within": f"conn.sendall({LENGTH % 200_000 + b'x' * 99_999!r}); reset(conn)",
    "no last chunk": f"conn.sendall({CHUNKS!r} + b'5\\r\\nhello\\r\\n'); conn.close()",
    "half a chunk": f"conn.sendall({CHUNKS!r} + b'ff\\r\\nhello'); conn.close()",
    "chunk of no size": f"conn.sendall({CHUNKS!r} + b'5\\r\\nhello\\r\\nzz\\r\\n')",
    "framing without content": f"conn.sendall({CHUNKS!r})\n"
    "for _ in range(300): conn.sendall(b'1;' + b'x' * 1000 + b'\\r\\na\\r\\n')",
}


@pytest.mark.parametrize("case", BROKEN)
def test_an_answer_that_breaks_off_never_looks_whole(raw: RawService, case: str) -> None:
    reply = raw.run(BROKEN[case])

    assert not reply.whole if reply.status == 200 else reply.status == 502


NOTHING = {
    "closed": "conn.close()",
    "reset": "reset(conn)",
    "half a head": "conn.sendall(b'HTTP/1.1 200 OK\\r\\nA: b'); conn.close()",
}


@pytest.mark.parametrize("case", NOTHING)
def test_a_connection_that_ends_without_an_answer_is_told(raw: RawService, case: str) -> None:
    reply = raw.run(NOTHING[case])

    assert reply.status == 502
    assert "closed the connection without an answer" in reply.text
    assert raw.service.name in reply.text


WITHOUT_BODY = {
    "204 with a body": (b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil", 204),
    "204 in chunks": (b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n", 204),
    "304 with a body": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil", 304),
}


@pytest.mark.parametrize("case", WITHOUT_BODY)
def test_a_body_that_may_not_be_is_left_out(raw: RawService, case: str) -> None:
    data, status = WITHOUT_BODY[case]
    with raw.caller() as caller:
        caller.send(raw.running(f"conn.sendall({data!r})"))
        reply = caller.reply()
        assert (reply.status, reply.body, reply.fields("transfer-encoding")) == (status, b"", [])
        if not reply.closed:
            caller.send(raw.request("GET / HTTP/1.1"))
            assert caller.reply().body == b"up"


def test_a_second_answer_goes_to_nobody(raw: RawService) -> None:
    one = OK + b"Content-Length: 2\r\n\r\nok"
    evil = OK + b"Content-Length: 4\r\n\r\nevil"
    with raw.caller() as caller:
        for _ in range(5):
            caller.send(raw.running(f"conn.sendall({one + evil!r})"))
            assert caller.reply().body == b"ok"
            caller.send(raw.request("GET / HTTP/1.1"))
            assert caller.reply().body == b"up"
            caller.send(raw.running(f"conn.sendall({one!r}); time.sleep(0.05); conn.sendall({evil!r})"))
            assert caller.reply().body == b"ok"
            time.sleep(0.2)
            caller.send(raw.request("GET / HTTP/1.1"))
            assert caller.reply().body == b"up"


def test_a_head_request_gets_no_body_and_the_next_its_own(raw: RawService) -> None:
    with raw.caller() as caller:
        for _ in range(3):
            caller.send(raw.running(f"conn.sendall({LENGTH % 4 + b'evil'!r})", "HEAD"))
            assert caller.reply(head_only=True).fields("content-length") == ["4"]
            caller.send(raw.request("GET / HTTP/1.1"))
            assert caller.reply().body == b"up"


def test_an_answer_until_the_end_of_the_connection_is_passed_on_whole(raw: RawService) -> None:
    reply = raw.run("conn.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\n' + b'x' * 100000); conn.close()")

    assert (reply.status, len(reply.body), reply.whole) == (200, 100_000, True)


def test_interim_answers_stay_behind(raw: RawService) -> None:
    reply = raw.answers(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n" + OK +
                        b"Content-Length: 2\r\n\r\nok")  # fmt: skip

    assert (reply.status, reply.body) == (200, b"ok")
    assert "Early" not in reply.head


def test_what_is_meant_for_one_connection_stays_behind(raw: RawService) -> None:
    names = {
        "Keep-Alive": "timeout=5",
        "Proxy-Authenticate": "Basic",
        "Proxy-Connection": "keep-alive",
        "TE": "trailers",
        "Trailer": "X-Sum",
        "Upgrade": "h2c",
        "X-Secret": "1",
        "x-other": "2",
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in names.items())
    said = f"HTTP/1.1 200 OK\r\nConnection: X-Secret, X-OTHER\r\n{lines}X-Kept: 3\r\nContent-Length: 2\r\n\r\nok"
    reply = raw.answers(said.encode())

    assert reply.body == b"ok"
    assert reply.fields("x-kept") == ["3"]
    assert [name for name in names if reply.fields(name)] == []

    raw.ask("GET /hop HTTP/1.1\nConnection: close, X-Secret, X-OTHER, Host, Content-Type\n"
            + lines.replace("\r\n", "\n") + "X-Kept: 3")  # fmt: skip
    head = next(head for head in reversed(raw.seen()) if head.startswith("GET /hop "))
    shown = Reply(0, head, b"", True, True)
    assert shown.fields("x-kept") == ["3"]
    assert shown.fields("host") == [raw.service.host]
    assert [name for name in names if shown.fields(name)] == []
    assert shown.fields("connection") == []


SMUGGLED = {
    "length and chunks": "Content-Length: 4\nTransfer-Encoding: chunked",
    "chunks and length": "Transfer-Encoding: chunked\nContent-Length: 4",
    "two lengths": "Content-Length: 4\nContent-Length: 5",
    "list of lengths": "Content-Length: 4, 4",
    "length with a sign": "Content-Length: +4",
    "length in hex": "Content-Length: 0x4",
    "coding identity": "Transfer-Encoding: identity",
    "coding after chunked": "Transfer-Encoding: chunked, identity",
    "chunked with more": "Transfer-Encoding: xchunked",
    "chunked twice": "Transfer-Encoding: chunked\nTransfer-Encoding: chunked, x",
    "space before the colon": "Transfer-Encoding : chunked",
    "folded": "Transfer-Encoding:\n chunked",
    "folded value": "A: b\n Transfer-Encoding: chunked",
    "tab in the name": "Transfer-Encoding\t: chunked",
    "two hosts": "Host: other.localhost",
    "odd name": "X(bad): 1",
    "no name": ": 1",
    "lone carriage return": "A: b\rTransfer-Encoding: chunked",
    "NUL": "A: b\x00c",
}


@pytest.mark.parametrize("case", SMUGGLED)
def test_a_request_that_two_could_read_in_two_ways_reaches_no_service(raw: RawService, case: str) -> None:
    before = len(raw.seen())
    inner = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    with raw.caller() as caller:
        caller.send(raw.request(f"POST /outer HTTP/1.1\n{SMUGGLED[case]}", b"0\r\n\r\n" + inner))
        reply = caller.reply()
        assert reply.status in (400, 501)
        assert caller.ended()
    assert not any("smuggled" in head or "outer" in head for head in raw.seen()[before:])


def test_odd_but_rightful_fields_arrive_as_they_came(raw: RawService) -> None:
    lines = ["X!#$%&'*+-.^_`|~1: odd", "X_Under: 1", "Empty:", "Twice: a", "Twice: b", "Latin: h\xe9llo",
             "Cookie: a=b; c=d", "Long: " + "y" * 8_000]  # fmt: skip
    raw.ask("GET /odd HTTP/1.1\n" + "\n".join(lines))
    head = next(head for head in reversed(raw.seen()) if head.startswith("GET /odd "))

    arrived = [line.rstrip() for line in head.split("\r\n")]
    assert [line for line in lines if line not in arrived] == []


TARGETS = [
    "/a/../b", "//evil.example/x", "/a%2Fb", "/a%2f..%2Fb", "/%2e%2e/%2e%2e/etc", "/a;b=c?d=e&f=%00#", "/a?b?c",
    "/\xe9", "/%E9", "/a//b/", "/?", "/" + "x" * 8_000,
]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target[:20])
def test_targets_are_passed_on_as_they_are(raw: RawService, target: str) -> None:
    reply = raw.ask(f"GET {target} HTTP/1.1")
    assert reply.status in (200, 400), reply.text
    if reply.status == 200:
        found = raw.seen()[-1].split(" ")[1]
        assert found in (target, target.replace("\xe9", "%E9").replace("#", ""))


def test_an_absolute_target_names_the_service_itself(raw: RawService) -> None:
    raw.ask(f"GET http://{raw.service.host}/absolute?a=b HTTP/1.1")

    assert raw.seen()[-1].startswith("GET /absolute?a=b HTTP/1.1")


@pytest.mark.parametrize("size", [70_000, 2_000_000])
def test_a_target_without_end_is_refused(raw: RawService, size: int) -> None:
    assert raw.ask(f"GET /{'x' * size} HTTP/1.1").status in (414, 431)


def test_a_local_proxy_is_believed_for_whom_it_speaks_and_ids_are_checked(raw: RawService) -> None:
    raw.ask("GET /told HTTP/1.1\nX-Forwarded-For: 203.0.113.7\nX-Forwarded-Proto: https\nX-Request-Id: mine-1")
    shown = Reply(0, raw.seen()[-1], b"", True, True)
    assert shown.fields("x-forwarded-for") == ["203.0.113.7, 127.0.0.1"]
    assert shown.fields("x-forwarded-proto") == ["https"]
    assert shown.fields("x-request-id") == ["mine-1"]

    raw.ask("GET /told HTTP/1.1\nX-Request-Id: " + "a" * 500)
    assert Reply(0, raw.seen()[-1], b"", True, True).fields("x-request-id") != ["a" * 500]


HOSTS = ["{}.LOCALHOST", "{}.localhost.", "{}.localhost:{port}", "{}.localhost:1"]


@pytest.mark.parametrize("host", HOSTS)
def test_a_service_is_found_by_its_name_in_any_spelling(raw: RawService, host: str) -> None:
    port = raw.service.host.rpartition(":")[2]
    with raw.caller() as caller:
        caller.send(f"GET / HTTP/1.1\r\nHost: {host.format(raw.service.name.upper(), port=port)}\r\n\r\n".encode())
        assert caller.reply().body == b"up"


STRANGERS = ["{}.localhost.evil.com", "{}.localhost.evil.localhost.com", "evil.com", "{}.local", "{}localhost",
             "x.{}.localhost.com", "{}.localhost@evil.com", "{}.localhost:80:80", "{}.localhost, evil.com"]  # fmt: skip


@pytest.mark.parametrize("host", STRANGERS)
def test_a_host_of_somebody_elses_reaches_nothing(raw: RawService, host: str) -> None:
    before = len(raw.seen())
    for path in ("/stranger", f"/services/{raw.service.name}/stranger"):
        with raw.caller() as caller:
            caller.send(f"GET {path} HTTP/1.1\r\nHost: {host.format(raw.service.name)}\r\n\r\n".encode())
            assert caller.reply().status in (400, 403)
    assert len(raw.seen()) == before


def test_an_unknown_service_is_told_by_its_name(raw: RawService) -> None:
    short, longer = raw.service.name[:-1], raw.service.name + "x"
    for name in ("nobody", short, longer):
        with raw.caller() as caller:
            caller.send(f"GET / HTTP/1.1\r\nHost: {name}.localhost\r\n\r\n".encode())
            by_host = caller.reply()
        by_path = raw.service.server
        with raw.caller() as caller:
            place = by_path.url.partition("//")[2]
            caller.send(f"GET /services/{name}/ HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
            assert caller.reply().body.split()[:6] == by_host.body.split()[:6]
        assert by_host.status == 404
        assert f"There is no service {name} here" in by_host.text
        assert "torpor list" in by_host.text


def test_the_path_of_a_service_ends_at_its_name(raw: RawService) -> None:
    place = raw.service.server.url.partition("//")[2]
    for path, seen in (("?a=b", "/?a=b"), ("/x%2Fy", "/x%2Fy"), ("", "/"), ("/../other/", "/../other/")):
        with raw.caller() as caller:
            target = f"/services/{raw.service.name}{path}"
            caller.send(f"GET {target} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
            assert caller.reply().body == b"up"
        assert raw.seen()[-1].split(" ")[1] == seen


def test_the_head_of_an_answer_cannot_hold_a_second_one(raw: RawService) -> None:
    evil = b"X-A: b\nSet-Cookie: evil=1\r\n"
    reply = raw.answers(OK + evil + b"Content-Length: 2\r\n\r\nok")

    assert reply.status == 502 or reply.fields("set-cookie") == [] or reply.body == b"ok"
    folded = raw.answers(OK + b"X-A: b\r\n Set-Cookie: evil=1\r\nContent-Length: 2\r\n\r\nok")
    assert folded.status == 502 or (folded.fields("set-cookie") == [] and folded.body == b"ok")
