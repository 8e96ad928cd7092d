"""Functions whose environments serve one tenant each, through the official client."""

from typing import Any

import pytest
from tests.contracts.aws_support import Server, new_function, refusal, unchecked

PER_TENANT = {"TenantIsolationMode": "PER_TENANT"}


@pytest.fixture(scope="module")
def shared(client: Any) -> str:
    new_function(client, "shared")
    return "shared"


@pytest.fixture(scope="module")
def isolated(client: Any) -> str:
    new_function(client, "isolated", TenancyConfig=PER_TENANT, Publish=True)
    return "isolated"


def test_isolation_is_shown_and_stays(client: Any, isolated: str, shared: str) -> None:
    assert client.get_function_configuration(FunctionName=isolated)["TenancyConfig"] == PER_TENANT
    client.update_function_configuration(FunctionName=isolated, Timeout=9)
    assert client.publish_version(FunctionName=isolated)["TenancyConfig"] == PER_TENANT
    listed = {item["FunctionName"]: item.get("TenancyConfig") for item in client.list_functions()["Functions"]}
    assert (listed[isolated], listed[shared]) == (PER_TENANT, None)


@pytest.mark.parametrize("qualifier", ["$LATEST", "1"])
def test_invocation_goes_to_its_tenants_environments(
    client: Any, server: Server, isolated: str, qualifier: str
) -> None:
    server.dispatcher.seen.clear()
    for tenant in ("blue", "red team/1"):
        client.invoke(FunctionName=isolated, Qualifier=qualifier, TenantId=tenant)
    versions = [version for version, _, _ in server.dispatcher.seen]
    assert [version.tenant for version in versions] == ["blue", "red team/1"]
    assert len({version.key for version in versions}) == 2
    assert [invocation.tenant for _, invocation, _ in server.dispatcher.seen] == ["blue", "red team/1"]


def test_tenant_has_to_be_named(client: Any, server: Server, isolated: str) -> None:
    server.dispatcher.seen.clear()
    for kind in ("RequestResponse", "DryRun"):
        with pytest.raises(client.exceptions.InvalidParameterValueException) as error:
            client.invoke(FunctionName=isolated, InvocationType=kind)
        assert refusal(error.value)[1] == (
            "The invoked function is enabled with tenancy configuration. "
            "Add a valid tenant ID in your request and try again."
        )
    assert server.dispatcher.seen == []


def test_tenant_may_not_be_named_elsewhere(client: Any, server: Server, shared: str) -> None:
    server.dispatcher.seen.clear()
    with pytest.raises(client.exceptions.InvalidParameterValueException, match="Remove the tenant ID"):
        client.invoke(FunctionName=shared, TenantId="blue")
    assert server.dispatcher.seen == []


@pytest.mark.parametrize("tenant", ["a" * 257, "a,b", "a;b"])
def test_bad_tenant_is_refused(client: Any, server: Server, isolated: str, tenant: str) -> None:
    server.dispatcher.seen.clear()
    with pytest.raises(client.exceptions.ClientError) as error:
        server.client(**unchecked()).invoke(FunctionName=isolated, TenantId=tenant)
    assert refusal(error.value)[0] == "ValidationException"
    assert "tenantId" in refusal(error.value)[1]
    assert server.dispatcher.seen == []


def test_what_tenants_cannot_have_is_refused(client: Any, isolated: str) -> None:
    snapshots = {"SnapStart": {"ApplyOn": "PublishedVersions"}}
    with pytest.raises(client.exceptions.InvalidParameterValueException, match="SnapStart"):
        new_function(client, "both", TenancyConfig=PER_TENANT, **snapshots)
    with pytest.raises(client.exceptions.InvalidParameterValueException, match="SnapStart"):
        client.update_function_configuration(FunctionName=isolated, **snapshots)
    provider = "arn:aws:lambda:us-east-1:000000000000:capacity-provider:here"
    managed = {"LambdaManagedInstancesCapacityProviderConfig": {"CapacityProviderArn": provider}}
    with pytest.raises(client.exceptions.InvalidParameterValueException, match="a capacity provider"):
        new_function(client, "both", TenancyConfig=PER_TENANT, CapacityProviderConfig=managed)


def test_neither_urls_nor_environments_kept_ready_go_with_isolation(client: Any, isolated: str) -> None:
    with pytest.raises(client.exceptions.InvalidParameterValueException, match="cannot have a function URL"):
        client.create_function_url_config(FunctionName=isolated, AuthType="NONE")
    with pytest.raises(client.exceptions.InvalidParameterValueException, match="provisioned concurrency"):
        client.put_provisioned_concurrency_config(
            FunctionName=isolated, Qualifier="1", ProvisionedConcurrentExecutions=1
        )
