"""What is set for asynchronous calls, and the calls that are tasks (4, 5)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from torpor.api.fc.async_calls import kept_document, task_prefix
from torpor.api.fc.call import NO_CONTENT, Call, Handler, Reply
from torpor.api.fc.registry import ASYNC, Registry
from torpor.contracts.function_compute import event_rules, names, rendering, tasks
from torpor.contracts.function_compute.api_failures import ApiFailure, invalid
from torpor.model.errors import Conflict
from torpor.service.events.desk import Seen
from torpor.store.ports import KeyedFilter

_FIELDS = ("maxAsyncRetryAttempts", "maxAsyncEventAgeInSeconds", "destinationConfig")
_LOOKED_AT = 200
"""Tasks that are read at once."""
_CREATED, _MODIFIED = "createdTime", "lastModifiedTime"


class Desk(Protocol):
    """Where events are looked at and stopped."""

    async def keyed(self, wanted: KeyedFilter) -> Sequence[tuple[str, Seen]]:
        """Those that have a key, with it."""
        ...

    async def by_key(self, key: str) -> Seen | None:
        """The one of this key, if there is one."""
        ...

    async def drop(self, identity: str) -> Seen:
        """Stop one. Raises NotFound, Conflict."""
        ...

    def is_stopping(self, seen: Seen) -> bool:
        """Was it told to stop, and runs still?"""
        ...


class AsyncConfigOperations:
    """Retries, ages and destinations of versions and aliases."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._resources = registry.resources

    def routes(self) -> dict[tuple[str, str], Handler]:
        """By method and path below the function's; those that begin with `/` below the API's."""
        return {
            ("PUT", "F/{function}/async-invoke-config"): self.put,
            ("GET", "F/{function}/async-invoke-config"): self.get,
            ("DELETE", "F/{function}/async-invoke-config"): self.delete,
            ("GET", "F/{function}/async-invoke-configs"): self.list_all,
            ("GET", "/async-invoke-configs"): self.list_all,
        }

    async def put(self, call: Call) -> Reply:
        """PutAsyncInvokeConfig: what is not given is not set any more."""
        record = self._known(call)
        config = event_rules.async_config(call.document)
        for service, function, qualifier in event_rules.check_targets(config):
            if names.record_name(function, service) == record:
                raise invalid("a function cannot be the destination of its own asynchronous calls")
            self._registry.resolve(function, service, qualifier)
        old = kept_document(self._registry, record, call.qualifier) or {}
        now = rendering.time_text(self._registry.clock.wall())
        is_task = bool(call.document.get("asyncTask") or call.document.get("statefulInvocation"))
        document = {name: call.document[name] for name in _FIELDS if call.document.get(name) is not None}
        document |= {"asyncTask": is_task, _CREATED: old.get(_CREATED, now), _MODIFIED: now}
        self._resources.put(ASYNC, f"{record}/{call.qualifier or names.LATEST}", document)
        return Reply(200, self._shown(call, record, call.qualifier, document))

    async def get(self, call: Call) -> Reply:
        """GetAsyncInvokeConfig."""
        record = self._registry.record(call.function, call.service).name
        document = kept_document(self._registry, record, call.qualifier)
        if document is None:
            raise event_rules.no_config(call.function)
        return Reply(200, self._shown(call, record, call.qualifier, document))

    async def delete(self, call: Call) -> Reply:
        """DeleteAsyncInvokeConfig."""
        record = self._registry.record(call.function, call.service).name
        if kept_document(self._registry, record, call.qualifier) is None:
            raise event_rules.no_config(call.function)
        self._resources.remove(ASYNC, f"{record}/{call.qualifier or names.LATEST}")
        return NO_CONTENT

    async def list_all(self, call: Call) -> Reply:
        """ListAsyncInvokeConfigs: of one function, or in the current generation of all."""
        found = {}
        for record, qualifier, document in self._listed(call):
            found[f"{record}/{qualifier}"] = self._shown(call, record, qualifier, document)
        page, following = rendering.page(found, call.query)
        body: dict[str, Any] = {"configs": [found[name] for name in page]}
        return Reply(200, body | ({"nextToken": following} if following else {}))

    def _listed(self, call: Call) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        wanted = call.values.get("function") or call.query.get("functionName") or ""
        only = self._registry.record(wanted, call.service).name if wanted else ""
        for key, document in self._resources.list(ASYNC):
            record, _, qualifier = key.rpartition("/")
            if (record == only) if only else not names.service_of(record):
                yield record, qualifier, document

    def _known(self, call: Call) -> str:
        """The function's record, if it and its qualifier are there. Raises ApiFailure."""
        return self._registry.resolve(call.function, call.service, call.qualifier).version.function

    def _shown(self, call: Call, record: str, qualifier: str, document: Mapping[str, Any]) -> dict[str, Any]:
        shown = {name: value for name, value in document.items() if name != "asyncTask"}
        service, function = names.service_of(record), names.function_of(record)
        if service:
            named = {"service": service, "function": function, "qualifier": qualifier or names.LATEST}
            return shown | named | {"statefulInvocation": document["asyncTask"]}
        return shown | {"functionArn": call.place.function_arn(function), "asyncTask": document["asyncTask"]}


class TaskOperations:
    """The tasks of functions."""

    def __init__(self, registry: Registry, desk: Desk) -> None:
        self._registry = registry
        self._desk = desk

    def routes(self) -> dict[tuple[str, str], Handler]:
        """By method and path below the function's."""
        return {
            ("GET", "F/{function}/async-tasks"): self.list_all,
            ("GET", "F/{function}/async-tasks/{task}"): self.get,
            ("PUT", "F/{function}/async-tasks/{task}/stop"): self.stop,
            ("GET", "F/{function}/stateful-async-invocations"): self.list_all,
            ("GET", "F/{function}/stateful-async-invocations/{invocation}"): self.get,
            ("PUT", "F/{function}/stateful-async-invocations/{invocation}"): self.stop,
            ("GET", "/stateful-async-invocation-functions"): self.functions,
        }

    async def list_all(self, call: Call) -> Reply:
        """ListAsyncTasks: newest first unless it is asked otherwise."""
        record = self._registry.record(call.function, call.service)
        wanted, size = _Wanted(call), rendering.page_size(call.query)
        found = await self._matching(record.name, wanted, size + 1)
        shown = [self._shown(call, task_id, seen, payload=wanted.payload) for task_id, seen in found[:size]]
        token = {"nextToken": str(found[size - 1][1].row.id)} if len(found) > size else {}
        return Reply(200, {"invocations" if call.service else "tasks": shown} | token)

    async def get(self, call: Call) -> Reply:
        """GetAsyncTask."""
        task_id, seen = await self._task(call)
        return Reply(200, self._shown(call, task_id, seen, payload=True))

    async def stop(self, call: Call) -> Reply:
        """StopAsyncTask: what runs is killed."""
        _, seen = await self._task(call)
        try:
            await self._desk.drop(str(seen.row.id))
        except Conflict as error:
            raise invalid("the task cannot be stopped any more: it has ended, or is just ending") from error
        return NO_CONTENT

    async def functions(self, call: Call) -> Reply:
        """ListStatefulAsyncInvocationFunctions: those whose calls are tasks."""
        found = {}
        for key, document in self._registry.resources.list(ASYNC):
            record, _, qualifier = key.rpartition("/")
            service, function = names.service_of(record), names.function_of(record)
            if service and document["asyncTask"]:
                found[key] = {"serviceName": service, "functionName": function, "qualifier": qualifier}
        page, following = rendering.page(found, call.query)
        body: dict[str, Any] = {"data": [found[name] for name in page]}
        return Reply(200, body | ({"nextToken": following} if following else {}))

    async def _matching(self, record: str, wanted: "_Wanted", number: int) -> list[tuple[str, Seen]]:
        """So many tasks, or as many as there are."""
        prefix, beyond = task_prefix(record), wanted.beyond
        found: list[tuple[str, Seen]] = []
        while len(found) < number:
            look = KeyedFilter(
                prefix=prefix + wanted.prefix, limit=_LOOKED_AT, newest_first=wanted.newest_first, beyond=beyond
            )
            page = await self._desk.keyed(look)
            pairs = ((key.removeprefix(prefix), seen) for key, seen in page)
            found += [pair for pair in pairs if wanted.takes(pair[1], self._status(pair[1]))]
            if len(page) < _LOOKED_AT:
                break
            beyond = page[-1][1].row.id
        return found[:number]

    async def _task(self, call: Call) -> tuple[str, Seen]:
        wanted = call.values.get("task") or call.values.get("invocation") or ""
        record = self._registry.record(call.function, call.service)
        seen = await self._desk.by_key(task_prefix(record.name) + wanted)
        if seen is None:
            message = f"the asynchronous invocation '{wanted}' does not exist"
            raise ApiFailure("StatefulAsyncInvocationNotFound", message)
        return wanted, seen

    def _status(self, seen: Seen) -> str:
        return tasks.status(seen.standing, seen.row.progress, stopping=self._desk.is_stopping(seen))

    def _shown(self, call: Call, task_id: str, seen: Seen, *, payload: bool) -> dict[str, Any]:
        row = seen.row
        return tasks.task(
            row.event,
            row.progress,
            task_id,
            self._status(seen),
            call.place,
            payload=payload,
            running_since=seen.started,
        )


class _Wanted:
    """Which tasks a listing is about."""

    def __init__(self, call: Call) -> None:
        query = call.query
        self._status = query.get("status") or ""
        if self._status and self._status not in tasks.STATES:
            raise invalid(f"status '{self._status}' is not one of {', '.join(sorted(tasks.STATES))}")
        self._begin = _moment(query.get("startedTimeBegin"), 0.0)
        self._end = _moment(query.get("startedTimeEnd"), float("inf"))
        self._is_timed = bool(query.get("startedTimeBegin") or query.get("startedTimeEnd"))
        self._qualifier = query.get("qualifier") or call.values.get("service", "").partition(".")[2]
        self.prefix = query.get("prefix") or query.get("invocationIdPrefix") or ""
        self.newest_first = query.get("sortOrderByTime", "desc") != "asc"
        self.beyond = _number(query.get("nextToken") or "")
        self.payload = (query.get("includePayload") or "").lower() == "true"

    def takes(self, seen: Seen, status: str) -> bool:
        event = seen.row.event
        started = tasks.started_at(seen.row.progress, seen.started)
        return (
            (not self._status or status == self._status)
            and (not self._qualifier or (event.qualifier or names.LATEST) == self._qualifier)
            and (not self._is_timed or (started > 0 and self._begin <= started <= self._end))
        )


def _moment(text: str | None, default: float) -> float:
    """Milliseconds since the epoch."""
    try:
        return float(text) if text else default
    except ValueError:
        raise invalid(f"'{text}' is no time in milliseconds since the epoch") from None


def _number(token: str) -> int | None:
    if token and not (token.isdecimal() and len(token) < len(str(1 << 62))):
        raise invalid(f"nextToken '{token}' is not valid")
    return int(token) if token else None
