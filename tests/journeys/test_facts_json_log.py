"""The platform's lines in JSON format."""

import json
from typing import Any

import pytest
from tests.journeys.conftest import Deploy, MakeServer
from tests.support.functions import python
from tests.support.server import Function, TorporServer, eventually

CODE = """
import os
def handler(event, context):
    if event.get("exit"):
        os._exit(1)
    return 1
"""


def _records(deploy: Deploy, on: TorporServer) -> list[dict[str, Any]]:
    function: Function = deploy(python(CODE), on=on, LoggingConfig={"LogFormat": "JSON"})
    function.invoke({})
    function.invoke({"exit": 1})

    def complete() -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in function.lines()]
        return lines if sum(line["type"] == "platform.report" for line in lines) == 2 else []

    return eventually(complete, within=10, what="the second report")


def _shape(value: object) -> object:
    if isinstance(value, dict):
        return {key: _shape(inner) for key, inner in value.items()}
    return type(value).__name__


@pytest.mark.fact("L-053")
def test_json_records_have_the_same_shape_under_both_log_styles(deploy: Deploy, make_server: MakeServer) -> None:
    servers = make_server(log_style="new"), make_server(log_style="old")
    shapes = [[(line["type"], _shape(line)) for line in _records(deploy, on)] for on in servers]
    assert shapes[0] == shapes[1]
    assert [kind for kind, _ in shapes[0]] == [
        "platform.initStart",
        "platform.start",
        "platform.report",
        "platform.start",
        "platform.runtimeDone",
        "platform.report",
    ]
