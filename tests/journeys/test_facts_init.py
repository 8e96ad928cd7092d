"""Init: its limit, its second try inside the first invocation, and what its failures write."""

import re

import pytest
from tests.journeys.conftest import Deploy, MakeServer
from tests.support.functions import python
from tests.support.server import TorporServer

from torpor.settings import Settings

SCALE = 5
"""The fast tests run the limit of ten seconds at a fifth."""
INIT_TIMEOUT = re.compile(r"^INIT_REPORT Init Duration: (\d+\.\d\d) ms\s+Phase: init\s+Status: timeout\s*$")
INIT_ERROR = re.compile(
    r"^INIT_REPORT Init Duration: \d+\.\d\d ms\s+Phase: init\s+Status: error\s+Error Type: Runtime\.ExitError\s*$"
)
SLOW_MODULE = """
with open("/tmp/inits", "a") as file:
    file.write("init\\n")
print("module begins", flush=True)
time.sleep(float(os.environ["LOADING"]))

def handler(event, context):
    with open("/tmp/inits") as file:
        return file.read().split()
"""


def _environment(seconds: float) -> dict[str, dict[str, str]]:
    return {"Variables": {"LOADING": str(seconds)}}


def _slow_init_is_tried_again(deploy: Deploy, server: TorporServer, limit: float) -> None:
    """Two functions load for 1.2 times the limit: one with a timeout above that, one with half the limit."""
    loading, hasty_timeout = _environment(limit * 1.2), round(limit / 2)
    patient = deploy(python(SLOW_MODULE), on=server, Environment=loading, Timeout=30)
    hasty = deploy(python(SLOW_MODULE), on=server, Environment=loading, Timeout=hasty_timeout)

    failing, succeeding = hasty.start(), patient.start()

    reply = succeeding.result()
    assert (reply.error, reply.payload) == ("", ["init", "init"])
    assert limit * 2.2 <= reply.elapsed < limit * 2.2 + 2
    durations = [match for line in patient.lines() if (match := INIT_TIMEOUT.match(line))]
    assert len(durations) == 1
    assert limit * 1000 <= float(durations[0][1]) < limit * 1000 + 500
    failed = failing.result()
    assert failed.error == "Unhandled"
    assert failed.payload["errorMessage"].endswith(f"Task timed out after {hasty_timeout:.2f} seconds")
    assert limit + hasty_timeout <= failed.elapsed < limit * 2.2


@pytest.mark.fact("L-020", "L-022", "L-023", "L-031")
@pytest.mark.privileged
def test_init_over_its_limit_is_tried_again_inside_the_first_invocation(
    deploy: Deploy, make_server: MakeServer
) -> None:
    assert Settings().init_limit == 10.0
    limit = Settings().init_limit / SCALE
    _slow_init_is_tried_again(deploy, make_server(init_limit=limit), limit)


@pytest.mark.slow
@pytest.mark.fact("L-020", "L-022", "L-023", "L-031")
@pytest.mark.privileged
def test_init_over_ten_seconds_is_tried_again_inside_the_first_invocation(deploy: Deploy, server: TorporServer) -> None:
    _slow_init_is_tried_again(deploy, server, 10.0)


@pytest.mark.fact("L-020")
@pytest.mark.privileged
def test_init_within_its_limit_is_not_cut(deploy: Deploy, make_server: MakeServer) -> None:
    function = deploy(python(SLOW_MODULE), on=make_server(init_limit=2), Environment=_environment(1.0), Timeout=1)

    reply = function.invoke()

    assert (reply.error, reply.payload) == ("", ["init"])
    assert float(reply.report.partition("Init Duration: ")[2].split()[0]) >= 1000


@pytest.mark.fact("L-030")
def test_crash_in_init_writes_its_error_into_the_init_report(deploy: Deploy) -> None:
    function = deploy(python("os._exit(3)"), Timeout=5)

    reply = function.invoke()

    assert sum(bool(INIT_ERROR.match(line)) for line in function.lines()) == 1
    assert reply.error == "Unhandled"
    assert reply.payload["errorType"] == "Runtime.ExitError"


@pytest.mark.fact("L-033")
def test_successful_init_writes_no_init_report(deploy: Deploy) -> None:
    function = deploy(python("def handler(event, context): pass"))

    function.invoke()

    words = [line.split()[0] for line in function.lines()]
    assert [word for word in words if word in ("START", "END", "REPORT")] == ["START", "END", "REPORT"]
    assert "INIT_REPORT" not in words
