"""Random histories of the functions service against a model, with restarts in between."""

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.functions_bench import ARCHIVES, Bench, new

from torpor.model.errors import TorporError
from torpor.service.functions import Functions
from torpor.store.metadata import SqlMetadataStore

NAMES = st.sampled_from(["a", "b", "c"])
NUMBERS = st.integers(0, 2)
STEPS = st.one_of(
    st.tuples(st.just("create"), NAMES, NUMBERS),
    st.tuples(st.just("code"), NAMES, NUMBERS),
    st.tuples(st.just("memory"), NAMES, st.integers(128, 512)),
    st.tuples(st.just("environment"), NAMES, st.dictionaries(st.text(max_size=3).filter(str.isascii), st.just("v"))),
    st.tuples(st.just("delete"), NAMES, st.none()),
    st.tuples(st.just("tag"), NAMES, st.dictionaries(st.sampled_from("xyz"), st.sampled_from("12"), min_size=1)),
    st.tuples(st.just("untag"), NAMES, st.lists(st.sampled_from("xyz"))),
    st.tuples(st.just("reserve"), NAMES, st.none() | st.integers(-1, 950)),
    st.tuples(st.just("sweep"), NAMES, st.none()),
    st.tuples(st.just("restart"), NAMES, st.none()),
)


class Model:
    """What the service should hold, as plain dictionaries."""

    def __init__(self) -> None:
        self.functions: dict[str, dict[str, Any]] = {}

    def step(self, action: str, name: str, value: Any) -> bool:
        """Whether it succeeds."""
        if action in ("sweep", "restart"):
            return True
        if (name in self.functions) == (action == "create"):
            return False
        if action == "create":
            self.functions[name] = {"code": value, "memory": 128, "environment": {}, "tags": {"team": "blue"}}
            self.functions[name]["reserve"] = None
            return True
        return self._change(action, name, value)

    def _change(self, action: str, name: str, value: Any) -> bool:
        function = self.functions[name]
        if action == "delete":
            del self.functions[name]
        elif action == "tag":
            function["tags"] = {**function["tags"], **value}
        elif action == "untag":
            function["tags"] = {key: kept for key, kept in function["tags"].items() if key not in value}
        elif action == "reserve" and not self._may_reserve(function, value or 0):
            return False
        else:
            function[action] = value
        return True

    def _may_reserve(self, function: dict[str, Any], asked: int) -> bool:
        had = function["reserve"] or 0
        rest = sum(other["reserve"] or 0 for other in self.functions.values()) - had
        return asked >= 0 and (asked <= had or rest + asked <= 900)


async def perform(functions: Functions, action: str, name: str, value: Any) -> bool:
    calls: dict[str, Callable[[], object]] = {
        "memory": lambda: functions.update_configuration(name, {"memory_mb": value}),
        "environment": lambda: functions.update_configuration(name, {"environment": value}),
        "delete": lambda: functions.delete(name),
        "tag": lambda: functions.tag(name, value),
        "untag": lambda: functions.untag(name, value),
        "reserve": lambda: functions.reserve(name, value),
    }
    try:
        if action == "create":
            await functions.create(new(name), ARCHIVES[value])
        elif action == "code":
            await functions.update_code(name, ARCHIVES[value])
        elif action == "sweep":
            await functions.sweep_code()
        else:
            calls[action]()
    except TorporError:
        return False
    return True


async def state(functions: Functions) -> dict[str, dict[str, Any]]:
    found = {}
    for name in functions.names():
        record = functions.get(name)
        version = record.latest.version
        found[name] = {
            "code": ARCHIVES.index(await functions.archive_of(name)),
            "memory": version.memory_mb,
            "environment": version.environment,
            "tags": record.tags,
            "reserve": record.reserved_concurrency,
        }
    return found


async def compare(folder: Path, steps: list[tuple[str, str, Any]]) -> None:
    bench, model = Bench(folder=folder / "code", metadata=SqlMetadataStore(f"{folder}/torpor.db")), Model()
    functions = bench.service()
    for action, name, value in [*steps, ("restart", "", None)]:
        expected = model.step(action, name, value)
        if action == "restart":
            bench.metadata.close()
            bench.metadata = SqlMetadataStore(f"{folder}/torpor.db")
            before, functions = functions, bench.service()
            assert [functions.get(name) for name in functions.names()] == [before.get(name) for name in before.names()]
        else:
            assert await perform(functions, action, name, value) == expected, (action, name, value)
        assert await state(functions) == model.functions
    bench.metadata.close()


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(STEPS, max_size=25))
def test_any_history_with_restarts_ends_as_the_model_says(steps: list[tuple[str, str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(compare(Path(folder), steps))
