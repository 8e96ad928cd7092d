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

_FIELDS = ("maxAsyncRetryAttempts", "maxAsyncEventAgeInSeconds", "destinationConfig")
_CREATED, _MODIFIED = "createdTime", "lastModifiedTime"


class Desk(Protocol):
    """Where events are looked at and stopped."""

    async def keyed(self, prefix: str) -> Sequence[tuple[str, Seen]]:
        """Those whose key begins so."""
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
        record = self._known(call)
        document = kept_document(self._registry, record, call.qualifier)
        if document is None:
            raise event_rules.no_config(call.function)
        return Reply(200, self._shown(call, record, call.qualifier, document))

    async def delete(self, call: Call) -> Reply:
        """DeleteAsyncInvokeConfig."""
        record = self._known(call)
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
        wanted = _Wanted(call)
        found = [pair for pair in await self._tasks(record.name) if wanted.takes(*pair, self._status(pair[1]))]
        found.sort(key=lambda pair: pair[1].row.id, reverse=call.query.get("sortOrderByTime", "desc") != "asc")
        start = _offset(call.query.get("nextToken") or "")
        size = rendering.page_size(call.query)
        page, rest = found[start : start + size], found[start + size :]
        shown = [self._shown(call, task_id, seen, payload=wanted.payload) for task_id, seen in page]
        name = "invocations" if call.service else "tasks"
        return Reply(200, {name: shown} | ({"nextToken": str(start + size)} if rest else {}))

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
            raise ApiFailure("InvalidArgument", f"the task cannot be stopped: {error}") from error
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

    async def _tasks(self, record: str) -> list[tuple[str, Seen]]:
        prefix = task_prefix(record)
        return [(key.removeprefix(prefix), seen) for key, seen in await self._desk.keyed(prefix)]

    async def _task(self, call: Call) -> tuple[str, Seen]:
        wanted = call.values.get("task") or call.values.get("invocation") or ""
        record = self._registry.record(call.function, call.service)
        for task_id, seen in await self._tasks(record.name):
            if task_id == wanted:
                return task_id, seen
        raise ApiFailure("StatefulAsyncInvocationNotFound", f"the asynchronous invocation '{wanted}' does not exist")

    def _status(self, seen: Seen) -> str:
        return tasks.status(seen.standing, seen.row.progress, stopping=self._desk.is_stopping(seen))

    def _shown(self, call: Call, task_id: str, seen: Seen, *, payload: bool) -> dict[str, Any]:
        row = seen.row
        return tasks.task(row.event, row.progress, task_id, self._status(seen), call.place, payload=payload)


class _Wanted:
    """Which tasks a listing is about."""

    def __init__(self, call: Call) -> None:
        query = call.query
        self._status = query.get("status") or ""
        if self._status and self._status not in tasks.STATES:
            raise invalid(f"status '{self._status}' is not one of {', '.join(sorted(tasks.STATES))}")
        self._prefix = query.get("prefix") or query.get("invocationIdPrefix") or ""
        self._begin = _moment(query.get("startedTimeBegin"), 0.0)
        self._end = _moment(query.get("startedTimeEnd"), float("inf"))
        self._qualifier = call.qualifier
        self.payload = (query.get("includePayload") or "").lower() == "true"

    def takes(self, task_id: str, seen: Seen, status: str) -> bool:
        event = seen.row.event
        return (
            task_id.startswith(self._prefix)
            and (not self._status or status == self._status)
            and (not self._qualifier or event.qualifier == self._qualifier)
            and self._begin <= event.accepted * 1000 <= self._end
        )


def _moment(text: str | None, default: float) -> float:
    """Milliseconds since the epoch."""
    try:
        return float(text) if text else default
    except ValueError:
        raise invalid(f"'{text}' is no time in milliseconds since the epoch") from None


def _offset(token: str) -> int:
    if token and not (token.isdecimal() and len(token) < len("1000000000")):
        raise invalid(f"nextToken '{token}' is not valid")
    return int(token or 0)
