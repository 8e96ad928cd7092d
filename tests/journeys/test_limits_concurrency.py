"""How many invocations run at once, and where: reservations, the account's limit, one environment for each."""

import json
import urllib.error
import urllib.request
from concurrent.futures import Future
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.journeys.conftest import Deploy, MakeServer
from tests.support.functions import python
from tests.support.server import Function, Reply, TorporServer, eventually

HOLDING = python("""
def handler(event, context):
    time.sleep(event.get("hold", 0))
    return BOOT
""")
RESERVED = "ReservedFunctionConcurrentInvocationLimitExceeded"
ACCOUNT = "ConcurrentInvocationLimitExceeded"


def statistics(server: TorporServer) -> dict[str, Any]:
    with urllib.request.urlopen(f"{server.url}/_torpor/statistics", timeout=10) as answer:
        found: dict[str, Any] = json.loads(answer.read())
        return found


def hold(function: Function, count: int, seconds: float) -> list[Future[Reply]]:
    """This many invocations that run at once; returns when they all do."""
    before = statistics(function.server)["pool"]["running"]
    replies = [function.start({"hold": seconds}) for _ in range(count)]
    eventually(lambda: statistics(function.server)["pool"]["running"] == before + count, what=f"{count} running")
    return replies


def refusal(function: Function) -> urllib.error.HTTPError:
    """The refusal of one more invocation."""
    path = f"/2015-03-31/functions/{function.name}/invocations"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(function.server.url + path, data=b"{}"), timeout=20)
    return refused.value


def check_refusal(function: Function, reason: str) -> None:
    answer = refusal(function)
    assert answer.code == 429
    assert answer.headers["x-amzn-ErrorType"] == "TooManyRequestsException"
    assert int(answer.headers["Retry-After"]) >= 1
    assert json.loads(answer.read()) == {"Reason": reason, "Type": "User", "message": "Rate Exceeded."}


def reserve(function: Function, count: int) -> None:
    function.server.client.put_function_concurrency(FunctionName=function.name, ReservedConcurrentExecutions=count)


def test_reservation_of_two_runs_two_and_refuses_the_third(deploy: Deploy) -> None:
    function = deploy(HOLDING)
    reserve(function, 2)
    running = hold(function, 2, 1.0)
    check_refusal(function, RESERVED)
    assert len({reply.result().payload for reply in running}) == 2
    assert not function.invoke().error


def test_reservation_of_nothing_refuses_every_invocation_until_it_is_taken_back(deploy: Deploy) -> None:
    function = deploy(HOLDING)
    assert not function.invoke().error
    reserve(function, 0)
    check_refusal(function, RESERVED)
    check_refusal(function, RESERVED)
    function.server.client.delete_function_concurrency(FunctionName=function.name)
    assert not function.invoke().error


def test_refusal_is_raised_by_the_sdk_with_its_reason(deploy: Deploy) -> None:
    function = deploy(HOLDING)
    reserve(function, 0)
    client = function.server.client
    with pytest.raises(client.exceptions.TooManyRequestsException) as refused:
        function.invoke()
    assert refused.value.response["Reason"] == RESERVED
    assert refused.value.response["retryAfterSeconds"]


def test_account_limit_refuses_functions_without_a_reservation_only(make_server: MakeServer, deploy: Deploy) -> None:
    server = make_server(account_concurrency=3, unreserved_minimum=1)
    own, first, second = (deploy(HOLDING, on=server) for _ in range(3))
    reserve(own, 1)
    running = [*hold(first, 1, 1.5), *hold(second, 1, 1.5)]
    check_refusal(first, ACCOUNT)
    running += hold(own, 1, 0.2)
    check_refusal(own, RESERVED)
    assert not [reply.result().error for reply in running if reply.result().error]
    assert not first.invoke().error


def test_reservation_that_leaves_too_little_to_the_others_is_refused(make_server: MakeServer, deploy: Deploy) -> None:
    server = make_server(account_concurrency=10, unreserved_minimum=4)
    function, other = deploy(HOLDING, on=server), deploy(HOLDING, on=server)
    reserve(function, 5)
    with pytest.raises(ClientError) as refused:
        reserve(other, 2)
    assert refused.value.response["Error"] == {
        "Code": "InvalidParameterValueException",
        "Message": "Specified ReservedConcurrentExecutions for function decreases account's "
        "UnreservedConcurrentExecution below its minimum value of [4].",
    }
    reserve(other, 1)


def test_account_settings_show_the_limit_that_is_set(make_server: MakeServer, deploy: Deploy) -> None:
    server = make_server(account_concurrency=10, unreserved_minimum=4)
    reserve(deploy(HOLDING, on=server), 6)
    limits = server.client.get_account_settings()["AccountLimit"]
    assert (limits["ConcurrentExecutions"], limits["UnreservedConcurrentExecutions"]) == (10, 4)


def test_default_minimum_for_functions_without_a_reservation_is_100(deploy: Deploy) -> None:
    function = deploy(HOLDING)
    reserve(function, 900)
    with pytest.raises(ClientError, match=r"below its minimum value of \[100\]\."):
        reserve(function, 901)


@pytest.mark.parametrize("count", (2, 6))
def test_as_many_environments_as_invocations_at_once(deploy: Deploy, count: int) -> None:
    function = deploy(HOLDING, MemorySize=128)
    replies = [reply.result() for reply in hold(function, count, 1.0)]
    assert len({reply.payload for reply in replies}) == count
    assert len(function.environments()) == count
    assert sorted(entry["invocations"] for entry in function.environments()) == [1] * count


def test_most_recently_used_environment_is_reused_first(deploy: Deploy) -> None:
    function = deploy(HOLDING, MemorySize=128)
    slow, quick = function.start({"hold": 1.2}), function.start({"hold": 0.3})
    last = slow.result().payload
    assert quick.result().payload != last
    assert [function.invoke().payload for _ in range(4)] == [last] * 4
