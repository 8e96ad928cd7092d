"""What functions log, read by the vendor's own clients from a real server."""

import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from tests.journeys.conftest import Deploy, MakeServer, require
from tests.support.aws_tool import logs_tool
from tests.support.functions import PYTHON, python
from tests.support.lives import Lives, lives
from tests.support.server import ROLE, Function, TorporServer

SAYING = python("""
def handler(event, context):
    print(event["say"])
    return context.log_stream_name
""")


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Lives]:
    with lives(tmp_path) as made:
        yield made


def logs_of(server: TorporServer) -> Any:
    return boto3.session.Session().client(
        "logs",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 1}, inject_host_prefix=False),
    )


def group_of(function: Function) -> str:
    return f"/aws/lambda/{function.name}"


def said(logs: Any, group: str, **values: Any) -> list[str]:
    pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group, **values)
    return [event["message"] for page in pages for event in page["events"]]


def test_the_log_of_an_invocation_is_in_the_stream_that_the_function_was_told(deploy: Deploy) -> None:
    function = deploy(SAYING)
    stream = function.invoke({"say": "hello-42"}).payload
    logs = logs_of(function.server)
    (shown,) = logs.describe_log_streams(logGroupName=group_of(function))["logStreams"]
    assert shown["logStreamName"] == stream
    events = logs.get_log_events(logGroupName=group_of(function), logStreamName=stream, startFromHead=True)["events"]
    kinds = [event["message"].split()[0] for event in events]
    assert kinds == ["INIT_START", "START", "hello-42", "END", "REPORT"]
    assert abs(events[-1]["timestamp"] / 1000 - time.time()) < 60
    assert said(logs, group_of(function), filterPattern='"hello-42"') == ["hello-42\n"]
    assert "hello-42" in function.server.command("logs", function.name)


def test_a_log_group_of_ones_own_is_where_the_function_logs(deploy: Deploy) -> None:
    function = deploy(SAYING, LoggingConfig={"LogGroup": "shared/mine"})
    function.invoke({"say": "here"})
    assert said(logs_of(function.server), "shared/mine", filterPattern="here") == ["here\n"]


def test_a_deleted_group_comes_back_with_the_next_line_of_the_same_environment(deploy: Deploy) -> None:
    function = deploy(SAYING)
    stream = function.invoke({"say": "before"}).payload
    logs = logs_of(function.server)
    logs.delete_log_group(logGroupName=group_of(function))
    with pytest.raises(logs.exceptions.ResourceNotFoundException, match=r"The specified log group does not exist\."):
        logs.describe_log_streams(logGroupName=group_of(function))
    assert function.invoke({"say": "after"}).payload == stream
    assert said(logs, group_of(function), filterPattern="?before ?after") == ["after\n"]


def test_a_live_tail_follows_a_function(deploy: Deploy) -> None:
    function = deploy(SAYING)
    function.invoke({"say": "first"})
    logs = logs_of(function.server)
    arn = logs.describe_log_groups(logGroupNamePrefix=group_of(function))["logGroups"][0]["logGroupArn"]
    stream = logs.start_live_tail(logGroupIdentifiers=[arn], logEventFilterPattern="now")["responseStream"]
    events = iter(stream)
    assert "sessionStart" in next(events)
    function.invoke({"say": "now"})
    for event in events:
        if event["sessionUpdate"]["sessionResults"]:
            assert [each["message"] for each in event["sessionUpdate"]["sessionResults"]] == ["now\n"]
            break
    stream.close()


def test_the_command_line_tool_follows_a_function(deploy: Deploy) -> None:
    function = deploy(SAYING)
    function.invoke({"say": "first"})
    logs = logs_of(function.server)
    arn = logs.describe_log_groups(logGroupNamePrefix=group_of(function))["logGroups"][0]["logGroupArn"]
    with _lines_of(function.server.url, "start-live-tail", "--log-group-identifiers", arn) as lines:
        deadline = time.monotonic() + 40
        found: list[str] = []
        while not any("from-the-function" in line for line in found):
            assert time.monotonic() < deadline, found
            function.invoke({"say": "from-the-function"})
            time.sleep(0.3)
            while not lines.empty():
                found.append(lines.get())


@contextmanager
def _lines_of(url: str, *arguments: str) -> Iterator["queue.Queue[str]"]:
    """What the tool prints while the block runs; it is ended then."""
    process = logs_tool(url, *arguments)
    assert process.stdout is not None and process.stderr is not None
    out, lines = process.stdout, queue.Queue[str]()
    reader = threading.Thread(target=lambda: [lines.put(line) for line in out])
    reader.start()
    try:
        yield lines
    finally:
        process.terminate()
        process.wait(20)
        reader.join()
        out.close()
        process.stderr.close()


def test_groups_their_retention_and_their_events_survive_a_kill(life: Lives) -> None:
    server = life.start()
    require(server, PYTHON)
    function = _deployed(server, "f")
    function.invoke({"say": "kept"})
    logs, group = logs_of(server), group_of(function)
    logs.put_retention_policy(logGroupName=group, retentionInDays=7)
    logs.create_log_group(logGroupName="own", tags={"a": "b"})
    logs.create_log_stream(logGroupName="own", logStreamName="s")
    time.sleep(1.0)  # lines are on disk half a second later; what a call acknowledged is there at once
    logs.delete_log_stream(logGroupName="own", logStreamName="s")
    logs.create_log_stream(logGroupName="own", logStreamName="t")
    life.kill(server)
    logs = logs_of(life.start())
    groups = {each["logGroupName"]: each for each in logs.describe_log_groups()["logGroups"]}
    assert groups[group]["retentionInDays"] == 7 and set(groups) == {group, "own"}
    streams = logs.describe_log_streams(logGroupName="own")["logStreams"]
    assert [stream["logStreamName"] for stream in streams] == ["t"]
    assert said(logs, group, filterPattern="kept") == ["kept\n"]


def _deployed(server: TorporServer, name: str) -> Function:
    server.client.create_function(
        FunctionName=name,
        Role=ROLE,
        Runtime=SAYING.runtime,
        Handler=SAYING.handler,
        Code={"ZipFile": SAYING.archive},
        Timeout=20,
    )
    return Function(server, name)


def test_a_server_that_stops_ends_live_tails(life: Lives) -> None:
    server = life.start()
    logs = logs_of(server)
    logs.create_log_group(logGroupName="own")
    arn = logs.describe_log_groups()["logGroups"][0]["logGroupArn"]
    events = iter(logs.start_live_tail(logGroupIdentifiers=[arn])["responseStream"])
    assert "sessionStart" in next(events)
    begun = time.monotonic()
    assert life.terminate(server) == 0
    assert all(event["sessionUpdate"]["sessionResults"] == [] for event in events)
    assert time.monotonic() - begun < 15


def test_a_server_with_keys_checks_those_of_this_api_too(make_server: MakeServer) -> None:
    server = make_server(access_keys="id:secret")
    logs = logs_of(server)
    with pytest.raises(ClientError, match="UnrecognizedClientException"):
        logs.describe_log_groups()
    target = {"X-Amz-Target": "Logs_20140328.DescribeLogGroups"}
    bare = urllib.request.Request(server.url + "/", data=b"{}", headers=target, method="POST")
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(bare, timeout=10)


def test_logs_are_kept_within_the_bound_of_their_group(make_server: MakeServer) -> None:
    server = make_server(log_group_mb=1)
    logs = logs_of(server)
    logs.create_log_group(logGroupName="own")
    logs.create_log_stream(logGroupName="own", logStreamName="s")
    now = int(time.time() * 1000)
    for number in range(8):
        entries = [{"timestamp": now, "message": f"{number} " + "x" * 100_000} for _ in range(5)]
        logs.put_log_events(logGroupName="own", logStreamName="s", logEvents=entries)
        time.sleep(0.6)
    folder = Path(server.data) / "logs" / "own"
    assert sum(path.stat().st_size for path in folder.glob("events*.jsonl")) < 2 * 1024 * 1024
    assert said(logs, "own")[-1].startswith("7 ")
