"""Operations on event source mappings: what they keep, whom they tell, and what they refuse."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.support.functions_bench import ARCHIVES, Bench, new

from torpor.api.aws.call import Call, Reply
from torpor.api.aws.event_sources import KIND, EventSourceOperations
from torpor.api.aws.lookup import Lookup, always_active
from torpor.contracts.api_failure import ApiFailure
from torpor.contracts.lambda_.names import Place
from torpor.model.errors import StoreUnavailable
from torpor.service.functions import Functions
from torpor.service.resources import Resources
from torpor.service.states import VersionStates
from torpor.store.memory import MemoryMetadataStore

PLACE = Place(account="000000000000", region="us-east-1")
FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:greet"
QUEUE = "arn:aws:sqs:us-east-1:000000000000:jobs"
OTHER = "arn:aws:sqs:us-east-1:000000000000:other"
UNKNOWN = "4f1e1a8c-5b0a-4f57-9a57-0a9b0d6f2b11"
IN_USE = ("ResourceInUseException", "Cannot update the event source mapping because it is in use.")
ABSENT = ("ResourceNotFoundException", "The resource you requested does not exist.")
NO_FUNCTION = ("InvalidParameterValueException", "Function does not exist")


@dataclass
class FakeSources:
    """Remembers what it was told; mappings are in the state that a test says."""

    told: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    states: dict[str, tuple[str, str]] = field(default_factory=dict)
    usual: tuple[str, str] = ("Enabled", "")

    def start(self, document: Mapping[str, Any]) -> None:
        self.told.append(("start", document))

    def update(self, document: Mapping[str, Any]) -> None:
        self.told.append(("update", document))

    def stop(self, document: Mapping[str, Any]) -> None:
        self.told.append(("stop", document))

    def state(self, uuid: str) -> tuple[str, str]:
        return self.states.get(uuid, self.usual)


class FailingStore(MemoryMetadataStore):
    """Refuses changes of resources while `broken`."""

    broken = False

    def save_resource(self, kind: str, name: str, document: Mapping[str, Any]) -> None:
        if self.broken:
            raise StoreUnavailable("The disk is gone.")
        super().save_resource(kind, name, document)

    def remove_resource(self, kind: str, name: str) -> None:
        if self.broken:
            raise StoreUnavailable("The disk is gone.")
        super().remove_resource(kind, name)


@dataclass
class Server:
    """The operations with everything they work on."""

    functions: Functions
    bench: Bench
    store: FailingStore = field(default_factory=FailingStore)
    sources: FakeSources = field(default_factory=FakeSources)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        lookup = Lookup(self.functions, always_active, VersionStates())
        self.resources = Resources(self.store)
        self.operations = EventSourceOperations(self.functions, lookup, self.resources, self.sources, self.bench.clock)

    async def call(self, operation: str, **values: Any) -> Reply:
        handler = self.operations.handlers()[f"{operation}EventSourceMapping"]
        return await handler(Call(values=values, place=PLACE, base_url=""))

    async def made(self, function: str = "greet", arn: str = QUEUE, **values: Any) -> Mapping[str, Any]:
        return body(await self.call("Create", EventSourceArn=arn, FunctionName=function, **values))

    async def listed(self, **values: Any) -> Mapping[str, Any]:
        handler = self.operations.handlers()["ListEventSourceMappings"]
        return body(await handler(Call(values=values, place=PLACE, base_url="")))

    async def refused(self, operation: str, **values: Any) -> tuple[str, str]:
        with pytest.raises(ApiFailure) as error:
            await self.call(operation, **values)
        return error.value.code, str(error.value)


def body(reply: Reply) -> Mapping[str, Any]:
    assert reply.body is not None
    return reply.body


@pytest.fixture
async def server(tmp_path: Path) -> Server:
    bench = Bench(folder=tmp_path / "code")
    functions = bench.service()
    for name in ("greet", "meet"):
        await functions.create(new(name), ARCHIVES[0])
        functions.publish(name)
    return Server(functions, bench)


async def test_a_mapping_is_made_kept_and_started(server: Server) -> None:
    server.sources.usual = ("Creating", "")
    reply = await server.call("Create", EventSourceArn=QUEUE, FunctionName="greet", BatchSize=3)
    shown = body(reply)
    assert reply.status == 202
    assert (shown["State"], shown["BatchSize"], shown["FunctionArn"]) == ("Creating", 3, FUNCTION)
    assert shown["LastModified"] == server.bench.clock.now
    kept = server.resources.get(KIND, shown["UUID"])
    assert (kept["Enabled"], kept["FunctionName"]) == (True, "greet")
    assert server.sources.told == [("start", kept)]


async def test_a_mapping_is_read_with_its_present_state(server: Server) -> None:
    made = await server.made()
    server.sources.states[made["UUID"]] = ("Disabled", "PROBLEM: the queue is gone")
    reply = await server.call("Get", UUID=made["UUID"])
    assert reply.status == 200
    assert body(reply) == {**made, "State": "Disabled", "LastProcessingResult": "PROBLEM: the queue is gone"}


async def test_a_changed_mapping_is_kept_and_told(server: Server) -> None:
    made = await server.made(BatchSize=3)
    server.bench.clock.now = 500.0
    reply = await server.call("Update", UUID=made["UUID"], Enabled=False, FunctionName="meet:1")
    shown = body(reply)
    assert reply.status == 202
    assert (shown["BatchSize"], shown["LastModified"]) == (3, 500.0)
    assert shown["FunctionArn"] == FUNCTION.replace("greet", "meet:1")
    kept = server.resources.get(KIND, made["UUID"])
    assert server.sources.told[-1] == ("update", kept) and kept["Enabled"] is False


async def test_a_deleted_mapping_is_gone_and_stopped(server: Server) -> None:
    made = await server.made()
    reply = await server.call("Delete", UUID=made["UUID"])
    assert (reply.status, body(reply)["State"], body(reply)["UUID"]) == (202, "Deleting", made["UUID"])
    assert [what for what, _ in server.sources.told] == ["start", "stop"]
    for operation in ("Get", "Update", "Delete"):
        assert await server.refused(operation, UUID=made["UUID"]) == ABSENT
    assert await server.made()


@pytest.mark.parametrize("operation", ["Get", "Update", "Delete"])
async def test_an_unknown_mapping_is_not_found(server: Server, operation: str) -> None:
    assert await server.refused(operation, UUID=UNKNOWN) == ABSENT
    assert server.sources.told == []


@pytest.mark.parametrize("function", ["nobody", "greet:nobody", "greet:7"])
async def test_a_mapping_needs_a_function(server: Server, function: str) -> None:
    assert await server.refused("Create", EventSourceArn=QUEUE, FunctionName=function) == NO_FUNCTION
    made = await server.made()
    assert await server.refused("Update", UUID=made["UUID"], FunctionName=function) == NO_FUNCTION
    assert (await server.listed())["EventSourceMappings"] == [made]


async def test_a_function_with_tenants_has_no_mapping(server: Server) -> None:
    await server.functions.create(new("shared", per_tenant=True), ARCHIVES[0])
    code, message = await server.refused("Create", EventSourceArn=QUEUE, FunctionName="shared")
    assert code == "InvalidParameterValueException" and "tenant isolation" in message


async def test_a_queue_and_a_function_have_one_mapping(server: Server) -> None:
    first = await server.made()
    conflict = (
        "ResourceConflictException",
        f'The event source arn (" {QUEUE} ") and function (" greet ") provided mapping already exists. '
        f"Please update or delete the existing mapping with UUID {first['UUID']}",
    )
    for function in ("greet", FUNCTION, "greet:$LATEST"):
        assert await server.refused("Create", EventSourceArn=QUEUE, FunctionName=function) == conflict
    others = [await server.made(arn=OTHER), await server.made("meet"), await server.made("greet:1")]
    assert len({each["UUID"] for each in (first, *others)}) == 4
    assert await server.refused("Update", UUID=others[1]["UUID"], FunctionName="greet") == conflict
    await server.call("Update", UUID=first["UUID"], FunctionName="greet", BatchSize=1)


@pytest.mark.parametrize("state", ["Creating", "Enabling", "Disabling", "Updating", "Deleting"])
async def test_a_mapping_in_transition_is_left_alone(server: Server, state: str) -> None:
    made = await server.made()
    server.sources.states[made["UUID"]] = (state, "")
    assert await server.refused("Update", UUID=made["UUID"], Enabled=False) == IN_USE
    assert await server.refused("Delete", UUID=made["UUID"]) == IN_USE
    assert [what for what, _ in server.sources.told] == ["start"]
    server.sources.states[made["UUID"]] = ("Disabled", "")
    assert (await server.call("Delete", UUID=made["UUID"])).status == 202


async def test_lists_are_of_a_queue_or_of_a_function(server: Server) -> None:
    plain, alias, other = await server.made(), await server.made("greet:1"), await server.made("meet", OTHER)

    async def listed(**values: Any) -> set[str]:
        return {each["UUID"] for each in (await server.listed(**values))["EventSourceMappings"]}

    assert await listed() == {plain["UUID"], alias["UUID"], other["UUID"]}
    assert await listed(EventSourceArn=QUEUE) == {plain["UUID"], alias["UUID"]}
    assert await listed(FunctionName="greet") == {plain["UUID"]}
    assert await listed(FunctionName=f"{FUNCTION}:1") == {alias["UUID"]}
    assert await listed(FunctionName="meet", EventSourceArn=OTHER) == {other["UUID"]}
    assert await listed(FunctionName="meet", EventSourceArn=QUEUE) == set()
    assert await listed(FunctionName="nobody") == set()


async def test_lists_come_in_pages(server: Server) -> None:
    made = {(await server.made(arn=f"{QUEUE}-{number}"))["UUID"] for number in range(5)}
    found: list[str] = []
    page = await server.listed(MaxItems=2)
    while True:
        found += [each["UUID"] for each in page["EventSourceMappings"]]
        if "NextMarker" not in page:
            break
        page = await server.listed(MaxItems=2, Marker=page["NextMarker"])
    assert found == sorted(made)


async def test_mappings_outlive_the_server_and_their_function(server: Server) -> None:
    made = await server.made()
    server.functions.delete("greet")
    server.sources.told.clear()
    server.restart()
    server.operations.resume()
    assert [(what, document["UUID"]) for what, document in server.sources.told] == [("start", made["UUID"])]
    assert body(await server.call("Get", UUID=made["UUID"])) == made
    assert (await server.call("Update", UUID=made["UUID"], Enabled=False)).status == 202
    assert (await server.call("Delete", UUID=made["UUID"])).status == 202


async def test_nobody_is_told_of_what_could_not_be_kept(server: Server) -> None:
    made = await server.made()
    server.store.broken = True
    for operation, values in (
        ("Create", {"EventSourceArn": OTHER, "FunctionName": "greet"}),
        ("Update", {"UUID": made["UUID"], "BatchSize": 1}),
        ("Delete", {"UUID": made["UUID"]}),
    ):
        with pytest.raises(StoreUnavailable):
            await server.call(operation, **values)
    assert [what for what, _ in server.sources.told] == ["start"]
    assert (await server.listed())["EventSourceMappings"] == [made]


async def test_tags_are_kept_with_the_mapping(server: Server) -> None:
    made = await server.made(Tags={"team": "blue"})
    arn = made["EventSourceMappingArn"]
    assert server.operations.tags(arn, PLACE) == {"team": "blue"}
    server.operations.set_tags(arn, PLACE, {"team": "red"})
    assert server.operations.tags(arn, PLACE) == {"team": "red"}
    assert body(await server.call("Get", UUID=made["UUID"])) == made
    with pytest.raises(ApiFailure, match="reserved for system use"):
        server.operations.set_tags(arn, PLACE, {"aws:a": "b"})
    with pytest.raises(ApiFailure, match="does not exist"):
        server.operations.tags(arn[:-1] + "-", PLACE)
