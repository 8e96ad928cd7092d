"""What is refused while a version is not active, or while its function is being changed."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.contracts.aws_support import KEYS, Server, archive, new_function, refusal, serving

from torpor.api.aws import AwsSettings, ObjectSource
from torpor.api.aws.objects import ObjectName
from torpor.model.function import FunctionVersion

ARN = "arn:aws:lambda:us-east-1:000000000000:function:"
PENDING = "The operation cannot be performed at this time. The function is currently in the following state: Pending"


@dataclass(frozen=True)
class SlowObjects(ObjectSource):
    """Packages that come once a test lets them."""

    asked: threading.Event = field(default_factory=threading.Event)
    given: threading.Event = field(default_factory=threading.Event)

    async def fetch(self, wanted: ObjectName, region: str) -> bytes:
        self.asked.set()
        await asyncio.to_thread(self.given.wait, 20)
        return archive({"app.py": "x = 2"})


@pytest.fixture(scope="module")
def objects() -> SlowObjects:
    return SlowObjects()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, objects: SlowObjects) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("code"), AwsSettings(keys=KEYS, objects=objects)) as running:
        yield running


@pytest.fixture
def name(client: Any, request: pytest.FixtureRequest) -> Iterator[str]:
    made = request.node.name[:60]
    new_function(client, made, Publish=True)
    yield made
    client.delete_function(FunctionName=made)


SLOW = {"S3Bucket": "bucket", "S3Key": "slow.zip"}


def updating(server: Server, objects: SlowObjects, name: str) -> AbstractContextManager[None]:
    """While the body runs, new code of the function is on its way."""
    return under_way(objects, lambda: server.client().update_function_code(FunctionName=name, **SLOW))


@contextmanager
def under_way(objects: SlowObjects, call: Callable[[], Any]) -> Iterator[None]:
    """While the body runs, the call waits for its package; then it ends."""
    objects.asked.clear()
    objects.given.clear()
    with ThreadPoolExecutor(1) as threads:
        update = threads.submit(call)
        try:
            assert objects.asked.wait(10)
            yield
        finally:
            objects.given.set()
        update.result(20)


def changes(client: Any, name: str) -> tuple[Callable[[], Any], ...]:
    return (
        lambda: client.update_function_configuration(FunctionName=name, Timeout=9),
        lambda: client.update_function_code(FunctionName=name, ZipFile=archive()),
        lambda: client.publish_version(FunctionName=name),
    )


def test_changes_are_refused_while_one_is_under_way_and_invocations_go_on(
    client: Any, server: Server, objects: SlowObjects, name: str
) -> None:
    before = client.get_function_configuration(FunctionName=name)
    with updating(server, objects, name):
        during = client.get_function_configuration(FunctionName=name)
        assert (during["State"], during["LastUpdateStatus"]) == ("Active", "InProgress")
        assert client.get_function(FunctionName=name)["Configuration"]["LastUpdateStatus"] == "InProgress"
        assert client.get_function_configuration(FunctionName=name, Qualifier="1")["LastUpdateStatus"] == "Successful"
        for change in changes(client, name):
            with pytest.raises(client.exceptions.ResourceConflictException) as error:
                change()
            assert refusal(error.value)[1] == (
                f"The operation cannot be performed at this time. An update is in progress for resource: {ARN}{name}"
            )
        assert client.invoke(FunctionName=name)["StatusCode"] == 200
        seen, _, _ = server.dispatcher.seen[-1]
        assert seen.revision == before["RevisionId"]
    client.get_waiter("function_updated_v2").wait(FunctionName=name)
    after = client.get_function_configuration(FunctionName=name)
    assert after["LastUpdateStatus"] == "Successful" and after["CodeSha256"] != before["CodeSha256"]
    client.update_function_configuration(FunctionName=name, Timeout=9)


def test_function_deleted_during_an_update_is_gone_and_can_be_made_again(
    client: Any, server: Server, objects: SlowObjects
) -> None:
    new_function(client, "fleeting")
    with pytest.raises(client.exceptions.ResourceNotFoundException), updating(server, objects, "fleeting"):
        client.delete_function(FunctionName="fleeting")
    new_function(client, "fleeting")
    client.update_function_configuration(FunctionName="fleeting", Timeout=9)
    client.delete_function(FunctionName="fleeting")


def test_function_is_not_made_without_the_signing_config_it_was_to_have(
    client: Any, server: Server, objects: SlowObjects
) -> None:
    publishers = {"SigningProfileVersionArns": ["arn:aws:signer:us-east-1:000000000000:/signing-profiles/p/v1"]}
    made = client.create_code_signing_config(AllowedPublishers=publishers)["CodeSigningConfig"]
    arn = made["CodeSigningConfigArn"]

    def create() -> None:
        new_function(server.client(), "unsigned", Code=SLOW, CodeSigningConfigArn=arn)

    with pytest.raises(client.exceptions.CodeSigningConfigNotFoundException), under_way(objects, create):
        client.delete_code_signing_config(CodeSigningConfigArn=arn)
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.get_function(FunctionName="unsigned")


def version_of(server: Server, client: Any, name: str, qualifier: str) -> FunctionVersion:
    client.invoke(FunctionName=name, Qualifier=qualifier)
    return server.dispatcher.seen[-1][0]


def test_version_that_is_pending_is_not_invoked_until_it_is_active(client: Any, server: Server, name: str) -> None:
    version = version_of(server, client, name, "1")
    client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    server.version_states.pend(version, "A snapshot is being made.", "Creating")
    try:
        shown = client.get_function_configuration(FunctionName=name, Qualifier="1")
        assert (shown["State"], shown["StateReason"], shown["StateReasonCode"]) == (
            "Pending",
            "A snapshot is being made.",
            "Creating",
        )
        for qualifier in ("1", "live"):
            with pytest.raises(client.exceptions.ResourceConflictException) as error:
                client.invoke(FunctionName=name, Qualifier=qualifier)
            assert refusal(error.value)[1] == PENDING
        assert client.invoke(FunctionName=name)["ExecutedVersion"] == "$LATEST"
        client.update_function_configuration(FunctionName=name, Timeout=9)
    finally:
        server.version_states.settle(version)
    client.get_waiter("published_version_active").wait(FunctionName=name, Qualifier="1")
    assert client.invoke(FunctionName=name, Qualifier="live")["ExecutedVersion"] == "1"


def test_function_that_is_pending_is_not_changed_either(client: Any, server: Server, name: str) -> None:
    version = version_of(server, client, name, "$LATEST")
    server.version_states.pend(version)
    try:
        for call in (*changes(client, name), lambda: client.invoke(FunctionName=name)):
            with pytest.raises(client.exceptions.ResourceConflictException) as error:
                call()
            assert refusal(error.value)[1] == PENDING
    finally:
        server.version_states.settle(version)


def test_failed_version_says_why_and_is_not_invoked(client: Any, server: Server, name: str) -> None:
    version = version_of(server, client, name, "1")
    server.version_states.fail(version, "Init took too long.", "FunctionError.InitTimeout")
    try:
        shown = client.get_function_configuration(FunctionName=name, Qualifier="1")
        assert (shown["State"], shown["StateReasonCode"]) == ("Failed", "FunctionError.InitTimeout")
        with pytest.raises(client.exceptions.ResourceConflictException, match="following state: Failed"):
            client.invoke(FunctionName=name, Qualifier="1")
    finally:
        server.version_states.settle(version)
