"""One environment's telemetry: who has subscribed, and what each is told.

Everything comes here in the order in which it is logged. What happens during Init is kept until Init is over, so that
whoever subscribes then has missed nothing. An environment without subscribers is not followed any further.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torpor.engine.contract import TelemetryWire
from torpor.engine.subscriber import Channel, HttpChannel, LineChannel, Subscriber
from torpor.lifecycle import EXTENSIONS, RUNTIME
from torpor.model.clock import Clock
from torpor.model.entries import Entry
from torpor.model.errors import InvalidRequest, TorporError
from torpor.model.records import (
    InitEnded,
    InvocationEnded,
    Record,
    RestoreEnded,
    ShutdownStarted,
    Subscribed,
    TelemetryDropped,
)
from torpor.model.telemetry import Source, Subscription
from torpor.sandbox.port import Sandbox
from torpor.telemetry import Batches
from torpor.transport import Exchange, within

log = logging.getLogger(__name__)
FAREWELL = 1.0
"""Seconds in which a process that is to be killed may still take what was on its way to it."""
_KEPT_EVENTS = 10_000
_KEPT_SIZE = 1024 * 1024
"""Bounds of what is kept of an Init for those who subscribe; the size counts characters of lines."""
_LISTENS_WITHIN = 1.0
_JSON = (("Content-Type", "application/json"),)


class _Line:
    """A line that a process wrote."""

    __slots__ = ("source", "text", "wall")

    def __init__(self, source: Source, wall: float, text: str) -> None:
        self.source = source
        self.wall = wall
        self.text = text


class _Events:
    """What became of a record."""

    __slots__ = ("events", "wall")

    def __init__(self, events: Any, wall: float) -> None:
        self.events = events
        self.wall = wall


class Subscriptions:
    """Followed by the environment's transcript from the start of Init on, for as long as `is_needed`."""

    def __init__(
        self,
        wire: TelemetryWire,
        render: Callable[[Entry], Any],
        entry: Callable[[Record, float], Entry],
        note: Callable[[Record], None],
        clock: Clock,
        *,
        is_json: bool,
    ) -> None:
        """`render` makes an entry's events, as the contract has them, and `entry` one of the environment's; `note`
        keeps a record, which comes back here; `is_json` if lines may be objects."""
        self._wire = wire
        self._render = render
        self._entry = entry
        self._note = note
        self._clock = clock
        self._is_json = is_json
        self._loop = asyncio.get_running_loop()
        self._sandbox: Sandbox | None = None
        self._open = False
        self._kept: deque[_Line | _Events] = deque()
        self._kept_size = 0
        self._missed = 0
        self._missed_size = 0
        self.subscribers: dict[str, Subscriber] = {}
        """By agent; the same object for the environment's whole life."""
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_needed(self) -> bool:
        """Is there a subscriber, or may there be one yet?"""
        return self._open or bool(self.subscribers)

    # -- what happens ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Init starts: earlier subscriptions have ended, new ones can be made."""
        self.close()
        self._open = True

    def record(self, entry: Entry) -> None:
        """Something happened."""
        record = entry.record
        if type(record) is TelemetryDropped:
            return  # whoever it is about is told in its place
        try:
            events = self._render(entry)
            if events:
                self._tell(_Events(events, entry.wall))
        except Exception:  # the function and its log have no part in it
            log.exception("telemetry of a record is lost")
        if type(record) is InitEnded or type(record) is RestoreEnded:
            self._forget_init()
        if _ends_processes(record):
            for subscriber in self.subscribers.values():
                subscriber.hurry()

    def line(self, source: Source, wall: float, text: str) -> None:
        """A process of the function or of an extension wrote a line."""
        try:
            self._tell(_Line(source, wall, text))
        except Exception:
            log.exception("telemetry of a line is lost")

    def _tell(self, news: _Line | _Events) -> None:
        if self._open:
            self._keep(news)
        encoded: dict[str, list[bytes]] = {}
        for subscriber in self.subscribers.values():
            subscription = subscriber.subscription
            if _source(news) not in subscription.sources:
                continue
            schema = subscription.schema
            if schema not in encoded:
                encoded[schema] = self._encode(schema, news)
            for event in encoded[schema]:
                subscriber.add(event)

    def _encode(self, schema: str, news: _Line | _Events) -> list[bytes]:
        if isinstance(news, _Events):
            return self._wire.encode_events(schema, news.events, news.wall)
        return [self._wire.encode_line(schema, news.source, news.wall, news.text, is_json=self._is_json)]

    def _keep(self, news: _Line | _Events) -> None:
        self._kept.append(news)
        if isinstance(news, _Line):
            self._kept_size += len(news.text)
        while len(self._kept) > _KEPT_EVENTS or self._kept_size > _KEPT_SIZE:
            oldest = self._kept.popleft()
            size = len(oldest.text) if isinstance(oldest, _Line) else 0
            self._kept_size -= size
            self._missed += 1
            self._missed_size += size

    def _forget_init(self) -> None:
        self._open = False
        self._kept.clear()
        self._kept_size = self._missed = self._missed_size = 0

    # -- subscribing -------------------------------------------------------------------------------------------------

    def subscribe(self, exchange: Exchange, api: str, agent: str) -> None:
        """Answer an extension's call, at once or once its listener was found to be there."""
        try:
            wanted = self._wire.subscription(api, exchange.body)
        except InvalidRequest as error:
            _reply(exchange, 400, self._wire.invalid(error))
            return
        if self._refused(exchange, api):
            return
        if wanted.method:
            assert self._sandbox is not None, "who calls runs in it"
            self._accept(exchange, agent, wanted, HttpChannel(self._sandbox, wanted, self._wire.SEQUENCE_HEADER))
        else:
            self._spawn(self._accept_if_listening(exchange, agent, wanted))

    def _refused(self, exchange: Exchange, api: str) -> bool:
        """Has the call been answered, because it comes too late or by the wrong API?"""
        if not self._open:
            _reply(exchange, 403, self._wire.closed(api))
        elif any(subscriber.subscription.api != api for subscriber in self.subscribers.values()):
            _reply(exchange, 400, self._wire.other_api(api))
        else:
            return False
        return True

    async def _accept_if_listening(self, exchange: Exchange, agent: str, wanted: Subscription) -> None:
        assert self._sandbox is not None, "who calls runs in it"
        channel = LineChannel(self._sandbox, wanted)
        try:
            await within(_LISTENS_WITHIN, channel.open())
        except (OSError, TimeoutError, TorporError):
            _reply(exchange, 400, self._wire.unreachable(wanted.api, wanted.port))
            return
        if self._refused(exchange, wanted.api):
            channel.close()
            return
        self._accept(exchange, agent, wanted, channel)

    def _accept(self, exchange: Exchange, agent: str, wanted: Subscription, channel: Channel) -> None:
        name = agent.removeprefix(EXTENSIONS)
        dropped = partial(self._dropped, name, wanted.schema)
        earlier = self.subscribers.get(agent)
        if earlier is not None:
            earlier.redirect(wanted, channel, dropped)
        else:
            self.subscribers[agent] = Subscriber(wanted, channel, Batches(wanted.buffering), dropped)
            self._catch_up(self.subscribers[agent])
        _reply(exchange, 200, self._wire.OK)
        sources = tuple(str(source) for source in wanted.sources)
        self._note(Subscribed(at=self._clock.monotonic(), name=name, api=wanted.api, sources=sources))

    def _catch_up(self, subscriber: Subscriber) -> None:
        """Tell it what has happened since Init began."""
        wanted = subscriber.subscription
        if self._missed:
            subscriber.add(self._dropped("", wanted.schema, self._missed, self._missed_size))
        for news in self._kept:
            if _source(news) in wanted.sources:
                for event in self._encode(wanted.schema, news):
                    subscriber.add(event)

    def _dropped(self, name: str, schema: str, count: int, size: int) -> bytes:
        """The event that tells a subscriber what it has lost; those who read the log are told too."""
        record = TelemetryDropped(at=self._clock.monotonic(), name=name, count=count, size=size)
        wall = self._clock.wall()
        if name:
            self._note(record)
        (event,) = self._wire.encode_events(schema, self._render(self._entry(record, wall)), wall)
        return event

    # -- the environment ---------------------------------------------------------------------------------------------

    def placed(self, sandbox: Sandbox) -> None:
        """Where the listeners will be."""
        self._sandbox = sandbox

    def farewell(self, agent: str, end: Callable[[], None]) -> None:
        """Call `end` once the agent has what is on its way to it, or has had its time to take it."""
        subscriber = self.subscribers.get(agent)
        if subscriber is None:
            end()
            return
        ending = _Once(end)
        self._loop.call_later(FAREWELL, ending)
        subscriber.hurry()
        subscriber.when_empty(ending)

    def exited(self, agent: str, external: Iterable[str]) -> None:
        """A process is gone, and with the runtime's all extensions inside it."""
        outside = frozenset(external)
        for name in list(self.subscribers):
            if name == agent or (agent == RUNTIME and name not in outside):
                self.subscribers.pop(name).close()

    def close(self) -> None:
        """All subscriptions end. Idempotent."""
        self._forget_init()
        for agent in list(self.subscribers):
            self.subscribers.pop(agent).close()

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Once:
    """Calls what it was given once, however often it is called."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    def __call__(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call()


def _source(news: _Line | _Events) -> Source:
    return news.source if isinstance(news, _Line) else Source.PLATFORM


def _ends_processes(record: Record) -> bool:
    """Do the processes end after this, be it in a reset or with their environment?"""
    if isinstance(record, InvocationEnded | InitEnded):
        return record.failure is not None
    return isinstance(record, ShutdownStarted)


def _reply(exchange: Exchange, status: int, body: bytes) -> None:
    exchange.reply(status, _JSON, body)
