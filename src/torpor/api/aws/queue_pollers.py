"""The pollers of all event source mappings (9.11)."""

import asyncio
from collections.abc import Mapping
from typing import Any

from torpor.api.aws.queue_client import Cloud, Timing
from torpor.api.aws.queue_mapping import QueueMapping
from torpor.api.aws.queue_runs import BatchRuns, RunParts
from torpor.contracts.lambda_ import event_source


class QueuePollers:
    """`Sources` that are queues. One event loop's thread."""

    def __init__(self, parts: RunParts, cloud: Cloud, timing: Timing | None = None) -> None:
        self._runs = BatchRuns(parts)
        self._clock = parts.clock
        self._cloud = cloud
        self._timing = timing or Timing()
        self._mappings: dict[str, QueueMapping] = {}
        self._leaving: set[QueueMapping] = set()
        self._is_closed = False

    def start(self, document: Mapping[str, Any], /) -> None:
        """See `Sources`."""
        if self._is_closed:
            return
        mapping = QueueMapping(document, self._cloud, self._runs, self._clock, self._timing)
        self._mappings[document["UUID"]] = mapping
        mapping.begin()

    def update(self, document: Mapping[str, Any], /) -> None:
        """See `Sources`."""
        mapping = self._mappings.get(document["UUID"])
        if mapping is not None and not self._is_closed:
            mapping.change(document)

    def stop(self, document: Mapping[str, Any], /) -> None:
        """See `Sources`. A batch that runs goes on to its end, and its messages are deleted."""
        mapping = self._mappings.pop(document["UUID"], None)
        if mapping is not None:
            self._leaving.add(mapping)
            mapping.end(lambda: self._leaving.discard(mapping))

    def state(self, uuid: str, /) -> tuple[str, str]:
        """See `Sources`."""
        mapping = self._mappings.get(uuid)
        return mapping.state() if mapping is not None else (event_source.CREATING, "")

    async def close(self, timeout: float) -> None:
        """Receive nothing any more, and wait so many seconds for batches that run; then give them up. Their messages,
        and those of which the queue had no time to tell, are shown again by the queue's own time."""
        self._is_closed = True
        for mapping in self._mappings.values():
            mapping.rest()
        await asyncio.gather(*(each.close(timeout) for each in (*self._mappings.values(), *self._leaving)))
