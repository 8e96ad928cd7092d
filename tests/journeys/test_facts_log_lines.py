"""The platform's own log lines: what each invocation writes, in the new and the old style."""

import math
import re
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from tests.journeys.conftest import Deploy, MakeServer, require
from tests.support.functions import python
from tests.support.server import Function, Reply, TorporServer

from torpor.settings import LogStyle, Settings

CODE = python("""
def handler(event, context):
    print("before", flush=True)
    time.sleep(event.get("sleep", 0))
    if "exit" in event:
        os._exit(event["exit"])
    return {"boot": BOOT}
""")
MS = r"(\d+\.\d\d) ms"
REPORT = re.compile(
    r"^REPORT RequestId: (?P<id>[0-9a-f-]{36})\s+Duration: (?P<duration>\d+\.\d\d) ms\s+"
    r"Billed Duration: (?P<billed>\d+) ms\s+Memory Size: (?P<size>\d+) MB\s+Max Memory Used: (?P<used>\d+) MB\s*"
    r"(?:\tInit Duration: (?P<init>\d+\.\d\d) ms)?\s*"
    r"(?:\tStatus: (?P<status>\w+))?\s*(?:\tError Type: (?P<type>[\w.]+))?\s*$"
)
PLATFORM_WORDS = ("START", "END", "REPORT", "RequestId:", "INIT_REPORT")


@dataclass(frozen=True)
class Story:
    """What three functions did: one crashes and one times out on its first call, one goes well, fails, goes well."""

    cold_crash: Reply
    cold_clean_exit: Reply
    cold_timeout: Reply
    cold: Reply
    warm: Reply
    warm_crash: Reply
    warm_timeout: Reply
    after: Reply
    timed_out: Function

    @classmethod
    def told_by(cls, server: TorporServer, stack: ExitStack) -> "Story":
        require(server, CODE.runtime)
        crashing, leaving, sleeping, living = (
            stack.enter_context(server.deployed(CODE, Timeout=3, MemorySize=128)) for _ in range(4)
        )
        timeout, crash, leave = sleeping.start({"sleep": 10}), crashing.start({"exit": 1}), leaving.start({"exit": 0})
        cold, warm, failed, after = (living.invoke(event) for event in ({}, {}, {"exit": 1}, {}))
        late: Future[Reply] = living.start({"sleep": 10})
        return cls(
            cold_crash=crash.result(),
            cold_clean_exit=leave.result(),
            cold_timeout=timeout.result(),
            cold=cold,
            warm=warm,
            warm_crash=failed,
            warm_timeout=late.result(),
            after=after,
            timed_out=sleeping,
        )


@pytest.fixture(scope="module")
def stack(server: TorporServer, make_server: MakeServer) -> Iterator[ExitStack]:
    """Functions that live as long as the module's tests; made after the servers, so that it ends before them."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def new(server: TorporServer, stack: ExitStack) -> Story:
    """By default."""
    return Story.told_by(server, stack)


@pytest.fixture(scope="module")
def old(make_server: MakeServer, stack: ExitStack) -> Story:
    """With the old style set."""
    return Story.told_by(make_server(log_style="old"), stack)


@pytest.fixture(scope="module")
def samples(make_server: MakeServer, stack: ExitStack) -> Story:
    """With the billing rule of the samples set."""
    return Story.told_by(make_server(billing="samples"), stack)


def _report(reply: Reply) -> re.Match[str]:
    found = REPORT.match(reply.report)
    assert found, reply.report
    return found


def _platform_lines(reply: Reply) -> list[str]:
    return [line for line in reply.tail if line != "before"]


@pytest.mark.fact("L-050")
def test_invocation_writes_start_end_and_report_with_its_request_id(new: Story) -> None:
    reply = new.warm

    assert reply.tail[0] == f"START RequestId: {reply.request_id} Version: $LATEST"
    assert reply.tail[1:-2] == ["before"]
    assert reply.tail[-2] == f"END RequestId: {reply.request_id}"
    assert reply.tail[-1].startswith(f"REPORT RequestId: {reply.request_id}\t")


@pytest.mark.fact("L-051")
def test_report_has_its_fields_in_order_and_init_duration_when_cold_only(new: Story) -> None:
    cold, warm, failing = (_report(reply) for reply in (new.cold, new.warm, new.warm_crash))

    assert cold["init"] is not None
    assert warm["init"] is None
    assert failing["init"] is None
    assert [found["size"] for found in (cold, warm, failing)] == ["128"] * 3
    assert all(0 < int(found["used"]) <= 128 for found in (cold, warm, failing))
    assert [(found["status"], found["type"]) for found in (cold, warm)] == [(None, None)] * 2
    assert (failing["status"], failing["type"]) == ("error", "Runtime.ExitError")


@pytest.mark.fact("L-052", "L-054")
def test_style_is_new_by_default_and_old_when_set_and_changes_lines_only(new: Story, old: Story) -> None:
    assert Settings().log_style is LogStyle.NEW
    for story, has_status in ((new, True), (old, False)):
        crash, timeout = _report(story.warm_crash), _report(story.warm_timeout)
        assert (crash["status"], crash["type"]) == (("error", "Runtime.ExitError") if has_status else (None, None))
        assert (timeout["status"], timeout["type"]) == ("timeout" if has_status else None, None)
        assert [reply.error for reply in (story.cold, story.warm, story.after)] == [""] * 3
        assert story.cold.payload == story.warm.payload != story.after.payload
        assert [story.warm_crash.error, story.warm_timeout.error] == ["Unhandled"] * 2
        assert story.warm_crash.payload["errorType"] == "Runtime.ExitError"
        assert story.warm_timeout.payload["errorMessage"].endswith("Task timed out after 3.00 seconds")
    assert len(_platform_lines(old.warm_crash)) > len(_platform_lines(new.warm_crash)) == 3


@pytest.mark.fact("L-055")
def test_cold_crash_in_new_style_is_three_lines_with_status_and_type(new: Story) -> None:
    reply = new.cold_crash

    assert [line.split()[0] for line in _platform_lines(reply)] == ["START", "END", "REPORT"]
    assert re.search(rf"Init Duration: {MS}\s+Status: error\s+Error Type: Runtime\.ExitError\s*$", reply.report)


@pytest.mark.fact("L-056", "L-061")
def test_cold_timeout_in_new_style_is_three_lines_with_init_and_status(new: Story) -> None:
    reply = new.cold_timeout

    assert [line.split()[0] for line in _platform_lines(reply)] == ["START", "END", "REPORT"]
    assert re.search(rf"Init Duration: {MS}\s+Status: timeout\s*$", reply.report)
    assert not any("Task timed out" in line for line in new.timed_out.lines())


@pytest.mark.fact("L-057")
def test_crash_in_old_style_has_its_lines_between_start_and_end(old: Story) -> None:
    reply = old.cold_clean_exit

    assert _platform_lines(reply)[:4] == [
        f"START RequestId: {reply.request_id} Version: $LATEST",
        f"RequestId: {reply.request_id} Error: Runtime exited without providing a reason",
        "Runtime.ExitError",
        f"END RequestId: {reply.request_id}",
    ]
    assert len(_platform_lines(reply)) == 5
    assert _report(reply)["status"] is None


@pytest.mark.fact("L-058")
def test_timeout_in_old_style_has_its_line_between_start_and_end(old: Story) -> None:
    reply = old.cold_timeout
    lines = _platform_lines(reply)

    assert [lines[0].split()[0], lines[2].split()[0], lines[3].split()[0]] == ["START", "END", "REPORT"]
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.match(rf"^{stamp} {reply.request_id} Task timed out after 3\.00 seconds$", lines[1])
    assert len(lines) == 4


@pytest.mark.fact("L-059")
def test_old_style_bills_a_crash_rounded_up_and_a_timeout_at_the_timeout(old: Story) -> None:
    crash = _report(old.warm_crash)

    assert int(crash["billed"]) == math.ceil(float(crash["duration"]))
    assert [_report(reply)["billed"] for reply in (old.cold_timeout, old.warm_timeout)] == ["3000"] * 2


@pytest.mark.fact("L-060")
def test_billing_rule_of_the_samples_cuts_failures_to_whole_milliseconds_without_init(samples: Story) -> None:
    for reply in (samples.cold_crash, samples.cold_timeout, samples.warm_crash):
        found = _report(reply)
        assert int(found["billed"]) == math.floor(float(found["duration"]))
    assert _report(samples.cold_timeout)["init"] is not None


@pytest.mark.fact("L-067")
def test_log_lines_are_shown_with_iso_time_milliseconds_and_offset(deploy: Deploy) -> None:
    function = deploy(CODE)
    function.invoke()
    function.invoke({"exit": 1})

    shown = [line for line in function.server.command("logs", function.name).splitlines() if line]
    lines = [line for line in shown if any(f"{word} " in line for word in PLATFORM_WORDS)]

    assert len(lines) >= 6
    for line in lines:
        assert re.match(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d\s+[A-Z_]+ ", line), line
