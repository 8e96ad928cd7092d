"""Provisioned concurrency: environments of a version that are initialised ahead of its invocations and kept so."""

import json
import time
from typing import Any

import pytest
from tests.journeys.conftest import Deploy, MakeServer
from tests.support.provisioned import ON_DEMAND, PROVISIONED, WORKER, ProvisionedFunction, published
from tests.support.server import TorporServer, eventually

from torpor.settings import Settings

LINES = ("START", "END", "REPORT")


def _loading(seconds: float) -> dict[str, Any]:
    return {"Environment": {"Variables": {"LOADING": str(seconds)}}}


def _modules(function: ProvisionedFunction) -> int:
    return function.lines().count("module")


def _no_init_report(function: ProvisionedFunction) -> bool:
    return not any(line.startswith("INIT_REPORT") for line in function.lines())


@pytest.mark.fact("L-024")
def test_limit_of_init_on_demand_does_not_apply(make_server: MakeServer) -> None:
    assert Settings().init_limit == 10.0
    with published(make_server(init_limit=1, long_init_limit=4), Timeout=1, **_loading(1.5)) as function:
        function.provision(1)
        function.wait()
        assert _modules(function) == 1 and _no_init_report(function)
        assert function.invoke().payload["kind"] == "provisioned-concurrency"
        assert _modules(function) == 1


@pytest.mark.slow
@pytest.mark.fact("L-024")
def test_ten_seconds_do_not_apply(server: TorporServer) -> None:
    with published(server, **_loading(12)) as function:
        function.provision(1)
        function.wait()
        assert _modules(function) == 1 and _no_init_report(function)


def _limit_is_the_larger_one(server: TorporServer, floor: float, longer: int) -> None:
    """The function's timeout counts only if it is larger; what overruns fails at the first try."""
    with (
        published(server, Timeout=1, **_loading(floor * 0.75)) as quick,
        published(server, Timeout=1, **_loading(floor * 1.3)) as slow,
        published(server, Timeout=longer, **_loading(floor * 1.3)) as patient,
    ):
        began = time.time()
        for function in (quick, slow, patient):
            function.provision(1)
        assert slow.wait("FAILED", within=floor * 2 + 10) - began >= floor
        shown = slow.config()
        assert (shown["StatusReason"], shown["AllocatedProvisionedConcurrentExecutions"]) == (
            "FUNCTION_ERROR_INIT_FAILURE",
            0,
        )
        reports = [line for line in slow.lines() if line.startswith("INIT_REPORT")]
        assert "Status: timeout" in reports[0]
        assert floor * 1000 <= float(reports[0].split()[3]) < floor * 1000 + 1000
        for function in (quick, patient):
            function.wait(within=floor + 10)
            assert _modules(function) == 1


@pytest.mark.fact("L-025")
def test_init_may_take_up_to_a_limit_of_its_own_or_the_timeout_if_that_is_longer(make_server: MakeServer) -> None:
    assert Settings().long_init_limit == 130.0
    _limit_is_the_larger_one(make_server(init_limit=1, long_init_limit=4), 4.0, 9)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.fact("L-025")
def test_init_may_take_130_seconds_or_the_timeout_if_that_is_longer(server: TorporServer) -> None:
    _limit_is_the_larger_one(server, 130.0, 200)


@pytest.mark.slow
@pytest.mark.timeout(1000)
@pytest.mark.fact("L-025")
def test_init_may_take_fourteen_minutes(server: TorporServer) -> None:
    with published(server, Timeout=900, **_loading(14 * 60)) as function:
        function.provision(1)
        function.wait(within=14 * 60 + 30)
        assert _modules(function) == 1


@pytest.mark.fact("L-026")
def test_environments_are_initialised_when_the_setting_is_made(server: TorporServer) -> None:
    with published(server) as function:
        asked = function.provision(2)
        assert (asked["Status"], asked["RequestedProvisionedConcurrentExecutions"]) == ("IN_PROGRESS", 2)
        function.wait()
        assert _modules(function) == 2
        assert function.config()["AvailableProvisionedConcurrentExecutions"] == 2
        eventually(lambda: {entry["phase"] for entry in function.standing()} == {"frozen"}, what="both being frozen")
        assert not any(line.startswith(LINES) for line in function.lines()), "nothing has been invoked"


@pytest.mark.fact("L-027")
def test_what_has_crashed_is_there_again_ahead_of_the_next_invocation(server: TorporServer) -> None:
    with published(server) as function:
        function.provision(2)
        function.wait()
        before = {entry["id"] for entry in function.standing()}
        assert function.invoke({"exit": True}).error == "Unhandled"
        eventually(lambda: len({entry["id"] for entry in function.standing()} - before) == 1, what="a replacement")
        ready = function.wait()
        assert function.config()["AvailableProvisionedConcurrentExecutions"] == 2
        for reply in (function.invoke(), function.invoke()):
            assert reply.payload["booted"] < ready <= reply.sent
            assert reply.payload["kind"] == "provisioned-concurrency"


@pytest.mark.fact("L-027")
def test_what_has_timed_out_is_there_again_ahead_of_the_next_invocation(server: TorporServer) -> None:
    with published(server, Timeout=1) as function:
        function.provision(1)
        function.wait()
        (before,) = function.standing()
        assert "timed out" in function.invoke({"sleep": 5}).payload["errorMessage"]
        eventually(lambda: before["id"] not in [entry["id"] for entry in function.standing()], what="its end")
        ready = function.wait()
        assert function.invoke().payload["booted"] < ready


def _pause_lies_between(server: TorporServer, seconds: float) -> None:
    with published(server, LoggingConfig={"LogFormat": "JSON"}) as function:
        function.provision(1)
        function.wait()
        time.sleep(seconds)
        reply = function.invoke()
        assert reply.sent - reply.payload["booted"] >= seconds
        records = [json.loads(line) for line in function.lines() if line.startswith('{"time"')]
        (start,) = [each["record"] for each in records if each["type"] == "platform.initStart"]
        assert (start["initializationType"], start["phase"]) == ("provisioned-concurrency", "init")
        (report,) = [each["record"]["metrics"] for each in records if each["type"] == "platform.report"]
        assert report["durationMs"] < seconds * 1000, "no init in the request"
        assert report["initDurationMs"] > 0
        kinds = [each["type"] for each in records]
        assert kinds.index("platform.initStart") < kinds.index("platform.start")


@pytest.mark.fact("L-028")
def test_time_may_pass_before_the_first_invocation_which_is_reported_apart_from_init(server: TorporServer) -> None:
    _pause_lies_between(server, 3.0)


@pytest.mark.slow
@pytest.mark.fact("L-028")
def test_a_minute_may_pass_before_the_first_invocation(server: TorporServer) -> None:
    _pause_lies_between(server, 60.0)


@pytest.mark.fact("L-029")
def test_environments_on_demand_may_be_initialised_ahead_and_nothing_else_differs(
    server: TorporServer, make_server: MakeServer, deploy: Deploy
) -> None:
    assert Settings().proactive_init is False
    told = []
    for ahead, on in ((True, make_server(proactive_init=True)), (False, server)):
        function = deploy(WORKER, on=on)
        if ahead:
            function.wait_until_frozen()
            assert [entry["start"] for entry in function.environments()] == [ON_DEMAND]
        else:
            time.sleep(1.0)
            assert function.environments() == []
        reply = function.invoke()
        assert (reply.payload["booted"] < reply.sent) is ahead
        assert reply.payload["kind"] == "on-demand" and "Init Duration: " in reply.report
        lines = [line for line in function.lines() if line.startswith((*LINES, "INIT_", "module"))]
        told.append(([line.split()[0] for line in lines], set(reply.payload), reply.error))
    assert told[0] == told[1]
    assert told[0][0] == ["INIT_START", "module", "START", "END", "REPORT"]


@pytest.mark.fact("L-029")
def test_a_change_initialises_an_environment_of_the_new_configuration_ahead(make_server: MakeServer) -> None:
    with make_server(proactive_init=True).deployed(WORKER) as function:
        function.wait_until_frozen()
        (before,) = function.environments()
        function.server.client.update_function_configuration(FunctionName=function.name, Description="other")
        eventually(lambda: [entry["id"] for entry in function.environments()] != [before["id"]], what="another one")
        ready = function.wait_until_frozen()
        assert function.invoke().payload["booted"] < ready


def test_invocations_take_provisioned_environments_first_and_spill_over_on_demand(server: TorporServer) -> None:
    with published(server) as function:
        function.provision(1)
        function.wait()
        running = [function.start({"sleep": 1.0}) for _ in range(3)]
        kinds = sorted(reply.result().payload["kind"] for reply in running)
        assert kinds == ["on-demand", "on-demand", "provisioned-concurrency"]
        assert function.invoke().payload["kind"] == "provisioned-concurrency"
        figures = function.metrics()
        assert figures["ProvisionedConcurrencyInvocations"] == 2
        assert figures["ProvisionedConcurrencySpilloverInvocations"] == 2


def test_spill_over_idles_out_and_provisioned_environments_stay(make_server: MakeServer) -> None:
    with published(make_server(idle_timeout=1)) as function:
        function.provision(1)
        function.wait()
        for reply in [function.start({"sleep": 0.5}) for _ in range(2)]:
            reply.result()
        assert len(function.on_demand()) == 1
        eventually(lambda: not function.on_demand(), what="the spill-over ending")
        time.sleep(1.0)
        assert len(function.standing()) == 1


def test_at_their_maximum_age_environments_are_replaced_without_a_gap(make_server: MakeServer) -> None:
    with published(make_server(max_age=3)) as function:
        function.provision(1)
        function.wait()
        boots, end = set(), time.monotonic() + 6.0
        while time.monotonic() < end:
            payload = function.invoke().payload
            assert payload["kind"] == "provisioned-concurrency"
            boots.add(payload["boot"])
            time.sleep(0.05)
        assert len(boots) >= 2


def test_reservation_of_the_same_size_leaves_nothing_to_other_versions(server: TorporServer) -> None:
    client = server.client
    with published(server) as function:
        client.put_function_concurrency(FunctionName=function.name, ReservedConcurrentExecutions=1)
        function.provision(1)
        function.wait()
        with pytest.raises(client.exceptions.TooManyRequestsException) as refused:
            client.invoke(FunctionName=function.name)
        assert refused.value.response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
        for _ in range(20):
            assert function.invoke().payload["kind"] == "provisioned-concurrency"
        running = function.start({"sleep": 1.0})
        eventually(lambda: function.metrics()["ProvisionedConcurrentExecutions"] == 1, what="one running")
        assert function.metrics()["ProvisionedConcurrencyUtilization"] == 1.0
        with pytest.raises(client.exceptions.TooManyRequestsException):
            function.invoke()
        assert running.result().error == ""


def test_alias_takes_its_environments_along_to_another_version(server: TorporServer) -> None:
    client = server.client
    with published(server) as version:
        name = version.name
        client.update_function_configuration(FunctionName=name, Timeout=19)
        client.publish_version(FunctionName=name)
        client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
        live = ProvisionedFunction(server, name, "live")
        live.provision(1)
        live.wait()
        assert [entry["version"] for entry in live.standing()] == ["1"]
        client.update_alias(FunctionName=name, Name="live", FunctionVersion="2")
        eventually(lambda: [entry["version"] for entry in live.standing()] == ["2"], what="the move")
        live.wait()
        reply = live.invoke()
        assert (reply.payload["version"], reply.payload["kind"]) == ("2", "provisioned-concurrency")
        client.delete_alias(FunctionName=name, Name="live")
        eventually(lambda: not live.standing(), what="the end of the alias's environments")


def test_fewer_or_none_end_those_that_are_idle_and_let_running_ones_finish(server: TorporServer) -> None:
    with published(server) as function:
        function.provision(2)
        function.wait()
        running = [function.start({"sleep": 1.5}) for _ in range(2)]
        eventually(lambda: function.metrics()["ProvisionedConcurrentExecutions"] == 2, what="two running")
        function.end()
        assert [reply.result().error for reply in running] == ["", ""]
        eventually(lambda: not function.standing(), what="both ending")
        assert function.invoke().payload["kind"] == "on-demand"
        assert PROVISIONED not in {entry["start"] for entry in function.environments()}


def test_configuration_of_the_version_stays_as_it_is(server: TorporServer) -> None:
    client = server.client
    with published(server) as function:
        named = {"FunctionName": function.name, "Qualifier": "1"}
        before = client.get_function_configuration(**named)
        function.provision(1)
        function.wait()
        after = client.get_function_configuration(**named)
        for shown in (before, after):
            del shown["ResponseMetadata"]
        assert before == after
        assert client.publish_version(FunctionName=function.name)["Version"] == "1", "it counts as unchanged"
