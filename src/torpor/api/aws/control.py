"""The operations of the API beside invoking, and what they work on."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from torpor.api.aws.call import Handler
from torpor.api.aws.capacity import CapacityOperations
from torpor.api.aws.code_links import CodeLinks
from torpor.api.aws.code_signing import SigningOperations
from torpor.api.aws.event_sources import EventSourceOperations, Sources
from torpor.api.aws.function_settings import EventOperations, ManagementOperations
from torpor.api.aws.functions import Beside, FunctionOperations
from torpor.api.aws.invocations import Invocations
from torpor.api.aws.invoke_async import InvokeAsyncOperations
from torpor.api.aws.layers import LayerOperations
from torpor.api.aws.lookup import Lookup
from torpor.api.aws.packages import PackageSource
from torpor.api.aws.permissions import LayerPermissionOperations, PermissionOperations
from torpor.api.aws.provisioned import ProvisionedOperations, StandingOf
from torpor.api.aws.resources import ResourceOperations, Taggable
from torpor.api.aws.url_registry import UrlRegistry
from torpor.api.aws.urls import UrlOperations
from torpor.api.aws.versions import VersionOperations
from torpor.contracts.lambda_.operations import api_model
from torpor.model.clock import Clock
from torpor.service.attachments import Attachments
from torpor.service.functions import Functions
from torpor.service.layers import Layers
from torpor.service.resources import Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlParts:
    """What operations work on."""

    functions: Functions
    layers: Layers
    resources: Resources
    attachments: Attachments
    invocations: Invocations
    lookup: Lookup
    urls: UrlRegistry
    source: PackageSource
    links: CodeLinks
    clock: Clock
    standing: StandingOf
    prepare: Callable[[str], Awaitable[None]] | None
    url_domain: str
    sources: Sources | None
    """None for a server that reads no queues."""


class Control:
    """The control plane."""

    def __init__(self, parts: ControlParts) -> None:
        functions, resources, lookup, clock = parts.functions, parts.resources, parts.lookup, parts.clock
        attachments = parts.attachments
        self.layers = LayerOperations(parts.layers, parts.source, parts.links, resources)
        self.event_sources: EventSourceOperations | None = None
        capacity = CapacityOperations(resources, functions, lookup, clock)
        signing = SigningOperations(resources, attachments, lookup, clock)
        beside = Beside(
            lookup=lookup,
            layers=self.layers,
            capacity=capacity,
            attachments=attachments,
            signing=signing,
            source=parts.source,
            links=parts.links,
            shapes=api_model().shapes,
            prepare=parts.prepare,
        )
        tagged: dict[str, Taggable] = {":capacity-provider:": capacity, ":code-signing-config:": signing}
        self.handlers: dict[str, Handler] = {}
        """By operation name."""
        if parts.sources is not None:
            self.event_sources = EventSourceOperations(functions, lookup, resources, parts.sources, clock)
            self.handlers.update(self.event_sources.handlers())
            tagged[":event-source-mapping:"] = self.event_sources
        for operations in (
            FunctionOperations(functions, beside),
            VersionOperations(functions, lookup, attachments),
            ResourceOperations(functions, parts.layers, tagged),
            signing,
            EventOperations(functions, lookup, attachments, clock),
            InvokeAsyncOperations(parts.invocations),
            ManagementOperations(lookup, attachments),
            PermissionOperations(lookup, attachments),
            UrlOperations(functions, parts.urls, clock, parts.url_domain),
            LayerPermissionOperations(parts.layers, resources),
            ProvisionedOperations(functions, lookup, parts.standing),
            self.layers,
            capacity,
        ):
            self.handlers.update(operations.handlers())
