"""What a function's logging configuration makes of its log, and whose lines `torpor logs` shows."""

import json
from typing import Any

import pytest
from tests.journeys.conftest import Deploy
from tests.support.functions import Package, node, python
from tests.support.server import Function, eventually

LEVELS = {
    "python": python("""
    import logging
    def handler(event, context):
        logging.debug("as debug"); logging.info("as info")
    """),
    "node": node("""
    export const handler = async () => { console.debug("as debug"); console.info("as info"); };
    """),
}
QUIET = python("def handler(event, context): print('version', context.function_version, flush=True)")


def _events(function: Function, last: str) -> list[dict[str, Any]]:
    """What the log has, once it has an event of this type."""

    def read() -> list[dict[str, Any]] | None:
        found = [json.loads(line) for line in function.lines() if line.startswith("{")]
        return found if any(event.get("type") == last for event in found) else None

    return eventually(read, what=last)


@pytest.mark.parametrize("language", list(LEVELS))
def test_a_json_log_has_info_and_above_unless_told_otherwise(deploy: Deploy, language: str) -> None:
    package: Package = LEVELS[language]
    function = deploy(package, LoggingConfig={"LogFormat": "JSON"})
    function.invoke()

    messages = [event.get("message") for event in _events(function, "platform.report")]
    assert "as info" in messages and "as debug" not in messages


def test_the_lowest_system_level_shows_when_the_runtime_was_done(deploy: Deploy) -> None:
    function = deploy(QUIET, LoggingConfig={"LogFormat": "JSON", "SystemLogLevel": "DEBUG"})
    function.invoke()

    (done,) = [event for event in _events(function, "platform.report") if event.get("type") == "platform.runtimeDone"]
    assert done["record"]["status"] == "success"


def test_the_log_names_the_runtime_version_that_the_api_names(deploy: Deploy) -> None:
    function = deploy(QUIET)
    function.invoke()

    (line,) = [line for line in function.lines() if line.startswith("INIT_START")]
    assert line.endswith(function.configuration()["RuntimeVersionConfig"]["RuntimeVersionArn"])


def test_logs_of_a_version_or_an_alias_are_those_of_its_environments(deploy: Deploy) -> None:
    function = deploy(QUIET)
    client = function.server.client
    client.publish_version(FunctionName=function.name)
    client.create_alias(FunctionName=function.name, Name="live", FunctionVersion="1")
    for name in (function.name, f"{function.name}:1"):
        Function(function.server, name).invoke()

    for name in (f"{function.name}:1", f"{function.name}:live"):
        shown = function.server.command("logs", name)
        assert "version 1" in shown and "version $LATEST" not in shown
