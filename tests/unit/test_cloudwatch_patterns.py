"""Filter patterns: what they match, what is none, and that none takes long."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.contracts.api_failure import ApiFailure
from torpor.contracts.cloudwatch_logs.field_patterns import fields_of
from torpor.contracts.cloudwatch_logs.filter_pattern import filter_pattern

LINE = '127.0.0.1 - frank [10/Oct/2000:13:25:15 -0700] "GET /a.gif HTTP/1.0" 404 1534\n'
ENTRY = {
    "level": "ERROR",
    "latency": 120.5,
    "count": 3,
    "ok": False,
    "cached": True,
    "user": None,
    "text": "404",
    "request": {"path": "/a/b.txt", "tags": ["x", "y"], "a.b": 1},
    "items": [{"id": 1}, {"id": 2}],
}


def matches(pattern: str, message: str) -> bool:
    found = filter_pattern(pattern)
    return found is None or found(message)


@pytest.mark.parametrize(
    ("pattern", "message", "expected"),
    [
        ("", "anything", True),
        ("   ", "anything", True),
        ("ERROR", "[ERROR] it failed", True),
        ("ERROR", "[error] it failed", False),
        ("ERR", "an ERROR", True),
        ("failed ERROR", "[ERROR] it failed", True),
        ("ERROR refused", "[ERROR] it failed", False),
        ('"it failed"', "[ERROR] it failed", True),
        ('"failed it"', "[ERROR] it failed", False),
        ('"say \\"it\\""', 'they say "it"', True),
        ('"back\\\\slash"', "back\\slash", True),
        ("-ERROR", "[ERROR] it failed", False),
        ("-ERROR", "fine", True),
        ('it -"not this"', "it failed", True),
        ('it -"not this"', "it is not this", False),
        ("?ERROR ?WARN", "a WARN", True),
        ("?ERROR ?WARN", "an INFO", False),
        ('?"two words" ?WARN', "here two words", True),
        ("?ERROR REQUEST", "only REQUEST", True),
        ("?ERROR -REQUEST", "an INFO", True),
        ("größe", "die größe", True),
    ],
)
def test_terms(pattern: str, message: str, expected: bool) -> None:
    assert matches(pattern, message) is expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ('$.level = "ERROR"', True),
        ("$.level = ERROR", True),
        ('$.level = "error"', False),
        ('$.level != "INFO"', True),
        ('$.level != "ERROR"', False),
        ('$.missing = "a"', False),
        ('$.missing != "a"', False),
        ("$.level = E*", True),
        ('$.level = "*RR*"', True),
        ("$.level = *X", False),
        ("$.level = *", True),
        ("$.request = *", True),
        ("$.user = *", False),
        ("$.latency > 100", True),
        ("$.latency >= 120.5 && $.latency <= 1.205e2", True),
        ("$.latency < 100", False),
        ("$.level > 100", False),
        ("$.count = 3", True),
        ("$.count = 3.0", True),
        ("$.count != 4", True),
        ('$.count = "3"', False),
        ("$.text = 404", True),
        ("$.count = 3*", True),
        ("$.ok IS FALSE", True),
        ("$.ok IS TRUE", False),
        ("$.cached = true", True),
        ("$.user IS NULL", True),
        ("$.level IS NULL", False),
        ("$.missing IS NULL", False),
        ("$.missing NOT EXISTS", True),
        ("$.user NOT EXISTS", False),
        ('$.request.path = "/a/*.txt"', True),
        ('$.request.tags[1] = "y"', True),
        ('$.request.tags[2] = "y"', False),
        ("$.request['a.b'] = 1", True),
        ('$.request.["a.b"] = 1', True),
        ("$.items[*].id = 2", True),
        ("$.items[*].id = 3", False),
        ('$.request.* = "/a*"', True),
        ("$.level.deeper = 1", False),
        ('$.level = "INFO" || $.count = 3 && $.cached IS TRUE', True),
        ('($.level = "INFO" || $.count = 3) && $.cached IS FALSE', False),
        ('(($.level="ERROR")&&($.count>=3))', True),
    ],
)
def test_json_conditions(condition: str, expected: bool) -> None:
    message = json.dumps(ENTRY) + "\n"
    assert matches("{ " + condition + " }", message) is expected
    assert matches("{" + condition + "}", message) is expected


@pytest.mark.parametrize("message", ["", "ERROR", '"ERROR"', "{broken", "[" * 100_000, '{"level": ', "\ud800{}"])
def test_what_is_no_json_matches_no_json_pattern(message: str) -> None:
    assert not matches("{ $.level NOT EXISTS }", message)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("[ip, id, user, timestamp, request, status_code, size]", True),
        ("[ip, id, user]", False),
        ("[ip, id, ...]", True),
        ("[..., size]", True),
        ("[ip, ..., size = 1534]", True),
        ("[...]", True),
        ("[ip, id, user, timestamp, request, status_code, size, more, ...]", False),
        ("[ip, id, user, timestamp, request = *a.gif*, status_code = 4*, size]", True),
        ("[ip = 127.*, ...]", True),
        ("[ip != 127.*, ...]", False),
        ('[..., request = "GET *", status_code, size > 1000]', True),
        ("[..., status_code, size > 1534]", False),
        ("[..., status_code = 404 || status_code = 410, size]", True),
        ("[..., status_code != 404 && status_code != 410, size]", False),
        ("[..., (status_code = 410 || status_code = 404) && status_code > 400, size]", True),
        ("[..., timestamp = 10/Oct*, request, status_code, size]", True),
    ],
)
def test_fields_of_a_line(pattern: str, expected: bool) -> None:
    assert matches(pattern, LINE) is expected


def test_quotes_and_brackets_hold_a_field_together_and_loose_ones_are_part_of_a_word() -> None:
    assert fields_of('a "b c" [d e] f"g h') == ["a", "b c", "d e", 'f"g', "h"]
    assert fields_of('"open [also open') == ['"open', "[also", "open"]
    assert fields_of("  \n") == []


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("foo-bar", "Invalid character(s) in term 'foo-bar'"),
        ("a:b", "Invalid character(s) in term 'a:b'"),
        ('""', "Invalid character(s)"),
        ("?", "Invalid character(s) in term '?'"),
        ("-", "Invalid character(s) in term '-'"),
        ('"a"b', "Invalid character(s)"),
        ('"open', "not closed"),
        ("%ERR.*%", "regular expressions"),
        ("{ $.a = 1", "must end with '}'"),
        ("{", "must end with '}'"),
        ("[a, b", "must end with ']'"),
        ("{}", "too early"),
        ("{ $.a }", "too early"),
        ("{ $ = 1 }", "names nothing"),
        ("{ a = 1 }", "no selector"),
        ("{ $.a = }", "too early"),
        ("{ $.a = = }", "missing"),
        ("{ $.a ~ 1 }", "no comparison"),
        ("{ $.a = 1 && }", "too early"),
        ("{ ($.a = 1 }", "not closed"),
        ("{ $.a = 1) }", "one too many"),
        ("{ $.a = 1 $.b = 2 }", "one too many"),
        ("{ $.a > x }", "compares numbers"),
        ("{ $.a IS 3 }", "TRUE, FALSE or NULL"),
        ("{ $.a NOT 3 }", "EXISTS"),
        ("{ $.a = %x% }", "regular expressions"),
        ("{ $.a[ = 1 }", "bracket"),
        ("{ $.a[x] = 1 }", "selector"),
        ("{ $.*.* = 1 }", "wildcards"),
        ("{ $.* = 1 && $.* = 1 && $.* = 1 && $.* = 1 }", "wildcards"),
        ("{ " + "(" * 500 + "$.a = 1" + ")" * 500 + " }", "parentheses"),
        ("[]", "too early"),
        ("[a b]", "no comparison"),
        ("[a = 1 b]", "comma"),
        ("[a,, b]", "no name"),
        ("[..., ...]", "more than one"),
        ('["x"]', "no name"),
        ("[a = 1 && b = 2]", "stands at the field"),
        ("[a > x]", "compares numbers"),
    ],
)
def test_a_malformed_pattern_is_refused_with_the_reason(pattern: str, said: str) -> None:
    with pytest.raises(ApiFailure) as refused:
        filter_pattern(pattern)
    assert refused.value.code == "InvalidParameterException"
    assert str(refused.value).startswith("Invalid filter pattern: ")
    assert said in str(refused.value)


@given(st.text(alphabet='{}[]()$.*"\\%?-&|=!<>, aISNULLTRUE09', max_size=40), st.text(max_size=40))
def test_any_text_is_a_pattern_or_refused_and_never_anything_else(pattern: str, message: str) -> None:
    try:
        found = filter_pattern(pattern)
    except ApiFailure as refused:
        assert refused.code == "InvalidParameterException"
        return
    for text in (message, json.dumps({"a": message}), LINE):
        assert found is None or found(text) in (True, False)


@given(st.lists(st.text(alphabet="ab", max_size=3), min_size=1, max_size=4), st.text(alphabet="abc", max_size=10))
def test_wildcards_match_what_the_parts_in_order_allow(parts: list[str], value: str) -> None:
    pattern = "*".join(parts)

    def covered(rest: str, text: str) -> bool:
        if not rest:
            return not text
        if rest[0] == "*":
            return any(covered(rest[1:], text[at:]) for at in range(len(text) + 1))
        return bool(text) and text[0] == rest[0] and covered(rest[1:], text[1:])

    assert matches('{ $.v = "' + pattern + '" }', json.dumps({"v": value})) is covered(pattern, value)


members = st.dictionaries(st.sampled_from("abc"), st.integers(-3, 3), max_size=3)


@given(members, st.sampled_from("abc"), st.sampled_from(["=", "!=", "<", ">", "<=", ">="]), st.integers(-3, 3))
def test_comparisons_are_those_of_numbers(entry: dict[str, int], name: str, sign: str, number: int) -> None:
    python: dict[str, Any] = {
        "=": lambda a, b: a == b, "!=": lambda a, b: a != b, "<": lambda a, b: a < b,
        ">": lambda a, b: a > b, "<=": lambda a, b: a <= b, ">=": lambda a, b: a >= b,
    }  # fmt: skip
    expected = name in entry and python[sign](entry[name], number)
    assert matches("{ $." + name + sign + str(number) + " }", json.dumps(entry)) is expected


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{ $.a = " + "*a" * 500 + "b }", json.dumps({"a": "a" * 200_000})),
        ("[" + "*a".join(["x = "] + ["*"] * 300) + ", ...]", "a" * 200_000),
        ("[a, b]", "[ " * 100_000),
        ("[a, b]", '" [' * 60_000),
        (" ".join(f'"{"a" * 20}b"' for _ in range(40)), "a" * 250_000),
        ("{ $.items[*].a = x }", json.dumps({"items": [{"a": "y"}] * 10_000})),
    ],
)
def test_no_pattern_takes_long_over_any_message(pattern: str, message: str) -> None:
    found = filter_pattern(pattern)
    assert found is not None
    begun = time.process_time()
    found(message)
    assert time.process_time() - begun < 1.0
