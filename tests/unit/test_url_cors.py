"""What pages of other origins are told about a function URL."""

from typing import Any

import pytest

from torpor.contracts.lambda_.url_cors import answer_fields, preflight_fields, read_cors, without_cors

SHOP = "https://shop.example"
ORIGIN = "Access-Control-Allow-Origin"
METHODS = "Access-Control-Allow-Methods"
HEADERS = "Access-Control-Allow-Headers"
CREDENTIALS = ("Access-Control-Allow-Credentials", "true")
EXPOSE = "Access-Control-Expose-Headers"
AGE = "Access-Control-Max-Age"
VARY = ("Vary", "Origin")


@pytest.mark.parametrize(
    ("cors", "origin", "fields"),
    [
        ({"AllowOrigins": ["*"]}, SHOP, [(ORIGIN, "*")]),
        ({"AllowOrigins": ["*"]}, "null", [(ORIGIN, "*")]),
        ({"AllowOrigins": ["*"]}, "", []),
        ({"AllowOrigins": ["*"], "AllowCredentials": True}, SHOP, [(ORIGIN, SHOP), VARY, CREDENTIALS]),
        ({"AllowOrigins": ["*"], "AllowCredentials": False}, SHOP, [(ORIGIN, "*")]),
        ({"AllowOrigins": [SHOP]}, SHOP, [(ORIGIN, SHOP), VARY]),
        ({"AllowOrigins": ["https://x", SHOP]}, SHOP.upper(), [(ORIGIN, SHOP.upper()), VARY]),
        ({"AllowOrigins": [SHOP]}, SHOP + ".evil", [VARY]),
        ({"AllowOrigins": [SHOP]}, "", [VARY]),
        ({"AllowOrigins": []}, SHOP, [VARY]),
        ({"AllowMethods": ["GET"]}, SHOP, [VARY]),
        ({"AllowOrigins": ["*"], "ExposeHeaders": ["a", "b"], "MaxAge": 5}, SHOP, [(ORIGIN, "*"), (EXPOSE, "a,b")]),
    ],
)
def test_an_answer_names_the_origin_that_may_read_it(
    cors: dict[str, Any], origin: str, fields: list[tuple[str, str]]
) -> None:
    configured = read_cors(cors)
    assert configured is not None
    assert answer_fields(configured, origin) == fields


@pytest.mark.parametrize(
    ("cors", "asked", "fields"),
    [
        ({"AllowMethods": ["GET", "PUT"], "AllowHeaders": ["X-A"], "MaxAge": 300}, ("PUT", "x-a"),
         [(METHODS, "GET,PUT"), (HEADERS, "X-A"), (AGE, "300")]),
        ({"AllowMethods": ["GET"], "AllowHeaders": ["X-A"]}, ("DELETE", "x-b"), [(METHODS, "GET"), (HEADERS, "X-A")]),
        ({"AllowMethods": ["*"], "AllowHeaders": ["*"]}, ("PUT", "x-a"), [(METHODS, "*"), (HEADERS, "*")]),
        ({"AllowMethods": ["*"], "AllowHeaders": ["*"], "AllowCredentials": True}, ("PUT", "X-B, x-a"),
         [CREDENTIALS, (METHODS, "PUT"), (HEADERS, "x-a,x-b")]),
        ({"MaxAge": 0}, ("PUT", ""), [(AGE, "0")]),
        ({}, ("", ""), []),
    ],
)  # fmt: skip
def test_a_preflight_is_told_what_is_configured(
    cors: dict[str, Any], asked: tuple[str, str], fields: list[tuple[str, str]]
) -> None:
    configured = read_cors({"AllowOrigins": [SHOP], **cors})
    assert configured is not None
    assert preflight_fields(configured, SHOP, *asked) == [(ORIGIN, SHOP), VARY, *fields]
    assert preflight_fields(configured, "https://other.example", *asked) == [VARY]


def test_what_the_function_says_itself_does_not_count() -> None:
    own = [("access-control-allow-origin", "https://evil"), ("Access-Control-Max-Age", "9"), ("X-A", "b")]

    assert without_cors(own) == [("X-A", "b")]


def test_an_empty_configuration_is_none() -> None:
    assert read_cors({}) is None
    assert read_cors(None) is None
