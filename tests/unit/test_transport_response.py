"""Answers as bytes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.transport.response import FixedHeaders, encode_answer, encode_head, json_error


def test_answer_carries_status_headers_date_and_length() -> None:
    head, body = encode_answer(200, [("X-One", "1")], b"abc")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 200 OK" and body == b"abc"
    assert "X-One: 1" in lines and "Content-Length: 3" in lines
    assert any(line.startswith("Date: ") and line.endswith(" GMT") for line in lines)
    assert head.endswith(b"\r\n\r\n") and b"Connection" not in head


@pytest.mark.parametrize("fields", [[("date", "then")], FixedHeaders([("A", "b"), ("Date", "then")])])
def test_date_among_the_fields_stays_the_only_one(fields: list[tuple[str, str]]) -> None:
    head = encode_head(200, fields, 0)
    assert head.lower().count(b"\r\ndate: then\r\n") == head.lower().count(b"\r\ndate:") == 1
    assert encode_head(200, [("X-Date", "date:")], 0).count(b"\r\nDate: ") == 1


@pytest.mark.parametrize("status", [204, 304])
def test_bodiless_status_has_neither_body_nor_length(status: int) -> None:
    head, body = encode_answer(status, (), b"dropped")
    assert body == b"" and b"Content-Length" not in head


def test_head_request_keeps_the_length_and_drops_the_body() -> None:
    head, body = encode_answer(200, (), b"abc", head_only=True)
    assert body == b"" and b"Content-Length: 3" in head


def test_framing_headers_of_the_application_are_left_out() -> None:
    given_headers = [("content-length", "99"), ("Transfer-Encoding", "chunked"), ("CONNECTION", "close"), ("A", "b")]
    head = encode_head(200, given_headers, 5)
    assert head.lower().count(b"content-length") == 1 and b"Content-Length: 5" in head
    assert b"chunked" not in head and b"close" not in head and b"A: b\r\n" in head


def test_keep_alive_is_said_to_http10_and_close_to_both() -> None:
    assert b"Connection: keep-alive" in encode_head(200, (), 0, http10=True)
    assert b"Connection: close" in encode_head(200, (), 0, http10=True, keep_alive=False)
    assert b"Connection: close" in encode_head(200, (), 0, keep_alive=False)


def test_unknown_status_is_sent_as_it_is() -> None:
    assert encode_head(799, (), 0).startswith(b"HTTP/1.1 799 Unknown\r\n")


def test_value_outside_latin_1_is_sent_as_utf_8() -> None:
    assert "X: \u20ac".encode() in encode_head(200, [("X", "\u20ac")], 0)


@given(st.lists(st.tuples(st.text(), st.text())), st.integers(200, 599))
def test_any_header_stays_one_line_each(headers: list[tuple[str, str]], status: int) -> None:
    head = encode_head(status, headers, 0)
    assert head.count(b"\r\n\r\n") == 1 and head.endswith(b"\r\n\r\n")
    framing = {"content-length", "transfer-encoding", "connection", "keep-alive"}
    kept = sum(name.lower() not in framing for name, _ in headers)
    own = 2 if status in (204, 304) else 3
    lines = head[:-4].split(b"\r\n")
    assert len(lines) == kept + own
    assert all(b"\n" not in line and b"\r" not in line and b"\0" not in line for line in lines)


def test_plain_error_is_one_json_object() -> None:
    headers, body = json_error(404, 'no "x"')
    assert headers == (("Content-Type", "application/json"),)
    assert json.loads(body) == {"message": 'no "x"'}


def test_fixed_headers_are_answered_like_the_same_ones_given_each_time() -> None:
    given = (("X-One", "1"), ("Content-Length", "9"), ("X-Two", "a\r\nb"))
    fixed = FixedHeaders(given)
    assert encode_head(200, fixed, 5) == encode_head(200, given, 5)
