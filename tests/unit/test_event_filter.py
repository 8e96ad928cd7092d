"""Event filters: what they let through, and what is none."""

import json
from typing import Any

import pytest

from torpor.contracts.api_failure import ApiFailure
from torpor.contracts.lambda_.event_filter import NESTING_MAX, PATTERN_MAX, Filters, compiled

DOCUMENT = {
    "kind": "Order",
    "empty": "",
    "count": 300,
    "price": 12.5,
    "below": -3,
    "big": 9_007_199_254_740_993,
    "paid": True,
    "one": 1,
    "note": None,
    "path": "/a/b*c\\d.txt",
    "tags": ["new", "gift", 7],
    "deep": [[["inner"], 1], []],
    "none": [],
    "hollow": {},
    "customer": {"name": "Ann", "address": {"city": "Rome"}},
    "items": [{"id": 1, "color": "red"}, {"id": 2, "color": "blue", "gift": False}],
}
RECORD = {
    "messageId": "m-1",
    "body": "{}",
    "attributes": {"ApproximateReceiveCount": "1", "SenderId": "AIDA"},
    "messageAttributes": {"color": {"stringValue": "red", "dataType": "String"}},
    "eventSource": "aws:sqs",
}


def matches(pattern: Any, document: Any = DOCUMENT) -> bool:
    return compiled(json.dumps(pattern))(document)


def keeps(body: str, *patterns: Any) -> bool:
    criteria = {"Filters": [{"Pattern": json.dumps(pattern)} for pattern in patterns]}
    return Filters(criteria).keeps({**RECORD, "body": body})


@pytest.mark.parametrize(
    ("alternatives", "matching"),
    [
        (["Order"], {"kind"}),
        (["order"], set()),
        ([""], {"empty"}),
        ([None], {"note"}),
        ([True], {"paid"}),
        ([False], set()),
        ([1], {"one", "deep"}),
        ([1.0], {"one", "deep"}),
        ([300.0], {"count"}),
        ([3e2], {"count"}),
        (["300"], set()),
        ([12.50], {"price"}),
        ([9_007_199_254_740_993], {"big"}),
        ([9_007_199_254_740_992], set()),
        (["Order", 12.5, None], {"kind", "price", "note"}),
        (["gift"], {"tags"}),
        ([7], {"tags"}),
        (["inner"], {"deep"}),
        ([{"prefix": "Or"}], {"kind"}),
        ([{"prefix": "or"}], set()),
        ([{"prefix": "ge"}, {"prefix": "gi"}], {"tags"}),
        ([{"prefix": {"equals-ignore-case": "oR"}}], {"kind"}),
        ([{"suffix": "er"}], {"kind", "deep"}),
        ([{"suffix": "ER"}], set()),
        ([{"suffix": {"equals-ignore-case": ".TXT"}}], {"path"}),
        ([{"equals-ignore-case": "oRDER"}], {"kind"}),
        ([{"equals-ignore-case": "orde"}], set()),
        ([{"anything-but": "gift"}, 0], {
            "kind", "empty", "count", "price", "below", "big", "paid", "one", "note", "path", "tags", "deep",
        }),
        ([{"anything-but": ["Order", "", "inner"]}], {
            "count", "price", "below", "big", "paid", "one", "note", "path", "tags", "deep",
        }),
        ([{"anything-but": {"prefix": "O"}}], {
            "empty", "count", "price", "below", "big", "paid", "one", "note", "path", "tags", "deep",
        }),
        ([{"anything-but": {"suffix": ["r", "t", "w"]}}], {
            "empty", "count", "price", "below", "big", "paid", "one", "note", "tags", "deep",
        }),
        ([{"anything-but": {"equals-ignore-case": "ORDER"}}], {
            "empty", "count", "price", "below", "big", "paid", "one", "note", "path", "tags", "deep",
        }),
        ([{"anything-but": {"wildcard": "*r"}}], {
            "empty", "count", "price", "below", "big", "paid", "one", "note", "path", "tags", "deep",
        }),
        ([{"numeric": ["=", 300]}], {"count"}),
        ([{"numeric": [">", 12.5]}], {"count", "big"}),
        ([{"numeric": [">=", 12.5]}], {"count", "price", "big"}),
        ([{"numeric": ["<", 0]}], {"below"}),
        ([{"numeric": ["<=", -3]}], {"below"}),
        ([{"numeric": [">", 1, "<=", 12.5]}], {"price", "tags"}),
        ([{"numeric": [">=", 1, "<", 7]}], {"one", "deep"}),
        ([{"wildcard": "O*r"}], {"kind"}),
        ([{"wildcard": "*"}], {"kind", "empty", "path", "tags", "deep"}),
        ([{"wildcard": "*d*"}], {"kind", "path"}),
        ([{"wildcard": "O*rd*er"}], {"kind"}),
        ([{"wildcard": "Or*rder"}], set()),
        ([{"wildcard": "O*rd*d*er"}], set()),
        ([{"wildcard": "O*er*er"}], set()),
        ([{"wildcard": "Order"}], {"kind"}),
        ([{"wildcard": "/a/b\\*c*"}], {"path"}),
        ([{"wildcard": "*c\\\\d.*"}], {"path"}),
        ([{"wildcard": "/a/\\*c*"}], set()),
        ([{"exists": True}], {
            "kind", "empty", "count", "price", "below", "big", "paid", "one", "note", "path", "tags", "deep",
        }),
        ([{"exists": False}], {"none", "hollow", "customer", "items"}),
        (["Order", {"exists": False}], {"kind", "none", "hollow", "customer", "items"}),
    ],
)  # fmt: skip
def test_alternatives_match_the_values_of_these_fields(alternatives: list[Any], matching: set[str]) -> None:
    assert {name for name in DOCUMENT if matches({name: alternatives})} == matching


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ({"kind": ["Order"], "count": [300]}, True),
        ({"kind": ["Order"], "count": [301]}, False),
        ({"missing": ["a"]}, False),
        ({"missing": [None]}, False),
        ({"missing": [{"anything-but": "a"}]}, False),
        ({"missing": [{"exists": True}]}, False),
        ({"missing": [{"exists": False}]}, True),
        ({"missing": {"deeper": [{"exists": False}]}}, True),
        ({"missing": {"deeper": [{"exists": False}], "other": ["a"]}}, False),
        ({"kind": {"deeper": [{"exists": False}]}}, True),
        ({"kind": {"deeper": ["a"]}}, False),
        ({"customer": {"name": ["Ann"]}}, True),
        ({"customer": {"address": {"city": ["Rome"]}}}, True),
        ({"customer": {"address": {"city": [{"anything-but": "Rome"}]}}}, False),
        ({"customer": {"address": {"street": [{"exists": False}]}}}, True),
        ({"customer": {"address": {"city": [{"exists": False}]}}}, False),
        ({"customer": {"name": ["Ann"], "address": {"city": ["Oslo"]}}}, False),
        ({"items": {"id": [2]}}, True),
        ({"items": {"id": [1], "color": ["red"]}}, True),
        ({"items": {"id": [1], "color": ["blue"]}}, False),
        ({"items": {"gift": [{"exists": False}]}}, False),
        ({"items": {"size": [{"exists": False}]}}, True),
        ({"items": {"id": [1], "size": [{"exists": False}]}}, True),
        ({"none": {"size": [{"exists": False}]}}, True),
        ({"hollow": {"size": [{"exists": False}]}}, True),
        ({"$or": [{"kind": ["Bill"]}, {"count": [300]}]}, True),
        ({"$or": [{"kind": ["Bill"]}, {"count": [301]}]}, False),
        ({"paid": [True], "$or": [{"kind": ["Bill"]}, {"count": [300]}]}, True),
        ({"paid": [False], "$or": [{"kind": ["Bill"]}, {"count": [300]}]}, False),
        ({"$or": [{"kind": ["Order"], "count": [1]}, {"kind": ["Bill"]}]}, False),
        ({"$or": [{"missing": [{"exists": False}]}, {"kind": ["Bill"]}]}, True),
        ({"items": {"$or": [{"id": [9]}, {"color": ["blue"]}]}}, True),
        ({"items": {"id": [1], "$or": [{"id": [9]}, {"color": ["blue"]}]}}, False),
        ({"$or": [{"$or": [{"count": [1]}, {"count": [2]}]}, {"customer": {"name": ["Ann"]}}]}, True),
    ],
)
def test_objects_match_field_by_field(pattern: dict[str, Any], expected: bool) -> None:
    assert matches(pattern) is expected


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("", "no JSON"),
        ("kind", "no JSON"),
        ('{"kind": ["Order"]', "no JSON"),
        ('{"count": [NaN]}', "NaN is no value"),
        ('{"count": [{"numeric": ["<", Infinity]}]}', "Infinity is no value"),
        ('["Order"]', "must be a JSON object"),
        ("null", "must be a JSON object"),
        ("1", "must be a JSON object"),
        ("{}", "is empty"),
        ('{"kind": {}}', "is empty"),
        ('{"kind": []}', "array of 'kind' is empty"),
        ('{"a": {"kind": "Order"}}', "'a.kind' must be an object or an array"),
        ('{"kind": null}', "'kind' must be"),
        ('{"kind": [["Order"]]}', "array stands in the array of 'kind'"),
        ('{"kind": [{}]}', "exactly one key"),
        ('{"kind": [{"prefix": "a", "suffix": "b"}]}', "exactly one key"),
        ('{"kind": [{"Prefix": "a"}]}', "no condition 'Prefix'"),
        ('{"kind": [{"cidr": "10.0.0.0/24"}]}', "no condition 'cidr'"),
        ('{"kind": [{"prefix": 1}]}', "'prefix' must be a string"),
        ('{"kind": [{"prefix": {"suffix": "a"}}]}', "not with 'suffix'"),
        ('{"kind": [{"prefix": {"equals-ignore-case": 1}}]}', "'equals-ignore-case' must be a string"),
        ('{"kind": [{"suffix": null}]}', "'suffix' must be a string"),
        ('{"kind": [{"equals-ignore-case": ["a"]}]}', "'equals-ignore-case' must be a string"),
        ('{"kind": [{"anything-but": []}]}', "'anything-but' must be"),
        ('{"kind": [{"anything-but": null}]}', "'anything-but' must be"),
        ('{"kind": [{"anything-but": true}]}', "'anything-but' must be"),
        ('{"kind": [{"anything-but": ["a", 1]}]}', "'anything-but' must be"),
        ('{"kind": [{"anything-but": {"numeric": ["=", 1]}}]}', "cannot be combined with 'numeric'"),
        ('{"kind": [{"anything-but": {"prefix": ""}}]}', "must not be empty"),
        ('{"kind": [{"anything-but": {"suffix": []}}]}', "must not be empty"),
        ('{"kind": [{"anything-but": {"prefix": 1}}]}', "'prefix' must be a string"),
        ('{"kind": [{"anything-but": {"prefix": "a", "suffix": "b"}}]}', "exactly one key"),
        ('{"kind": [{"numeric": 1}]}', "'numeric' must be an array"),
        ('{"kind": [{"numeric": []}]}', "'numeric' must be an array"),
        ('{"kind": [{"numeric": ["="]}]}', "'numeric' must be an array"),
        ('{"kind": [{"numeric": ["!=", 1]}]}', "'!=' is no operator"),
        ('{"kind": [{"numeric": [["<"], 1]}]}', "is no operator"),
        ('{"kind": [{"numeric": ["=", "1"]}]}', "number must follow '='"),
        ('{"kind": [{"numeric": ["=", true]}]}', "number must follow '='"),
        ('{"kind": [{"numeric": ["<", 5, ">", 1]}]}', "> or >= first"),
        ('{"kind": [{"numeric": ["=", 5, "<", 9]}]}', "> or >= first"),
        ('{"kind": [{"numeric": [">", 5, "<", 5]}]}', "less than its top"),
        ('{"kind": [{"exists": "true"}]}', "true or false"),
        ('{"kind": [{"exists": 1}]}', "true or false"),
        ('{"kind": [{"wildcard": "a**b"}]}', "Two asterisks"),
        ('{"kind": [{"wildcard": "**"}]}', "Two asterisks"),
        ('{"kind": [{"wildcard": "a\\\\b"}]}', "follow a backslash"),
        ('{"kind": [{"wildcard": "a\\\\"}]}', "follow a backslash"),
        ('{"$or": {"kind": ["a"]}}', "at least 2 objects"),
        ('{"$or": [{"kind": ["a"]}]}', "at least 2 objects"),
        ('{"$or": [{"kind": ["a"]}, "b"]}', "at least 2 objects"),
        ('{"$or": [{"kind": ["a"]}, {}]}', "is empty"),
        ('{"kind": ["%s"]}' % ("a" * PATTERN_MAX), f"at most {PATTERN_MAX} characters"),
        ("[" * PATTERN_MAX, "no JSON"),
        ('{"a":' * 600 + "[1]" + "}" * 600, f"more than {NESTING_MAX} times"),
        ('{"$or":[{"a":[1]},' * 200 + '{"a":[1]}' + "]}" * 200, f"more than {NESTING_MAX} times"),
    ],
)  # fmt: skip
def test_what_is_no_pattern_is_refused_with_the_reason(pattern: str, said: str) -> None:
    with pytest.raises(ApiFailure) as error:
        compiled(pattern)
    assert error.value.code == "InvalidParameterValueException"
    assert str(error.value).startswith("Invalid filter pattern definition.")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("body", "pattern", "expected"),
    [
        ('{"kind": "Order"}', {"body": {"kind": ["Order"]}}, True),
        (' \n{"kind": "Order"}\n', {"body": {"kind": ["Order"]}}, True),
        ('{"kind": "Bill"}', {"body": {"kind": ["Order"]}}, False),
        ('[{"kind": "Order"}]', {"body": {"kind": ["Order"]}}, True),
        ('{"kind": "\\ud800", "size": 1e400}', {"body": {"size": [{"numeric": [">", 5]}]}}, True),
        ("Order", {"body": {"kind": ["Order"]}}, False),
        ("Order", {"body": {"kind": [{"exists": False}]}}, False),
        ('"Order"', {"body": {"kind": [{"exists": False}]}}, False),
        ('{"kind": NaN}', {"body": {"other": [{"exists": False}]}}, False),
        ('{"kind": "Bill"}', {"body": {"other": [{"exists": False}]}}, True),
        ("Order", {"body": ["Order"]}, True),
        ("Order 7", {"body": [{"prefix": "Order"}]}, True),
        ("Bill", {"body": ["Order"]}, False),
        ("7", {"body": ["7"]}, True),
        ("{not json", {"body": [{"prefix": "{"}]}, True),
        ('{"kind": "Order"}', {"body": [{"prefix": "{"}]}, False),
        ('{"kind": "Order"}', {"body": [{"exists": False}]}, False),
        ("[]", {"body": [{"anything-but": "a"}]}, False),
        ("Order", {"body": [{"exists": False}]}, False),
        ("Order", {"attributes": {"SenderId": ["AIDA"]}}, True),
        ('{"a": 1}', {"messageAttributes": {"color": {"stringValue": ["red"]}}}, True),
        ("Order", {"messageAttributes": {"color": {"stringValue": ["blue"]}}}, False),
        ("Order", {"body": ["Order"], "attributes": {"ApproximateReceiveCount": ["1"]}}, True),
        ("Order", {"body": ["Order"], "attributes": {"ApproximateReceiveCount": ["2"]}}, False),
        ("Order", {"$or": [{"body": {"kind": ["Order"]}}, {"body": ["Order"]}]}, True),
        ('{"kind": "Order"}', {"$or": [{"body": {"kind": ["Order"]}}, {"body": ["Order"]}]}, True),
        ("Bill", {"$or": [{"body": {"kind": ["Order"]}}, {"body": ["Order"]}]}, False),
    ],
)
def test_a_body_is_json_or_text_as_the_pattern_says(body: str, pattern: dict[str, Any], expected: bool) -> None:
    assert keeps(body, pattern) is expected


def test_one_of_several_filters_is_enough_and_none_keeps_everything() -> None:
    order, bill = {"body": {"kind": ["Order"]}}, {"body": ["Bill"]}
    kept = [keeps(body, order, bill) for body in ('{"kind": "Order"}', "Bill", "Order")]
    assert kept == [True, True, False]
    assert Filters({}).keeps(RECORD) and Filters({"Filters": []}).keeps(RECORD)
    with pytest.raises(ApiFailure):
        Filters({"Filters": [{"Pattern": json.dumps(order)}, {}]})


def test_a_record_stays_as_it_is() -> None:
    record = {**RECORD, "body": '{"kind": "Order"}'}
    before = json.dumps(record)
    assert Filters({"Filters": [{"Pattern": '{"body": {"kind": ["Order"]}}'}]}).keeps(record)
    assert json.dumps(record) == before
