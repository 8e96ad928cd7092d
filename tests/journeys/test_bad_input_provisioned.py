"""Provisioned concurrency under what goes wrong: broken and hanging functions, no memory, deletion, a killed server."""

import time
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from tests.journeys.conftest import MakeServer, require_sandbox
from tests.support.extensions import extension, layer
from tests.support.functions import Package, python
from tests.support.lives import lives
from tests.support.provisioned import WORKER, ProvisionedFunction, published
from tests.support.server import ROLE, TorporServer, eventually

FAILURE = "FUNCTION_ERROR_INIT_FAILURE"
CRASHES = python("os._exit(3)\ndef handler(event, context): pass\n")
RAISES = python("raise ValueError('not today')\ndef handler(event, context): pass\n")
HANGS = python("time.sleep(3600)\ndef handler(event, context): pass\n")
MUTE = "time.sleep(3600)"
"""An extension that never registers."""
SILENT = """
register("INVOKE")
time.sleep(3600)
"""
"""An extension that registers, and never asks for its first event."""


def _failed(function: ProvisionedFunction) -> str:
    """The reason, once it is told as failed, with nothing allocated."""
    function.wait("FAILED")
    shown = function.config()
    assert shown["AllocatedProvisionedConcurrentExecutions"] == shown["AvailableProvisionedConcurrentExecutions"] == 0
    return str(shown["StatusReason"])


@pytest.mark.parametrize("package", [CRASHES, RAISES], ids=["crashes", "raises"])
def test_broken_init_fails_after_some_tries_and_callers_are_told_the_error(
    server: TorporServer, package: Package
) -> None:
    with published(server, package) as function:
        function.provision(1)
        assert _failed(function) == FAILURE
        reports = [line for line in function.lines() if line.startswith("INIT_REPORT")]
        assert len(reports) >= 3 and all("Status: error" in line for line in reports)
        assert function.invoke().error == "Unhandled"


def test_hanging_init_fails_at_its_limit(make_server: MakeServer) -> None:
    with published(make_server(long_init_limit=1.5), HANGS, Timeout=1) as function:
        began = time.monotonic()
        function.provision(1)
        assert _failed(function) == FAILURE
        assert 1.5 <= time.monotonic() - began < 10


@pytest.mark.parametrize("source", [MUTE, SILENT], ids=["never registers", "never asks"])
def test_extension_that_never_gets_ready_fails_it_at_the_limit(make_server: MakeServer, source: str) -> None:
    server = make_server(long_init_limit=1.5)
    with (
        layer(server, {"extensions/watcher": extension(source)}) as arn,
        published(server, WORKER, Timeout=1, Layers=[arn]) as function,
    ):
        function.provision(1)
        assert _failed(function) == FAILURE
        assert any(line.startswith("INIT_REPORT") and "timeout" in line for line in function.lines())
        function.end()
        eventually(lambda: not function.standing(), what="the end of it")


def test_function_deleted_while_its_environments_start_leaves_none(server: TorporServer) -> None:
    with published(server, HANGS) as function:
        function.provision(3)
        eventually(lambda: len(function.standing()) == 3, what="three starting")
    eventually(lambda: not function.environments(), what="their end")
    time.sleep(1.5)
    assert not function.environments()


def test_setting_deleted_while_environments_start_ends_them(server: TorporServer) -> None:
    with published(server, HANGS) as function:
        function.provision(2)
        function.end()
        eventually(lambda: not function.environments(), what="their end")
        with pytest.raises(ClientError, match="No Provisioned Concurrency Config"):
            function.config()


def test_more_than_memory_is_told_and_what_there_is_serves(make_server: MakeServer) -> None:
    with published(make_server(memory_budget_mb=600), MemorySize=256) as function:
        function.provision(4)
        function.wait("FAILED")
        shown = function.config()
        assert shown["AllocatedProvisionedConcurrentExecutions"] == 2
        assert "No memory is free" in shown["StatusReason"] and "256 MB" in shown["StatusReason"]
        assert function.invoke().payload["kind"] == "provisioned-concurrency"
        function.provision(2)
        function.wait()


def test_many_changes_in_a_row_end_at_the_last_one(server: TorporServer) -> None:
    with published(server) as function:
        for number in (1, 5, 2, 4, 1, 3):
            function.provision(number)
        function.wait()
        eventually(lambda: len(function.environments()) == 3, what="three environments")
        assert function.config()["RequestedProvisionedConcurrentExecutions"] == 3


def test_what_cannot_be_provisioned_is_refused_and_starts_nothing(server: TorporServer) -> None:
    client = server.client
    with published(server) as function:
        for qualifier in ("$LATEST", "7", "nobody", "x" * 200):
            with pytest.raises(ClientError):
                client.put_provisioned_concurrency_config(
                    FunctionName=function.name, Qualifier=qualifier, ProvisionedConcurrentExecutions=1
                )
        client.create_alias(FunctionName=function.name, Name="live", FunctionVersion="1")
        function.provision(1)
        with pytest.raises(ClientError, match="already Provisioned version"):
            ProvisionedFunction(server, function.name, "live").provision(1)
        function.wait()
        assert len(function.environments()) == 1


@pytest.mark.privileged
def test_killed_server_brings_them_up_again_and_leaves_none_behind(server: TorporServer, tmp_path: Path) -> None:
    require_sandbox(server)
    with lives(tmp_path) as life:
        first = life.start()
        first.client.create_function(
            FunctionName="f",
            Role=ROLE,
            Runtime=WORKER.runtime,
            Handler=WORKER.handler,
            Code={"ZipFile": WORKER.archive},
            Publish=True,
        )
        first.client.create_alias(FunctionName="f", Name="live", FunctionVersion="1")
        ProvisionedFunction(first, "f", "live").provision(2)
        life.kill(first)

        second = life.start()
        function = ProvisionedFunction(second, "f", "live")
        ready = function.wait()
        assert function.config()["RequestedProvisionedConcurrentExecutions"] == 2
        reply = function.invoke()
        assert reply.payload["kind"] == "provisioned-concurrency" and reply.payload["booted"] < ready
        assert len(function.environments()) == 2
        assert life.terminate(second) == 0

        third = life.start()
        function = ProvisionedFunction(third, "f", "live")
        function.wait()
        third.client.delete_function(FunctionName="f")
        eventually(lambda: not function.environments(), what="their end")
