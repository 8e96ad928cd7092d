"""What a freeze does to what still runs, and what it leaves alone: one pause of ten seconds, several functions."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from tests.journeys.conftest import require, require_sandbox
from tests.support.functions import Package, node, python
from tests.support.server import Function, Reply, TorporServer

PAUSE = 10.0
TICKING = python("""
import threading

def tick():
    while True:
        with open("/tmp/ticks", "a") as file:
            file.write(f"{time.time()}\\n")
        time.sleep(0.05)

def handler(event, context):
    if not os.path.exists("/tmp/ticks"):
        threading.Thread(target=tick, daemon=True).start()
    time.sleep(0.3)
    with open("/tmp/ticks") as file:
        return [float(line) for line in file.read().splitlines()]
""")
CHILD = python("""
import subprocess, sys

WORK = '''
import time
for _ in range(40):
    time.sleep(0.05)
open("/tmp/done", "w").close()
'''

def handler(event, context):
    found = os.path.exists("/tmp/done")
    if not event:
        subprocess.Popen([sys.executable, "-c", WORK], start_new_session=True)
    time.sleep(event.get("sleep", 0))
    return {"found": found, "after": os.path.exists("/tmp/done")}
""")
TIMER = node("""
const fired = [];
export const handler = async (event) => {
  if (event.arm) setTimeout(() => fired.push(Date.now() / 1000), 500);
  else await new Promise((done) => setTimeout(done, 700));
  return { fired };
};
""")
STATE = python("""
counter = 0
def handler(event, context):
    global counter
    counter += 1
    time.sleep(event.get("hold", 0))
    hit = os.path.exists("/tmp/cache")
    open("/tmp/cache", "w").close()
    return {"boot": BOOT, "counter": counter, "cache": "hit" if hit else "miss"}
""")


@dataclass(frozen=True, kw_only=True)
class Paused:
    """A function that was invoked before and after the pause, and when it certainly was frozen in between."""

    function: Function
    before: Reply
    frozen_from: float
    frozen_to: float
    after: Reply


CASES = {
    "ticking": (TICKING, {}, {}),
    "child": (CHILD, {}, {"sleep": 0.1}),
    "timer": (TIMER, {"arm": True}, {}),
    "state": (STATE, {}, {}),
}


@pytest.fixture(scope="module")
def paused(server: TorporServer) -> Iterator[dict[str, Paused]]:
    """Every case, all of them in the same pause; those whose interpreter the host lacks are left out."""
    require_sandbox(server)
    with ExitStack() as stack, ThreadPoolExecutor(len(CASES)) as threads:
        functions = {
            name: stack.enter_context(server.deployed(package))
            for name, (package, _, _) in CASES.items()
            if package.runtime in server.runtimes
        }
        yield dict(zip(functions, threads.map(_pause, functions.values(), functions), strict=True))


def _pause(function: Function, name: str) -> Paused:
    _, first, second = CASES[name]
    before = function.invoke(first)
    frozen_from = function.wait_until_frozen()
    time.sleep(PAUSE)
    frozen_to = time.time()
    after = function.invoke(second)
    return Paused(function=function, before=before, frozen_from=frozen_from, frozen_to=frozen_to, after=after)


def _case(paused: dict[str, Paused], server: TorporServer, name: str) -> Paused:
    package: Package = CASES[name][0]
    require(server, package.runtime)
    return paused[name]


@pytest.mark.fact("L-013")
@pytest.mark.privileged
def test_thread_of_a_function_gets_no_time_between_invocations(paused: dict[str, Paused], server: TorporServer) -> None:
    case = _case(paused, server, "ticking")
    ticks = case.after.payload

    assert [tick for tick in ticks if case.frozen_from < tick < case.frozen_to] == []
    assert len([tick for tick in ticks if tick <= case.frozen_from]) >= 3
    assert len([tick for tick in ticks if tick >= case.frozen_to]) >= 3


@pytest.mark.fact("L-074")
@pytest.mark.privileged
def test_objects_outside_the_handler_stay_initialised(paused: dict[str, Paused], server: TorporServer) -> None:
    case = _case(paused, server, "state")

    assert case.before.payload["boot"] == case.after.payload["boot"]
    assert [case.before.payload["counter"], case.after.payload["counter"]] == [1, 2]


@pytest.mark.fact("L-079")
@pytest.mark.privileged
def test_tmp_is_a_cache_for_the_invocations_of_one_environment(paused: dict[str, Paused], server: TorporServer) -> None:
    case = _case(paused, server, "state")
    held = [case.function.start({"hold": 1}) for _ in range(2)]

    replies = sorted((future.result().payload for future in held), key=lambda payload: payload["cache"])

    assert [case.before.payload["cache"], case.after.payload["cache"]] == ["miss", "hit"]
    assert [reply["cache"] for reply in replies] == ["hit", "miss"]
    assert replies[0]["boot"] == case.before.payload["boot"] != replies[1]["boot"]


@pytest.mark.fact("L-080")
@pytest.mark.privileged
def test_unfinished_child_process_goes_on_when_the_environment_is_used_again(
    paused: dict[str, Paused], server: TorporServer
) -> None:
    case = _case(paused, server, "child")

    assert case.after.payload == {"found": False, "after": False}
    assert case.function.invoke({"sleep": 4}).payload == {"found": False, "after": True}


@pytest.mark.fact("L-081")
@pytest.mark.privileged
def test_pending_callback_fires_in_the_next_invocation(paused: dict[str, Paused], server: TorporServer) -> None:
    case = _case(paused, server, "timer")
    seen = case.after.payload

    assert case.before.payload["fired"] == []
    assert len(seen["fired"]) == 1
    assert case.after.sent <= seen["fired"][0] <= case.after.received
