"""`torpor events` as an operator uses it, on a real server."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime

import boto3
import pytest
from tests.journeys.conftest import Deploy, MakeServer
from tests.support import fc
from tests.support.functions import python
from tests.support.objects import PLAIN
from tests.support.server import Function, TorporServer, eventually

CODE = """
import os

def handler(event, context):
    if event.get("fails") and not os.path.exists("/tmp/mended"):
        raise ValueError("not yet")
    if event.get("mends"):
        open("/tmp/mended", "w").close()
    return event
"""


@pytest.fixture
def server(make_server: MakeServer) -> TorporServer:
    return make_server(event_wait_scale=0.001)


@pytest.fixture
def function(server: TorporServer, deploy: Deploy) -> Iterator[Function]:
    yield deploy(python(CODE), on=server)


def accept(function: Function, event: object) -> str:
    answer = function.server.client.invoke(
        FunctionName=function.name, InvocationType="Event", Payload=json.dumps(event).encode()
    )
    assert answer["StatusCode"] == 202
    return str(answer["ResponseMetadata"]["RequestId"])


def shown(server: TorporServer, identity: str) -> dict[str, object]:
    value: dict[str, object] = json.loads(server.command("events", "show", identity, "--json"))
    return value


def refused(server: TorporServer, *arguments: str) -> str:
    command = [sys.executable, "-m", "torpor", "events", *arguments, "--endpoint", server.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr


def test_an_event_s_whole_history_is_read_back_and_it_is_run_again(server: TorporServer, function: Function) -> None:
    identity = accept(function, {"fails": True})
    eventually(lambda: shown(server, identity)["state"] == "failed", what="the event failing")
    text = server.command("events", "show", identity)
    accept(function, {"mends": True})
    again = server.command("events", "retry", identity)
    eventually(lambda: shown(server, identity)["state"] == "succeeded", what="the event succeeding")

    assert text.count("ValueError: not yet") == 3
    assert text.count("s before the next attempt") == 2
    assert "exhausted" in text and identity in text and '{"fails": true}' in text
    assert f"of {function.name} is" in again
    history = [step["what"] for step in shown(server, identity)["history"]]  # type: ignore[attr-defined]
    assert history == ["accepted", "run", "wait", "run", "wait", "run", "ended", "retried", "run", "ended"]


def test_the_overview_has_numbers_ages_and_rates_of_each_function(server: TorporServer, function: Function) -> None:
    for number in range(5):
        accept(function, {"number": number})
    row = f"{function.name} "
    eventually(lambda: _succeeded(server, function) == 5, what="the events succeeding")
    table = server.command("events").splitlines()

    assert table[0].split() == [
        "FUNCTION", "QUEUED", "RUNNING", "DELIVERING", "SUCCEEDED", "FAILED", "DEAD", "OLDEST", "IN/S", "OUT/S",
    ]  # fmt: skip
    (found,) = [line.split() for line in table if line.startswith(row)]
    assert found[1:8] == ["0", "0", "0", "5", "0", "0", "-"]
    assert float(found[8]) > 0 and float(found[9]) > 0


def _succeeded(server: TorporServer, function: Function) -> int:
    functions = json.loads(server.command("events", "--json"))["functions"]
    return sum(each["succeeded"] for each in functions if each["function"] == function.name)


def test_events_are_listed_by_state_and_function(server: TorporServer, function: Function) -> None:
    good, bad = accept(function, {}), accept(function, {"fails": True})
    eventually(lambda: shown(server, bad)["state"] == "failed", what="one event failing")
    listed = server.command("events", "list", "--function", function.name, "--state", "failed")
    everything = server.command("events", "list", "--function", function.name)

    assert bad in listed and good not in listed
    assert bad in everything and good in everything
    assert server.command("events", "list", "--function", "nobody") == "No event is like that.\n"


def test_a_waiting_event_is_dropped(server: TorporServer, function: Function) -> None:
    server.client.put_function_concurrency(FunctionName=function.name, ReservedConcurrentExecutions=1)
    held = python("import time\ndef handler(event, context):\n    time.sleep(event.get('seconds', 0))\n")
    server.client.update_function_code(FunctionName=function.name, ZipFile=held.archive)
    server.client.update_function_configuration(FunctionName=function.name, Handler=held.handler)
    running, waiting = accept(function, {"seconds": 3}), accept(function, {})
    eventually(lambda: shown(server, running)["state"] == "running", what="the first event running")
    told = server.command("events", "drop", waiting)

    assert told.startswith("Dropped event ")
    assert shown(server, waiting)["state"] == "dropped"
    assert shown(server, running)["state"] == "running"


@fc.fc_warnings
@pytest.mark.skipif(not fc.PYTHON, reason="this host has no Python that event functions can use")
def test_what_makes_events_is_listed(server: TorporServer, function: Function) -> None:
    assert server.command("events", "sources").startswith("Nothing makes events by itself")
    events = boto3.client("events", endpoint_url=server.url, **PLAIN)
    function_arn = "arn:aws:lambda:us-east-1:000000000000:function:" + function.name
    events.put_rule(Name="nightly", ScheduleExpression="cron(0 3 * * ? *)")
    events.put_targets(Rule="nightly", Targets=[{"Id": "1", "Arn": function_arn}])
    events.put_rule(Name="idle", ScheduleExpression="rate(1 hour)", State="DISABLED")
    queue = "arn:aws:sqs:us-east-1:000000000000:orders"
    server.client.create_event_source_mapping(EventSourceArn=queue, FunctionName=function.name, Enabled=False)
    timer = {"cronExpression": "CRON_TZ=Asia/Shanghai 0 30 4 * * *", "enable": True, "payload": "{}"}
    with (
        fc.deployed(server, fc.python(CODE), runtime=fc.PYTHON, handler="index.handler") as timed,
        timed.triggered("timer", **timer),
    ):
        table = server.command("events", "sources")
        told = json.loads(server.command("events", "sources", "--json"))["sources"]

    lines = {line.split()[0]: " ".join(line.split()) for line in table.splitlines()}
    assert f"rule:nightly:1 {function.name} enabled cron(0 3 * * ? *)" in lines["rule:nightly:1"]
    assert lines["rule:idle"] == "rule:idle - disabled rate(1 hour) - -"
    assert f"{queue} {function.name} disabled batches of up to 10 -" in lines[queue]
    nexts = {each["name"].split(":")[0]: datetime.fromtimestamp(each["next"], UTC) for each in told if each["next"]}
    assert (nexts["rule"].hour, nexts["rule"].minute) == (3, 0)
    assert (nexts["timer"].hour, nexts["timer"].minute) == (20, 30)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", "nobody"), "There is no event nobody."),
        (("retry", "12345678"), "There is no event 12345678."),
        (("drop", "nobody"), "There is no event nobody."),
        (("list", "--state", "lost"), "There is no state lost"),
        (("list", "--limit", "0"), "--limit"),
        (("shwo", "1"), "shwo"),
    ],
)
def test_what_is_not_there_or_not_meant_is_told_in_one_line(
    server: TorporServer, arguments: tuple[str, ...], said: str
) -> None:
    assert said in refused(server, *arguments)


def test_only_who_may_use_the_api_sees_events(make_server: MakeServer) -> None:
    server = make_server(access_keys="AKIA1:secret")
    gets = ("events", "events/1", "events/sources")
    for method, path in (*(("GET", path) for path in gets), ("DELETE", "events/1"), ("POST", "events/1/retry")):
        request = urllib.request.Request(f"{server.url}/_torpor/{path}", method=method)
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(request, timeout=10)
        with refusal.value as answer:
            assert answer.code == 403
