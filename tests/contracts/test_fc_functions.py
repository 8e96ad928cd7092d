"""Functions, services, versions, aliases and the rest of the control plane, through the clients that users have."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from alibabacloud_fc20230330 import models as v3
from alibabacloud_fc_open20210406 import models as v2
from tests.contracts.aws_support import archive
from tests.contracts.fc_support import SERVER, Server, encoded, fc_warnings, new_classic, new_v3, serving

pytestmark = fc_warnings


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "code") as running:
        yield running


def refusal(error: Any) -> tuple[int, str]:
    """Status and code as the clients of the newer generations tell them."""
    raised = error.value
    return getattr(raised, "status_code", None) or raised.statusCode, raised.code


@pytest.mark.fact("C-005", "C-006")
def test_command_and_arguments_are_read_back_unchanged_and_joined_in_order(server: Server) -> None:
    client = server.v3()
    config = v3.CustomRuntimeConfig(command=["python", "-u"], args=["server.py", "--x", "a b"], port=8080)
    new_v3(client, "hello", custom_runtime_config=config)

    read = client.get_function("hello", v3.GetFunctionRequest()).body
    client.invoke_function("hello", v3.InvokeFunctionRequest(body=b"x"))
    started = server.dispatcher.seen[0][0].server

    assert read.custom_runtime_config.command == ["python", "-u"]
    assert read.custom_runtime_config.args == ["server.py", "--x", "a b"]
    assert started is not None
    assert started.command == ("python", "-u", "server.py", "--x", "a b")
    assert started.port == 8080


def test_a_new_function_shows_its_defaults_and_what_it_was_made_of(server: Server) -> None:
    made = new_v3(server.v3(), "hello", tags=[v3.Tag(key="team", value="a")])

    assert (made.timeout, made.memory_size, made.disk_size, made.instance_concurrency) == (3, 128, 512, 1)
    assert made.function_arn == "acs:fc:cn-hangzhou:0000000000000000:functions/hello"
    assert int(made.code_checksum) > 0
    assert made.code_size == len(archive(SERVER))
    assert made.tags[0].key == "team"


@pytest.mark.fact("F-014")
def test_the_classic_generation_has_a_timeout_of_sixty_seconds(server: Server, tmp_path: Path) -> None:
    client = server.classic()
    made = new_classic(client, "shop", "hello", tmp_path)

    assert made.data["timeout"] == 60
    assert client.get_function("shop", "hello").data["timeout"] == 60


@pytest.mark.fact("C-021")
def test_a_timeout_of_a_day_is_taken_and_more_is_not(server: Server) -> None:
    client = server.v3()

    assert new_v3(client, "day", timeout=86_400).timeout == 86_400
    with pytest.raises(Exception) as refused:
        new_v3(client, "more", timeout=86_401)
    assert refusal(refused) == (400, "InvalidArgument")


@pytest.mark.parametrize(
    "values",
    [
        {"memory_size": 100},
        {"memory_size": 200},
        {"instance_concurrency": 201},
        {"disk_size": 600},
        {"cpu": 0.07},
        {"environment_variables": {"FC_X": "1"}},
        {"environment_variables": {"1x": "1"}},
        {"environment_variables": {"A": "x" * 5000}},
        {"runtime": "cobol"},
        {"function_name": "1st"},
        {"function_name": "x" * 65},
        {"code": v3.InputCodeLocation(zip_file="no base64")},
        {"code": v3.InputCodeLocation(zip_file=base64.b64encode(b"no zip").decode())},
        {"code": None},
        {"runtime": "python3.12", "instance_concurrency": 2},
    ],
)
def test_values_out_of_range_are_refused(server: Server, values: dict[str, Any]) -> None:
    with pytest.raises(Exception) as refused:
        new_v3(server.v3(), "hello", **values)

    assert refusal(refused) == (400, "InvalidArgument")


@pytest.mark.parametrize(
    "values",
    [
        {"runtime": "custom-container"},
        {"runtime": "java8"},
        {"internet_access": False},
        {"disable_ondemand": True},
        {"session_affinity": "MCP_SSE"},
        {"nas_config": v3.NASConfig(mount_points=[v3.NASMountConfig(mount_dir="/mnt/x", server_addr="x:/")])},
        {"custom_dns": v3.CustomDNS(name_servers=["1.1.1.1"])},
    ],
)
def test_what_is_not_built_is_refused_and_never_ignored(server: Server, values: dict[str, Any]) -> None:
    with pytest.raises(Exception) as refused:
        new_v3(server.v3(), "hello", **values)

    assert refusal(refused) == (501, "NotImplemented")


def test_a_changed_function_keeps_what_was_not_given(server: Server) -> None:
    client = server.v3()
    new_v3(client, "hello", memory_size=256, environment_variables={"A": "1"})

    changed = client.update_function(
        "hello", v3.UpdateFunctionRequest(body=v3.UpdateFunctionInput(timeout=30, description="new"))
    ).body

    assert (changed.timeout, changed.memory_size, changed.description) == (30, 256, "new")
    assert changed.environment_variables == {"A": "1"}
    assert changed.custom_runtime_config.args == ["server.py"]


def test_new_code_has_another_checksum_and_can_be_fetched_by_its_link(server: Server) -> None:
    client = server.v3()
    before = new_v3(client, "hello")
    code = v3.InputCodeLocation(zip_file=encoded({"server.py": "print(2)\n"}))
    client.update_function("hello", v3.UpdateFunctionRequest(body=v3.UpdateFunctionInput(code=code)))

    told = client.get_function_code("hello", v3.GetFunctionCodeRequest()).body

    assert told.checksum != before.code_checksum
    with urlopen(told.url, timeout=10) as package:
        assert package.read() == archive({"server.py": "print(2)\n"})


def test_a_checksum_that_is_not_the_codes_is_refused(server: Server) -> None:
    with pytest.raises(Exception) as refused:
        new_v3(server.v3(), "hello", code=v3.InputCodeLocation(zip_file=encoded(), checksum="1"))

    assert refusal(refused) == (400, "InvalidArgument")


def test_a_name_is_given_once_and_free_again_after_deletion(server: Server) -> None:
    client = server.v3()
    new_v3(client, "hello")
    with pytest.raises(Exception) as refused:
        new_v3(client, "hello")
    assert refusal(refused) == (409, "FunctionAlreadyExists")

    client.delete_function("hello")
    with pytest.raises(Exception) as gone:
        client.get_function("hello", v3.GetFunctionRequest())
    assert refusal(gone) == (404, "FunctionNotFound")
    assert new_v3(client, "hello").function_name == "hello"


def test_functions_are_listed_in_pages_by_name(server: Server) -> None:
    client = server.v3()
    for name in ("c1", "a1", "b1", "a2"):
        new_v3(client, name)

    first = client.list_functions(v3.ListFunctionsRequest(limit=3)).body
    rest = client.list_functions(v3.ListFunctionsRequest(limit=3, next_token=first.next_token)).body
    by_prefix = client.list_functions(v3.ListFunctionsRequest(prefix="a")).body

    assert [item.function_name for item in first.functions] == ["a1", "a2", "b1"]
    assert [item.function_name for item in rest.functions] == ["c1"]
    assert rest.next_token is None
    assert [item.function_name for item in by_prefix.functions] == ["a1", "a2"]


def test_a_change_of_what_was_changed_meanwhile_is_refused(server: Server, tmp_path: Path) -> None:
    client = server.classic()
    made = new_classic(client, "shop", "hello", tmp_path)
    tag = made.headers["Etag"]
    client.update_function("shop", "hello", description="one", headers={"if-match": tag})

    with pytest.raises(Exception) as refused:
        client.update_function("shop", "hello", description="two", headers={"if-match": tag})

    assert (refused.value.status_code, refused.value.err_code) == (412, "PreconditionFailed")


def test_functions_of_services_and_those_without_do_not_see_each_other(server: Server, tmp_path: Path) -> None:
    classic, current = server.classic(), server.v3()
    new_classic(classic, "shop", "hello", tmp_path)
    new_v3(current, "hello")

    assert [item["functionName"] for item in classic.list_functions("shop").data["functions"]] == ["hello"]
    assert len(current.list_functions(v3.ListFunctionsRequest()).body.functions) == 1
    current.delete_function("hello")
    assert classic.get_function("shop", "hello").data["functionName"] == "hello"


def test_services_hand_their_role_down_and_go_last(server: Server, tmp_path: Path) -> None:
    client = server.classic()
    new_classic(client, "shop", "hello", tmp_path)
    client.update_service("shop", role="acs:ram::1:role/shop", logConfig={"project": "p", "logstore": "s"})
    client.invoke_function("shop", "hello", payload=b"x")

    assert server.dispatcher.seen[0][0].role == "acs:ram::1:role/shop"
    assert server.dispatcher.seen[0][0].log_group == "p/s"
    with pytest.raises(Exception) as refused:
        client.delete_service("shop")
    assert refused.value.err_code == "ServiceNotEmpty"
    client.delete_function("shop", "hello")
    client.delete_service("shop")
    with pytest.raises(Exception) as gone:
        client.get_service("shop")
    assert gone.value.err_code == "ServiceNotFound"


def test_a_services_versions_freeze_all_its_functions(server: Server, tmp_path: Path) -> None:
    client = server.classic()
    new_classic(client, "shop", "hello", tmp_path)
    assert client.publish_version("shop", "first").data["versionId"] == "1"
    client.update_function("shop", "hello", description="later")
    client.create_alias("shop", "prod", "1")
    client.invoke_function("shop", "hello", payload=b"x", qualifier="prod")

    assert server.dispatcher.seen[0][0].version == "1"
    assert client.get_function("shop", "hello", qualifier="1").data["description"] == ""
    assert client.publish_version("shop").data["versionId"] == "2"
    listed = client.list_versions("shop").data
    assert [item["versionId"] for item in listed["versions"]] == ["2", "1"]
    client.delete_version("shop", "1")
    with pytest.raises(Exception) as dangling:
        client.invoke_function("shop", "hello", payload=b"x", qualifier="prod")
    assert dangling.value.err_code == "VersionNotFound"


def test_versions_and_aliases_of_functions(server: Server) -> None:
    client = server.v3()
    new_v3(client, "hello")
    published = client.publish_function_version(
        "hello", v3.PublishFunctionVersionRequest(body=v3.PublishVersionInput(description="one"))
    ).body
    client.publish_function_version("hello", v3.PublishFunctionVersionRequest(body=v3.PublishVersionInput()))
    body = v3.CreateAliasInput(alias_name="prod", version_id="1", additional_version_weight={"2": 0.6})
    client.create_alias("hello", v3.CreateAliasRequest(body=body))
    client.invoke_function("hello", v3.InvokeFunctionRequest(body=b"x", qualifier="prod"))

    assert published.version_id == "1"
    assert server.dispatcher.seen[0][0].version == "2"  # the draw of this test is 0.5, below the weight
    assert server.dispatcher.seen[0][1].qualifier == "prod"
    update = v3.UpdateAliasInput(version_id="1", additional_version_weight={})
    client.update_alias("hello", "prod", v3.UpdateAliasRequest(body=update))
    client.invoke_function("hello", v3.InvokeFunctionRequest(body=b"x", qualifier="prod"))
    assert server.dispatcher.seen[1][0].version == "1"
    assert [item.alias_name for item in client.list_aliases("hello", v3.ListAliasesRequest()).body.aliases] == ["prod"]
    client.delete_alias("hello", "prod")
    with pytest.raises(Exception) as gone:
        client.get_alias("hello", "prod")
    assert refusal(gone) == (404, "AliasNotFound")


def test_concurrency_bounds_the_instances_of_every_version(server: Server) -> None:
    client = server.v3()
    new_v3(client, "hello")
    client.publish_function_version("hello", v3.PublishFunctionVersionRequest(body=v3.PublishVersionInput()))
    body = v3.PutConcurrencyInput(reserved_concurrency=7)
    client.put_concurrency_config("hello", v3.PutConcurrencyConfigRequest(body=body))
    for qualifier in ("LATEST", "1"):
        client.invoke_function("hello", v3.InvokeFunctionRequest(body=b"x", qualifier=qualifier))

    assert [version.maximum for version, _ in server.dispatcher.seen] == [7, 7]
    assert client.get_concurrency_config("hello").body.reserved_concurrency == 7
    assert len(client.list_concurrency_configs(v3.ListConcurrencyConfigsRequest()).body.configs) == 1
    client.delete_concurrency_config("hello")
    with pytest.raises(Exception) as gone:
        client.get_concurrency_config("hello")
    assert refusal(gone)[0] == 404


def test_provision_keeps_instances_of_a_version(server: Server) -> None:
    client = server.v3()
    new_v3(client, "hello")
    body = v3.PutProvisionConfigInput(default_target=2)
    client.put_provision_config("hello", v3.PutProvisionConfigRequest(body=body, qualifier="LATEST"))
    client.invoke_function("hello", v3.InvokeFunctionRequest(body=b"x"))

    assert server.dispatcher.seen[0][0].minimum == 2
    read = client.get_provision_config("hello", v3.GetProvisionConfigRequest(qualifier="LATEST")).body
    assert (read.default_target, read.current) == (2, 0)
    listed = client.list_provision_configs(v3.ListProvisionConfigsRequest()).body
    assert [item.default_target for item in listed.provision_configs] == [2]


def test_layers_are_published_listed_and_used_in_the_order_in_which_the_first_wins(server: Server) -> None:
    client = server.v3()
    arns = []
    for name in ("one", "two"):
        body = v3.CreateLayerVersionInput(
            code=v3.InputCodeLocation(zip_file=encoded({f"{name}.txt": name})), compatible_runtime=["custom"]
        )
        made = client.create_layer_version(name, v3.CreateLayerVersionRequest(body=body)).body
        arns.append(made.layer_version_arn)
    shown = new_v3(client, "hello", layers=arns)
    client.invoke_function("hello", v3.InvokeFunctionRequest(body=b"x"))

    assert arns[0] == "acs:fc:cn-hangzhou:0000000000000000:layers/one/versions/1"
    assert [layer.arn for layer in shown.layers] == arns
    assert [ref.packed_bytes for ref in server.dispatcher.seen[0][0].layers] == [
        layer.size for layer in reversed(shown.layers)
    ]
    assert [layer.layer_name for layer in client.list_layers(v3.ListLayersRequest()).body.layers] == ["one", "two"]
    assert client.get_layer_version_by_arn(arns[1]).body.version == 1
    client.delete_layer_version("one", "1")
    with pytest.raises(Exception) as gone:
        client.get_layer_version("one", "1")
    assert refusal(gone) == (404, "LayerVersionNotFound")


def test_running_instances_are_listed_by_the_name_they_have_inside(server: Server) -> None:
    client = server.v3()
    new_v3(client, "hello")
    identity = "c-01234567-89abcdef-0123456789ab"
    server.instances.running.append({"function": "fc/hello", "id": identity, "version": "$LATEST", "created": 1.0})

    listed = client.list_instances("hello", v3.ListInstancesRequest()).body

    assert [item.instance_id for item in listed.instances] == [identity]
    assert listed.instances[0].qualifier == "LATEST"


def test_tags_of_functions(server: Server, tmp_path: Path) -> None:
    client = server.classic()
    new_classic(client, "shop", "hello", tmp_path)
    arn = "acs:fc:cn-hangzhou:0000000000000000:services/shop"
    client.tag_resource(arn, {"a": "1", "b": "2"})
    client.untag_resource(arn, ["a"])

    assert client.get_resource_tags(arn).data["tags"] == {"b": "2"}


def test_the_generated_client_of_the_services_generation_works_too(server: Server) -> None:
    client = server.open()
    client.create_service(v2.CreateServiceRequest(service_name="shop"))
    made = client.create_function(
        "shop",
        v2.CreateFunctionRequest(
            function_name="hello",
            runtime="custom",
            handler="h",
            ca_port=8080,
            initializer="true",
            custom_runtime_config=v2.CustomRuntimeConfig(command=["python"], args=["server.py"]),
            code=v2.Code(zip_file=encoded()),
        ),
    ).body
    client.invoke_function("shop", "hello", v2.InvokeFunctionRequest(body=b"x"))
    settings = server.dispatcher.seen[0][0].server

    assert (made.ca_port, made.timeout) == (8080, 60)
    assert settings is not None
    assert settings.port == 8080
    assert settings.hooks["initialize"].timeout_s == 30


def test_an_operation_that_there_is_not_is_told(server: Server) -> None:
    client = server.v3()
    new_v3(client, "hello")

    with pytest.raises(Exception) as refused:
        client.list_vpc_bindings("hello")

    assert refusal(refused) == (400, "PathNotSupported")
