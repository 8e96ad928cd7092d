"""Triggers: HTTP and timers. What others would need to be told by clouds' services, which are not here."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias
from uuid import uuid4

from torpor.api.fc.call import NO_CONTENT, Call, Handler, Reply, shown
from torpor.api.fc.registry import TRIGGER, Registry
from torpor.contracts.function_compute import http_trigger, limits, names, rendering, runtimes, timing
from torpor.contracts.function_compute.api_failures import ApiFailure, invalid, not_built
from torpor.contracts.function_compute.http_trigger import HttpConfig
from torpor.contracts.function_compute.names import Generation
from torpor.model.errors import Conflict, NotFound
from torpor.model.event_origin import EventOrigin, qualified
from torpor.service.timers import Timers

HTTP, TIMER = "http", "timer"
_LOOPBACK = "localhost"
LOCAL_DOMAIN = f"fcapp.{_LOOPBACK}"
"""Stands for the vendor's domain of triggers; names below `localhost` reach this machine without any entry anywhere."""
_PREFIX = "domainPrefix"
_LABEL_MAX = 40

Fired: TypeAlias = Callable[[str, str, bytes, str, float], None]
"""Told the function's record, the qualifier and the event of a timer that goes off, the timer and the planned time."""


class TriggerOperations:
    """The triggers of functions, kept by `<record>/<name>`."""

    def __init__(self, registry: Registry, timers: Timers, fired: Fired) -> None:
        self._registry = registry
        self._resources = registry.resources
        self._timers = timers
        self._fired = fired
        self._by_prefix: dict[str, tuple[str, Mapping[str, Any]]] = {}
        for key, document in self._resources.list(TRIGGER):
            self._arm(key, document)

    def routes(self) -> dict[tuple[str, str], Handler]:
        """By method and path below the function's."""
        return {
            ("POST", "F/{function}/triggers"): self.create,
            ("GET", "F/{function}/triggers"): self.list_all,
            ("GET", "F/{function}/triggers/{trigger}"): self.get,
            ("PUT", "F/{function}/triggers/{trigger}"): self.update,
            ("DELETE", "F/{function}/triggers/{trigger}"): self.delete,
        }

    async def create(self, call: Call) -> Reply:
        """CreateTrigger."""
        values = call.document
        record = self._registry.record(call.function, call.service)
        name = names.check_name(values.get("triggerName"), "triggerName", longest=limits.TRIGGER_NAME_MAX)
        if sum(1 for _ in self._registry.below(TRIGGER, record.name)) >= limits.TRIGGERS_MAX:
            raise ApiFailure("LimitExceededError", f"a function has at most {limits.TRIGGERS_MAX} triggers")
        identity = str(uuid4())
        kept = {"triggerName": name, "triggerId": identity, "createdTime": self._moment()}
        document = self._read(call, values, kept)
        if document["triggerType"] == HTTP:
            self._check_only(record.name, document)
            document[_PREFIX] = _domain_prefix(call.function, identity)
        key = f"{record.name}/{name}"
        try:
            self._resources.put(TRIGGER, key, document, create=True)
        except Conflict as error:
            raise ApiFailure("TriggerAlreadyExists", f"trigger '{name}' already exists") from error
        self._arm(key, document)
        return self._shown(call, document)

    async def get(self, call: Call) -> Reply:
        """GetTrigger."""
        return self._shown(call, self._trigger(call)[1])

    async def list_all(self, call: Call) -> Reply:
        """ListTriggers."""
        record = self._registry.record(call.function, call.service)
        documents = dict(self._registry.below(TRIGGER, record.name))
        page, following = rendering.page(documents, call.query)
        body: dict[str, Any] = {"triggers": [self._rendered(call, documents[name]) for name in page]}
        return Reply(200, body | ({"nextToken": following} if following else {}))

    async def update(self, call: Call) -> Reply:
        """UpdateTrigger: what is not given stays; its type cannot change."""
        key, old = self._trigger(call)
        call.expect(rendering.etag(self._rendered(call, old)))
        given = {name: value for name, value in call.document.items() if value is not None}
        document = self._read(call, {**old, **given, "triggerType": old["triggerType"]}, old)
        if _PREFIX in old:
            document[_PREFIX] = old[_PREFIX]
        self._resources.put(TRIGGER, key, document)
        self._arm(key, document)
        return self._shown(call, document)

    async def delete(self, call: Call) -> Reply:
        """DeleteTrigger."""
        key, old = self._trigger(call)
        call.expect(rendering.etag(self._rendered(call, old)))
        self._resources.remove(TRIGGER, key)
        self._timers.remove(_timer(key))
        self._by_prefix.pop(old.get(_PREFIX, ""), None)
        return NO_CONTENT

    def by_domain(self, prefix: str) -> tuple[str, str, HttpConfig] | None:
        """The function's record, qualifier and configuration of the HTTP trigger with that name before the domain."""
        found = self._by_prefix.get(prefix)
        if found is None:
            return None
        key, document = found
        return key.rpartition("/")[0], document["qualifier"], http_trigger.http_config(document["triggerConfig"])

    def of_function(self, record: str, qualifier: str) -> HttpConfig | None:
        """The HTTP trigger of a version or alias."""
        for _, document in self._registry.below(TRIGGER, record):
            if document["triggerType"] == HTTP and document["qualifier"] == (qualifier or names.LATEST):
                return http_trigger.http_config(document["triggerConfig"])
        return None

    def origins(self) -> Sequence[EventOrigin]:
        """Every timer."""
        return [
            self._origin(key, document)
            for key, document in self._resources.list(TRIGGER)
            if document["triggerType"] == TIMER
        ]

    def _origin(self, key: str, document: Mapping[str, Any]) -> EventOrigin:
        config = timing.timer_config(document["triggerConfig"])
        qualifier = document["qualifier"]
        return EventOrigin(
            name=f"timer:{_timer(key)}",
            function=qualified(key.rpartition("/")[0], "" if qualifier == names.LATEST else qualifier),
            state="enabled" if config.enable else "disabled",
            when=config.cron_expression,
            next=self._timers.planned(_timer(key)),
        )

    def _trigger(self, call: Call) -> tuple[str, Mapping[str, Any]]:
        record = self._registry.record(call.function, call.service)
        key = f"{record.name}/{call.values['trigger']}"
        try:
            return key, self._resources.get(TRIGGER, key)
        except NotFound as error:
            raise ApiFailure("TriggerNotFound", f"trigger '{call.values['trigger']}' does not exist") from error

    def _read(self, call: Call, values: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
        kind, config = values.get("triggerType"), _config(values.get("triggerConfig"))
        qualifier = str(values.get("qualifier") or names.LATEST)
        version = self._registry.resolve(call.function, call.service, qualifier).version
        if kind == HTTP:
            http_trigger.http_config(config)
            if call.service and not runtimes.is_custom(version.runtime):
                raise not_built(f"HTTP handlers of the runtime {version.runtime} in this API version")
        elif kind == TIMER:
            timing.timer_config(config)
        elif isinstance(kind, str) and kind:
            raise not_built(f"The trigger type {kind}")
        else:
            raise invalid("triggerType is required")
        return {
            "triggerName": kept["triggerName"],
            "triggerId": kept["triggerId"],
            "triggerType": kind,
            "triggerConfig": config,
            "qualifier": qualifier,
            "description": str(values.get("description") or ""),
            "invocationRole": str(values.get("invocationRole") or ""),
            "sourceArn": str(values.get("sourceArn") or ""),
            "createdTime": kept["createdTime"],
            "lastModifiedTime": self._moment(),
        }

    def _check_only(self, record: str, document: Mapping[str, Any]) -> None:
        qualifier = document["qualifier"]
        if self.of_function(record, qualifier) is not None:
            raise ApiFailure("TriggerAlreadyExists", f"'{qualifier}' has an HTTP trigger already")

    def _arm(self, key: str, document: Mapping[str, Any]) -> None:
        if document["triggerType"] == HTTP:
            self._by_prefix[document[_PREFIX]] = (key, document)
            return
        config = timing.timer_config(document["triggerConfig"])
        if not config.enable:
            self._timers.remove(_timer(key))
            return
        record, _, name = key.rpartition("/")
        qualifier = document["qualifier"]

        def fire(planned: float) -> None:
            self._fired(record, qualifier, timing.timer_event(planned, name, config.payload), _timer(key), planned)

        self._timers.put(_timer(key), timing.next_fire(config.cron_expression), fire)

    def _shown(self, call: Call, document: Mapping[str, Any]) -> Reply:
        return shown(self._rendered(call, document))

    def _rendered(self, call: Call, document: Mapping[str, Any]) -> dict[str, Any]:
        rendered = {name: value for name, value in document.items() if name != _PREFIX}
        is_http = document["triggerType"] == HTTP
        url = trigger_url(call, document) if is_http else ""
        if call.generation is not Generation.V3:
            if not is_http:
                return rendered
            domain = url.partition("//")[2].partition("/")[0].partition(":")[0]
            return rendered | {"domainName": domain, "urlInternet": url, "urlIntranet": url}
        rendered["triggerConfig"] = json.dumps(document["triggerConfig"], ensure_ascii=False, separators=(",", ":"))
        rendered["targetArn"] = call.place.function_arn(call.function)
        if is_http:
            rendered["httpTrigger"] = {"urlInternet": url, "urlIntranet": url}
        return rendered

    def _moment(self) -> str:
        return rendering.time_text(self._registry.clock.wall())


def trigger_url(call: Call, document: Mapping[str, Any]) -> str:
    """Where this server answers for the trigger: a path of it, or in the current generation a name below
    `localhost` where callers reach the server by the loopback interface."""
    qualifier = "" if document["qualifier"] == names.LATEST else f".{document['qualifier']}"
    scheme, _, address = call.base_url.partition("://")
    if call.service:
        return f"{call.base_url}/{Generation.CLASSIC}/proxy/{call.service}{qualifier}/{call.function}/"
    host, _, port = address.rpartition(":") if ":" in address else (address, "", "")
    if host in (_LOOPBACK, "127.0.0.1") or host.endswith(f".{_LOOPBACK}"):
        return f"{scheme}://{document[_PREFIX]}.{LOCAL_DOMAIN}" + (f":{port}" if port else "")
    return f"{call.base_url}/{Generation.V3}/proxy/{call.function}{qualifier}/"


def _timer(key: str) -> str:
    """Its name among all timers of the server."""
    return f"trigger:{key}"


def _config(given: object) -> dict[str, Any]:
    """A trigger's configuration: an object, or its JSON text."""
    if isinstance(given, str) and given:
        try:
            given = json.loads(given)
        except (ValueError, RecursionError) as error:
            raise invalid(f"triggerConfig is not valid JSON: {error}") from error
    if given in (None, ""):
        return {}
    if not isinstance(given, dict):
        raise invalid("triggerConfig has to be a JSON object")
    return given


def _domain_prefix(function: str, identity: str) -> str:
    """A host label that no other trigger has."""
    label = "".join(letter if letter.isalnum() else "-" for letter in function.lower())[:_LABEL_MAX].strip("-")
    return f"{label}-{hashlib.sha256(identity.encode()).hexdigest()[:10]}".lstrip("-")
