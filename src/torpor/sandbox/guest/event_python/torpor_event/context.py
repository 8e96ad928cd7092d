"""The second argument of a handler: who is called, by which request, with which rights.

The runtimes up to Python 3.10 and those since differ in what they put where.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from types import SimpleNamespace

Headers = Mapping[str, str]


class FCContext(SimpleNamespace):
    """Named as functions' logs show it."""


def build(headers: Headers) -> FCContext:
    """The context of one request, in this interpreter's form."""
    return _recent(headers) if sys.version_info >= (3, 11) else _classic(headers)


def _recent(headers: Headers) -> FCContext:
    function = _function(headers)
    function.version_id = _told(headers, "x-fc-version-id", "FC_FUNCTION_VERSION")
    function.qualifier = headers.get("x-fc-qualifier", "")
    return FCContext(
        request_id=headers.get("x-fc-request-id", ""),
        function=function,
        region=_told(headers, "x-fc-region", "FC_REGION"),
        account_id=_told(headers, "x-fc-account-id", "FC_ACCOUNT_ID"),
        logger=logging.getLogger(),
        log_project=headers.get("x-fc-service-logproject", ""),
        log_store=headers.get("x-fc-service-logstore", ""),
    )


def _classic(headers: Headers) -> FCContext:
    return FCContext(
        request_id=headers.get("x-fc-request-id", ""),
        credentials=_credentials(headers),
        function=_function(headers),
        service=_service(headers),
        region=_told(headers, "x-fc-region", "FC_REGION"),
        account_id=_told(headers, "x-fc-account-id", "FC_ACCOUNT_ID"),
        retry_count=_number(headers.get("x-fc-retry-count", "")),
        tracing=SimpleNamespace(
            span_context=headers.get("x-fc-tracing-opentracing-span-context", ""),
            jaeger_endpoint=headers.get("x-fc-tracing-jaeger-endpoint", ""),
            span_baggages=headers.get("x-fc-tracing-opentracing-span-baggages", ""),
        ),
    )


def _function(headers: Headers) -> SimpleNamespace:
    return SimpleNamespace(
        name=_told(headers, "x-fc-function-name", "FC_FUNCTION_NAME"),
        handler=_told(headers, "x-fc-function-handler", "FC_FUNCTION_HANDLER"),
        memory=_number(_told(headers, "x-fc-function-memory", "FC_FUNCTION_MEMORY_SIZE")),
        timeout=_number(_told(headers, "x-fc-function-timeout", "FC_TIMEOUT")),
    )


def _service(headers: Headers) -> SimpleNamespace:
    return SimpleNamespace(
        name=headers.get("x-fc-service-name", ""),
        log_project=headers.get("x-fc-service-logproject", ""),
        log_store=headers.get("x-fc-service-logstore", ""),
        qualifier=headers.get("x-fc-qualifier", ""),
        version_id=_told(headers, "x-fc-version-id", "FC_VER_ID"),
    )


def _credentials(headers: Headers) -> SimpleNamespace:
    return SimpleNamespace(
        access_key_id=_told(headers, "x-fc-access-key-id", "ALIBABA_CLOUD_ACCESS_KEY_ID"),
        access_key_secret=_told(headers, "x-fc-access-key-secret", "ALIBABA_CLOUD_ACCESS_KEY_SECRET"),
        security_token=_told(headers, "x-fc-security-token", "ALIBABA_CLOUD_SECURITY_TOKEN"),
    )


def _told(headers: Headers, header: str, variable: str) -> str:
    return headers.get(header) or os.environ.get(variable, "")


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0
