"""AWS_LAMBDA_EXEC_WRAPPER: a program that managed runtimes are started by."""

import pytest
from tests.journeys.conftest import Deploy, require
from tests.support.functions import BOOT, NODE, Package, archive
from tests.support.server import TorporServer

WRAPPER = '#!/bin/bash\nexport WRAPPED="${1##*/}"\nexec "$@"\n'
PYTHON_CODE = BOOT + "import os\ndef handler(event, context):\n    return os.environ.get('WRAPPED')\n"
NODE_CODE = "export const handler = async () => process.env.WRAPPED ?? null;\n"


def package(files: dict[str, str | bytes], runtime: str = "python3.12") -> Package:
    handler = "index.handler" if runtime.startswith("nodejs") else "app.handler"
    return Package(archive=archive(files), runtime=runtime, handler=handler)


def by(path: str) -> dict[str, object]:
    return {"Environment": {"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": path}}}


@pytest.mark.parametrize(("runtime", "program"), [("python3.12", "python"), (NODE, "node")])
def test_wrapper_gets_the_runtimes_command_and_starts_it(
    deploy: Deploy, server: TorporServer, runtime: str, program: str
) -> None:
    require(server, runtime)
    files: dict[str, str | bytes] = {"wrapper": WRAPPER, "app.py": PYTHON_CODE, "index.mjs": NODE_CODE}
    function = deploy(package(files, runtime), **by("/var/task/wrapper"))
    told = function.invoke()
    assert not told.error, told.payload
    assert told.payload.startswith(program)


@pytest.mark.parametrize("path", ["/var/task/none", "/var/task/app.py/none"])
def test_missing_wrapper_ends_the_runtime_with_127(deploy: Deploy, path: str) -> None:
    function = deploy(package({"app.py": PYTHON_CODE}), **by(path))
    reply = function.invoke()
    assert reply.error == "Unhandled"
    assert reply.payload["errorType"] == "Runtime.ExitError"
    assert reply.payload["errorMessage"] == (
        f"RequestId: {reply.request_id} Error: Runtime exited with error: exit status 127"
    )


def test_wrapper_that_fails_is_the_runtimes_exit(deploy: Deploy) -> None:
    function = deploy(package({"app.py": PYTHON_CODE, "wrapper": "#!/bin/bash\nexit 5\n"}), **by("/var/task/wrapper"))
    reply = function.invoke()
    assert reply.payload["errorMessage"].endswith("Runtime exited with error: exit status 5")
