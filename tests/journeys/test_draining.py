"""A server that was told to stop: what runs may finish, and whoever balances load is told to go elsewhere."""

import signal
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.support.functions import python
from tests.support.lives import lives
from tests.support.server import ROLE, Function, TorporServer, eventually


def _health(server: TorporServer) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"{server.url}/_torpor/health", timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_a_server_that_ends_is_not_healthy_and_finishes_what_runs(tmp_path: Path) -> None:
    package = python("def handler(event, context): time.sleep(2); return 'finished'")
    with lives(tmp_path) as several:
        server = several.start()
        code: dict[str, Any] = {"Code": {"ZipFile": package.archive}}
        server.client.create_function(
            FunctionName="slow", Role=ROLE, Runtime=package.runtime, Handler=package.handler, **code
        )
        function = Function(server, "slow")
        assert _health(server)[0] == 200
        running = function.start()
        eventually(lambda: [one for one in function.environments() if one["phase"] == "serving"], what="the call")
        server.process.send_signal(signal.SIGTERM)

        eventually(lambda: _health(server)[0] == 503, what="the server draining")
        assert b'"draining"' in _health(server)[1]
        assert running.result().payload == "finished"
        assert several.terminate(server) == 0
