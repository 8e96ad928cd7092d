"""One queue, as its service's API shows it: nothing it answers, or fails to answer, does any harm here."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from torpor.contracts.lambda_ import limits
from torpor.contracts.lambda_.destinations import queue_url
from torpor.contracts.lambda_.event_source import queue_of
from torpor.contracts.lambda_.queue_sorting import receipts_of
from torpor.model.errors import TargetDown, TargetRefused, TorporError
from torpor.model.parcel import ToService
from torpor.scheduling.retries import back_off

_LOG = logging.getLogger(__name__)
_Item = TypeVar("_Item")
_LATE_MAX = 16
"""Calls without an answer that are left behind before no more are made."""
_AT_ONCE = 8
"""Calls about the messages of one batch."""
_ATTEMPTS = 4
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 1.0
"""Seconds between attempts at deleting a message."""
_EMPTY_MAX = 16
"""Bytes of an answer that has nothing in it."""
_SILENT = "It does not answer."


class Cloud(Protocol):
    """Calls of cloud services."""

    async def call(self, parcel: ToService, /) -> Mapping[str, Any]:
        """What the service answers. Raises TargetDown or TargetRefused."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long pollers wait, in seconds."""

    wait: int = limits.QUEUE_WAIT
    """For messages, in one call."""
    patience: float = 10.0
    """For an answer, beside that."""
    settle: float = 3.0
    """Until a change of a mapping counts as done, whatever its queue does."""
    scale: float = 1.0
    """What waits after errors are multiplied by."""


class QueueFacts(NamedTuple):
    """What a queue says of itself."""

    visibility: int
    """Seconds for which it hides a message that was received."""
    waiting: int
    """Messages that can be received, about."""


class QueueClient:
    """Calls of one queue. One event loop's thread."""

    def __init__(self, cloud: Cloud, arn: str, timing: Timing, ended: Callable[[], None]) -> None:
        """`arn` is the queue's; `ended` is called when one of the calls is over that nobody waited for any more. Raises
        TargetRefused or ApiFailure if it is no queue."""
        self._cloud = cloud
        self._url = queue_url(arn)
        self._region = queue_of(arn).region
        self._timing = timing
        self._ended = ended
        self._late: set[asyncio.Task[Any]] = set()

    @property
    def is_called(self) -> bool:
        """Whether there are calls that nobody waits for any more, and that are not over."""
        return bool(self._late)

    async def facts(self) -> QueueFacts:
        """Raises TargetDown or TargetRefused."""
        names = ["VisibilityTimeout", "ApproximateNumberOfMessages"]
        answer = await self._call("get_queue_attributes", {"AttributeNames": names})
        try:
            found = answer["Attributes"]
            visibility, waiting = int(found["VisibilityTimeout"]), int(found.get("ApproximateNumberOfMessages", 0))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise TargetDown("It does not tell its visibility timeout.") from error
        return QueueFacts(min(max(visibility, 1), limits.QUEUE_VISIBILITY_MAX), waiting)

    async def receive(self, most: int, hidden: int) -> Sequence[Any]:
        """Up to `most` messages, which may be anything, hidden from others for `hidden` seconds. Raises TargetDown or
        TargetRefused. What comes too late to be returned, or after a cancellation, is given back."""
        values = {
            "MaxNumberOfMessages": most,
            "WaitTimeSeconds": self._timing.wait,
            "VisibilityTimeout": hidden,
            "AttributeNames": ["All"],
            "MessageAttributeNames": ["All"],
        }
        return _messages(await self._call("receive_message", values, self._timing.wait, self._give_back))

    async def delete(self, receipts: Sequence[str]) -> None:
        """Raises TargetDown or TargetRefused if some of them could not be deleted."""
        reasons = await self._each(receipts, self._delete)
        if reasons:
            raise TargetRefused(f"Messages could not be deleted: {reasons[0]}")

    async def hide(self, receipts: Sequence[str], seconds: int) -> None:
        """Hide messages for so long from now on, with 0 show them at once. Those that are refused stay as they are."""
        extra = {"VisibilityTimeout": seconds}

        async def change(part: Sequence[str]) -> str:
            try:
                await self._entries("change_message_visibility_batch", part, extra)
            except (TargetDown, TargetRefused) as error:
                return str(error)
            return ""

        for reason in await self._each(receipts, change):
            _LOG.debug("Messages of %s stay as they are: %s", self._url, reason)

    async def close(self) -> None:
        """Forget calls that are not answered yet."""
        late = list(self._late)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _delete(self, part: Sequence[str]) -> str:
        """Why some of them are still there; empty if none is."""
        left, final = part, ""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                failed = await self._entries("delete_message_batch", left)
            except TargetDown as error:
                failed = {receipt: (str(error), False) for receipt in left}
            except TargetRefused as error:
                return str(error)
            final = final or next((reason for reason, is_final in failed.values() if is_final), "")
            left = [receipt for receipt, (_, is_final) in failed.items() if not is_final]
            if not left or attempt == _ATTEMPTS:
                break
            await asyncio.sleep(back_off(_FIRST_WAIT, _LONGEST_WAIT, attempt) * self._timing.scale)
        return final or (failed[left[0]][0] if left else "")

    async def _each(self, receipts: Sequence[str], work: Callable[[Sequence[str]], Any]) -> list[str]:
        """What `work` says of each call's share of the messages, where it says anything."""
        free = asyncio.Semaphore(_AT_ONCE)

        async def one(part: Sequence[str]) -> str:
            async with free:
                said: str = await work(part)
                return said

        parts = _parts(list(dict.fromkeys(receipts)), limits.QUEUE_ANSWER_MAX)
        return [said for said in await asyncio.gather(*map(one, parts)) if said]

    async def _entries(
        self, operation: str, receipts: Sequence[str], extra: Mapping[str, Any] | None = None
    ) -> dict[str, tuple[str, bool]]:
        """Which messages were not taken: why, and whether that is final. Raises TargetDown or TargetRefused."""
        entries = [
            {"Id": str(number), "ReceiptHandle": receipt, **(extra or {})} for number, receipt in enumerate(receipts)
        ]
        answer = await self._call(operation, {"Entries": entries})
        taken = {str(entry.get("Id")) for entry in _listed(answer, "Successful")}
        refused = {str(entry.get("Id")): entry for entry in _listed(answer, "Failed")}
        return {
            receipt: _refusal(refused.get(str(number)))
            for number, receipt in enumerate(receipts)
            if str(number) not in taken
        }

    async def _call(
        self,
        operation: str,
        values: Mapping[str, Any],
        wait: float = 0.0,
        late: Callable[[Any], None] | None = None,
    ) -> Mapping[str, Any]:
        """The answer, or to `late` if it comes when nobody waits any more."""
        if len(self._late) >= _LATE_MAX:
            raise TargetDown(_SILENT)
        given = {"QueueUrl": self._url, **values}
        parcel = ToService(service="sqs", operation=operation, values=given, region=self._region)
        task = asyncio.ensure_future(self._cloud.call(parcel))
        try:
            await asyncio.wait({task}, timeout=wait + self._timing.patience)
        finally:
            if not task.done():
                self._leave(task, late)
        if not task.done():
            raise TargetDown(_SILENT)
        return _answer(task)

    def _leave(self, task: "asyncio.Task[Any]", late: Callable[[Any], None] | None) -> None:
        """A thread does the work of a call, so it goes on whatever is done here."""

        def ended(task: "asyncio.Task[Any]") -> None:
            self._late.discard(task)
            if not task.cancelled() and task.exception() is None and late is not None:
                late(task.result())
            self._ended()

        self._late.add(task)
        task.add_done_callback(ended)

    def _give_back(self, answer: Any) -> None:
        try:
            messages = _messages(answer)
        except TargetDown:
            return
        if receipts := receipts_of(messages):
            self._leave(asyncio.ensure_future(self.hide(receipts, 0)), None)


def _answer(task: "asyncio.Task[Any]") -> Mapping[str, Any]:
    try:
        answer = task.result()
    except TorporError:
        raise
    except Exception as error:
        raise TargetDown(f"{type(error).__name__}: {error}") from error
    if not isinstance(answer, Mapping) or _is_unread(answer):
        raise TargetDown("Its answer cannot be read.")
    return answer


def _is_unread(answer: Mapping[str, Any]) -> bool:
    """The client library takes a body that is no JSON for an empty answer."""
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    length = headers.get("content-length", "")
    is_empty = len(answer) == 1 and length.isdecimal() and int(length) > _EMPTY_MAX
    return is_empty or headers.get("content-type", "").startswith("text/html")


def _messages(answer: Any) -> Sequence[Any]:
    messages = answer.get("Messages") or () if isinstance(answer, Mapping) else None
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes):
        raise TargetDown("Its answer has no list of messages.")
    return messages


def _listed(answer: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = answer.get(name)
    return [entry for entry in found if isinstance(entry, Mapping)] if isinstance(found, list) else []


def _refusal(entry: Mapping[str, Any] | None) -> tuple[str, bool]:
    if entry is None:
        return "Its answer does not tell what became of them.", False
    return f"{entry.get('Code')}: {entry.get('Message') or 'no reason given'}", bool(entry.get("SenderFault"))


def _parts(items: Sequence[_Item], size: int) -> list[Sequence[_Item]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
