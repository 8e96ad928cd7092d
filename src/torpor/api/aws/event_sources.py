"""Operations on event source mappings: which queue's messages a function is invoked with."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from uuid import uuid4

from torpor.api.aws.call import Call, Handler, Reply
from torpor.api.aws.lookup import Lookup
from torpor.api.aws.paging import page
from torpor.contracts.lambda_ import event_source as wire
from torpor.contracts.lambda_.configuration import check_tags
from torpor.contracts.lambda_.failures_api import ApiFailure
from torpor.contracts.lambda_.names import Place
from torpor.contracts.lambda_.tenancy import refuse_for
from torpor.model.clock import Clock
from torpor.model.errors import NotFound
from torpor.model.event_origin import EventOrigin, qualified
from torpor.service.functions import Functions
from torpor.service.resources import Resources

KIND = "event source"


class Sources(Protocol):
    """Reads the queues of mappings and invokes their functions. A `document` is what is kept of a mapping."""

    def start(self, document: Mapping[str, Any], /) -> None:
        """A mapping is there, new or since before the server started; it may be disabled."""
        ...

    def update(self, document: Mapping[str, Any], /) -> None:
        """A mapping that was started is another one from now on; it may be enabled or disabled by that."""
        ...

    def stop(self, document: Mapping[str, Any], /) -> None:
        """A mapping that was started is gone."""
        ...

    def state(self, uuid: str, /) -> tuple[str, str]:
        """The state of a mapping that was started (`Creating`, `Enabled`, …), and the result of its last batch, which
        may be empty."""
        ...


class EventSourceOperations:
    """The control plane's view of mappings. They outlive their functions, as the service's do."""

    def __init__(
        self, functions: Functions, lookup: Lookup, resources: Resources, sources: Sources, clock: Clock
    ) -> None:
        self._functions = functions
        self._lookup = lookup
        self._resources = resources
        self._sources = sources
        self._clock = clock

    def handlers(self) -> dict[str, Handler]:
        """By operation name."""
        return {
            "CreateEventSourceMapping": self.create,
            "GetEventSourceMapping": self.get,
            "ListEventSourceMappings": self.list,
            "UpdateEventSourceMapping": self.update,
            "DeleteEventSourceMapping": self.delete,
        }

    def resume(self) -> None:
        """Start what was kept. Called once, before the first call."""
        for _, document in self._resources.list(KIND):
            self._sources.start(document)

    async def create(self, call: Call) -> Reply:
        """CreateEventSourceMapping: one of a queue and a function at most."""
        document = wire.new_mapping(call.values, call.place, str(uuid4()), self._clock.wall())
        self._check_function(call, document)
        self._check_alone(document)
        self._resources.put(KIND, document["UUID"], document, create=True)
        self._sources.start(document)
        return Reply(202, self._shown(document))

    async def get(self, call: Call) -> Reply:
        """GetEventSourceMapping."""
        return Reply(200, self._shown(self._kept(call.values["UUID"])))

    async def list(self, call: Call) -> Reply:
        """ListEventSourceMappings: of one queue or one function if they are named, by UUID."""
        arn = call.values.get("EventSourceArn")
        named = call.function if "FunctionName" in call.values else None
        found = (
            (uuid, document)
            for uuid, document in self._resources.list(KIND)
            if arn in (None, document["EventSourceArn"]) and (named is None or wire.is_for(document, named))
        )
        documents, following = page(found, call.values)
        return Reply(200, {"EventSourceMappings": [self._shown(each) for each in documents], **following})

    async def update(self, call: Call) -> Reply:
        """UpdateEventSourceMapping: what is not given stays."""
        kept = self._settled(call.values["UUID"])
        document = wire.changed_mapping(kept, call.values, self._clock.wall())
        if "FunctionName" in call.values:
            self._check_function(call, document)
            self._check_alone(document)
        self._resources.put(KIND, document["UUID"], document)
        self._sources.update(document)
        return Reply(202, self._shown(document))

    async def delete(self, call: Call) -> Reply:
        """DeleteEventSourceMapping: it is gone at once, although a batch may still be with the function."""
        document = self._settled(call.values["UUID"])
        _, result = self._sources.state(document["UUID"])
        self._resources.remove(KIND, document["UUID"])
        self._sources.stop(document)
        return Reply(202, wire.shown_mapping(document, wire.DELETING, result))

    def origins(self) -> Sequence[EventOrigin]:
        """Every mapping."""
        return [self._origin(document) for _, document in self._resources.list(KIND)]

    def _origin(self, document: Mapping[str, Any]) -> EventOrigin:
        named, (state, result) = wire.function_of(document), self._sources.state(document["UUID"])
        return EventOrigin(
            name=document["EventSourceArn"],
            function=qualified(named.name, named.qualifier),
            state=state.lower(),
            when=f"batches of up to {document['BatchSize']}",
            told=result,
        )

    def tags(self, arn: str, place: Place) -> Mapping[str, str]:
        """A mapping's tags. Raises ApiFailure."""
        tags: Mapping[str, str] = self._kept(wire.mapping_id(arn, place))["Tags"]
        return tags

    def set_tags(self, arn: str, place: Place, tags: Mapping[str, str]) -> None:
        """Replace a mapping's tags. Raises ApiFailure."""
        check_tags(tags)
        document = self._kept(wire.mapping_id(arn, place))
        self._resources.put(KIND, document["UUID"], {**document, "Tags": dict(tags)})

    def _kept(self, uuid: str) -> Mapping[str, Any]:
        try:
            return self._resources.get(KIND, uuid)
        except NotFound as error:
            raise wire.no_mapping() from error

    def _settled(self, uuid: str) -> Mapping[str, Any]:
        """A mapping that can be changed now. Raises ApiFailure."""
        document = self._kept(uuid)
        wire.check_settled(self._sources.state(uuid)[0])
        return document

    def _check_function(self, call: Call, document: Mapping[str, Any]) -> None:
        named = wire.function_of(document)
        try:
            self._lookup.arn(call, named)
        except ApiFailure as error:
            raise wire.no_function() from error
        refuse_for(self._functions.get(named.name).latest.version, "an event source mapping")

    def _check_alone(self, document: Mapping[str, Any]) -> None:
        """Refuse a second mapping of the same queue and function. Raises ApiFailure."""
        named = wire.function_of(document)
        for uuid, other in self._resources.list(KIND):
            same = other["EventSourceArn"] == document["EventSourceArn"] and wire.is_for(other, named)
            if same and uuid != document["UUID"]:
                raise wire.already_mapped(document, uuid)

    def _shown(self, document: Mapping[str, Any]) -> dict[str, Any]:
        return wire.shown_mapping(document, *self._sources.state(document["UUID"]))
