"""Event filters: that none takes long, and what holds of all of them."""

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.contracts.api_failure import ApiFailure
from torpor.contracts.lambda_.event_filter import NESTING_MAX, PATTERN_MAX, Filters, compiled


def matches(pattern: Any, document: Any) -> bool:
    return compiled(json.dumps(pattern))(document)


def _fill(item: Callable[[int], str]) -> str:
    """A pattern as long as patterns may be."""
    parts: list[str] = []
    while sum(map(len, parts)) + len(item(len(parts))) + len(parts) + 40 < PATTERN_MAX:
        parts.append(item(len(parts)))
    return ",".join(parts)


@pytest.mark.parametrize(
    ("pattern", "body"),
    [
        ('{"body": {"a": [{"wildcard": "' + "*a" * 2000 + '*b"}]}}', json.dumps({"a": "a" * 250_000})),
        ('{"body": {"a": [{"wildcard": "*' + "a" * 2000 + 'b*c"}]}}', json.dumps({"a": "a" * 250_000})),
        ('{"body": {"a": {"b": [{"exists": false}], "c": ["x"]}}}', json.dumps({"a": [{"b": 1}] * 30_000})),
        (
            '{"body": {"$or": ['
            + _fill(lambda number: f'{{"a":{{"b{number}":[{{"exists":false}}]}},"c":[1]}}')
            + "]}}",
            json.dumps({"a": [{"b": 1}] * 10_000}),
        ),
        ('{"body": {"a": [' + _fill(lambda number: f'"{number}"') + "]}}", json.dumps({"a": ["x"] * 60_000})),
        ('{"body": {"a": ["x"]}}', '{"a": ' + "[" * 200_000 + "]" * 200_000 + "}"),
        ('{"body": {"a": ["x"]}}', '{"a": ' + "[" * 900 + "]" * 900 + "}"),
        ('{"body": {"a": ["x"]}}', '{"a": ' + "9" * 250_000 + "}"),
    ],
)
def test_hostile_patterns_and_bodies_are_done_with_soon(pattern: str, body: str) -> None:
    filters = Filters({"Filters": [{"Pattern": pattern}]})
    started = time.process_time()
    assert not filters.keeps({"body": body})
    assert time.process_time() - started < 5.0


def test_a_pattern_may_be_nested_as_deeply_as_is_allowed() -> None:
    document: Any = "x"
    pattern: Any = ["x"]
    for _ in range(NESTING_MAX):
        document, pattern = {"a": [document]}, {"a": pattern}
    assert matches(pattern, document)
    with pytest.raises(ApiFailure):
        matches({"a": {"a": pattern}}, document)


_LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
_DOCUMENTS = st.dictionaries(
    st.text(max_size=3),
    st.recursive(
        _LEAVES,
        lambda inner: st.lists(inner, min_size=1) | st.dictionaries(st.text(max_size=3), inner, min_size=1),
        max_leaves=10,
    ),
    min_size=1,
    max_size=4,
)


def _pattern_of(value: Any) -> Any:
    """A pattern that asks for exactly this; for the first element of an array."""
    while isinstance(value, list):
        value = value[0]
    return {name: _pattern_of(inner) for name, inner in value.items()} if isinstance(value, dict) else [value]


@given(_DOCUMENTS)
def test_a_document_matches_the_pattern_that_is_made_of_it(document: dict[str, Any]) -> None:
    pattern = json.dumps(_pattern_of(document))
    if len(pattern) <= PATTERN_MAX and "$or" not in pattern:
        assert compiled(pattern)(document)


_JSON = st.recursive(_LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
_ALTERNATIVES = st.sampled_from(
    [["a"], [1], [None], [{"prefix": ""}], [{"anything-but": "a"}], [{"numeric": [">", 0]}], [{"exists": True}]]
)
_FIELDS = st.sampled_from(["a", "b", "body"])
_PATTERNS = st.recursive(_ALTERNATIVES, lambda inner: st.dictionaries(_FIELDS, inner, min_size=1), max_leaves=8)


@given(st.dictionaries(_FIELDS, _PATTERNS, min_size=1), st.dictionaries(_FIELDS, _JSON))
def test_a_pattern_with_one_more_field_matches_no_more_than_before(
    pattern: dict[str, Any], document: dict[str, Any]
) -> None:
    if matches({**pattern, "c": [{"exists": True}]}, {**document, "c": 1}):
        assert matches(pattern, document)
    assert not matches({**pattern, "c": [{"exists": True}]}, document)


@given(st.text(max_size=200))
def test_any_text_is_a_pattern_or_refused(text: str) -> None:
    for pattern in (text, json.dumps({"a": [{"wildcard": text}]}), json.dumps({text: [text]})):
        try:
            compiled(pattern)({"a": text, text: text})
        except ApiFailure as error:
            assert error.code == "InvalidParameterValueException"


@given(st.text(alphabet="ab*\\", max_size=12), st.text(alphabet="ab*\\", max_size=12))
def test_a_wildcard_matches_what_its_pieces_say(text: str, value: str) -> None:
    escaped = text.replace("\\", "\\\\").replace("*", "\\*")
    assert matches({"a": [{"wildcard": escaped}]}, {"a": value}) is (text == value)
    assert matches({"a": [{"wildcard": f"{escaped}*"}]}, {"a": value}) is value.startswith(text)
    assert matches({"a": [{"wildcard": f"*{escaped}"}]}, {"a": value}) is value.endswith(text)
    assert matches({"a": [{"wildcard": f"*{escaped}*" if text else "*"}]}, {"a": value}) is (text in value)
    assert matches({"a": [{"anything-but": {"wildcard": escaped}}]}, {"a": value}) is (text != value)


@given(st.text(alphabet="ab*", max_size=8).filter(lambda text: "**" not in text), st.text(alphabet="ab", max_size=8))
def test_a_wildcard_matches_as_the_expression_does_that_it_stands_for(text: str, value: str) -> None:
    expected = re.fullmatch(text.replace("*", ".*"), value) is not None
    assert matches({"a": [{"wildcard": text}]}, {"a": value}) is expected
