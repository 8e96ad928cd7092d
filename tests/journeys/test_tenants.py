"""Tenants of one function: environments of their own, their names inside and in the log."""

import json
from typing import Any

import pytest
from tests.journeys.conftest import Deploy
from tests.support.functions import python
from tests.support.server import Function, eventually

CODE = python("""
count = 0
def handler(event, context):
    global count
    count += 1
    with open("/tmp/seen", "a") as seen:
        seen.write(context.tenant_id + " ")
    return [BOOT, count, context.tenant_id, open("/tmp/seen").read()]
""")
PER_TENANT = {"TenantIsolationMode": "PER_TENANT"}


def invoked(function: Function, tenant: str) -> Any:
    answer = function.server.client.invoke(FunctionName=function.name, TenantId=tenant)
    payload = json.loads(answer["Payload"].read())
    assert "FunctionError" not in answer, payload
    return payload


@pytest.mark.privileged
def test_environments_are_never_shared_between_tenants(deploy: Deploy) -> None:
    function = deploy(CODE, TenancyConfig=PER_TENANT, LoggingConfig={"LogFormat": "JSON"})
    answers = [invoked(function, tenant) for tenant in ("blue", "red", "blue", "red")]
    assert [answer[1:] for answer in answers] == [
        [1, "blue", "blue "],
        [1, "red", "red "],
        [2, "blue", "blue blue "],
        [2, "red", "red red "],
    ]
    assert len({answer[0] for answer in answers}) == 2

    def told() -> list[str]:
        lines = [json.loads(line) for line in function.lines()]
        records = [line["record"] for line in lines if line["type"] in ("platform.start", "platform.report")]
        return [record["tenantId"] for record in records] if len(records) == 8 else []

    assert sorted(eventually(told, what="the log's records")) == ["blue"] * 4 + ["red"] * 4


def test_changed_function_leaves_no_tenant_behind(deploy: Deploy) -> None:
    function = deploy(CODE, TenancyConfig=PER_TENANT)
    before = {invoked(function, tenant)[0] for tenant in ("blue", "red")}
    function.recycle()
    after = {invoked(function, tenant)[0] for tenant in ("blue", "red")}
    assert len(before | after) == 4
