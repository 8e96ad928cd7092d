"""Versions and aliases under load: what is running stays where it is, old code serves on while new code starts."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from tests.journeys.conftest import Deploy
from tests.support.functions import archive, python
from tests.support.server import Function, eventually

OLD = """
def handler(event, context):
    time.sleep(event.get("hold", 0))
    return ["old", context.function_version, BOOT]
"""
NEW = """
time.sleep(3)
def handler(event, context):
    return ["new", context.function_version, BOOT]
"""


def invoked(function: Function, qualifier: str, **event: Any) -> Any:
    answer = function.server.new_client().invoke(
        FunctionName=function.name, Qualifier=qualifier, Payload=json.dumps(event)
    )
    payload = json.loads(answer["Payload"].read())
    assert "FunctionError" not in answer, payload
    assert answer["ExecutedVersion"] == payload[1]
    return payload


def started(function: Function, qualifier: str, **event: Any) -> Future[Any]:
    return function.server.submit(lambda: invoked(function, qualifier, **event))


def published(function: Function, **code: Any) -> str:
    if code:
        function.server.client.update_function_code(FunctionName=function.name, **code)
    version: str = function.server.client.publish_version(FunctionName=function.name)["Version"]
    return version


@contextmanager
def aliased(function: Function, version: str) -> Iterator[dict[str, str]]:
    alias = {"FunctionName": function.name, "Name": "live"}
    function.server.client.create_alias(**alias, FunctionVersion=version)
    yield alias


def test_call_in_flight_ends_on_the_version_it_began_while_its_alias_is_moved(deploy: Deploy) -> None:
    function = deploy(python(OLD))
    published(function)
    with aliased(function, "1") as alias:
        first = invoked(function, "live")
        function.wait_until_frozen()
        running = started(function, "live", hold=1.5)
        eventually(lambda: any(each["phase"] == "serving" for each in function.environments()), what="a call running")
        two = published(function, ZipFile=python(NEW.replace("time.sleep(3)", "")).archive)
        function.server.client.update_alias(**alias, FunctionVersion=two)
        assert invoked(function, "live")[:2] == ["new", "2"]
        assert not running.done(), "the call was to be still running when its alias had moved"
        assert running.result(20) == first
        assert invoked(function, "1") == first


def test_old_version_serves_on_while_the_new_one_starts(deploy: Deploy) -> None:
    function = deploy(python(OLD), Timeout=20)
    published(function)
    invoked(function, "1")
    two = published(function, ZipFile=python(NEW).archive)
    starting = started(function, two)
    time.sleep(0.5)
    begun = time.monotonic()
    assert invoked(function, "1")[0] == "old"
    assert time.monotonic() - begun < 2.0
    assert not starting.done(), "the new version was to be still starting"
    assert starting.result(20)[:2] == ["new", "2"]


def test_function_goes_on_with_a_layer_that_was_deleted(deploy: Deploy) -> None:
    function = deploy(python("def handler(event, context):\n    return open('/opt/note').read()\n"))
    client = function.server.client
    layer = client.publish_layer_version(LayerName="deleted", Content={"ZipFile": archive({"note": "kept"})})
    client.update_function_configuration(FunctionName=function.name, Layers=[layer["LayerVersionArn"]])
    assert function.invoke().payload == "kept"
    client.delete_layer_version(LayerName="deleted", VersionNumber=layer["Version"])
    function.recycle()
    assert function.invoke().payload == "kept"
