"""The cloud's own emulator, without a container: how its program is come by, and how it is run and ended.

The binary ships inside the wheel of `aws-sam-cli`. Only the wheel is fetched, without what it depends on, and only the
binary is kept.
"""

import contextlib
import os
import platform
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_ROOT = Path(__file__).parents[2]
_KEPT = Path(sys.prefix) / "emulator"
_NAMES = {"x86_64": "aws-lambda-rie-x86_64", "aarch64": "aws-lambda-rie-arm64", "arm64": "aws-lambda-rie-arm64"}
_PORTS = range(20_000, 32_000)
"""Below those that Linux gives to outgoing connections."""
WHEEL = "aws-sam-cli>=1.130,<2"


def binary(given: str = "") -> Path:
    """The emulator; fetched once into the virtual environment. OSError or SubprocessError if that cannot be done."""
    if given:
        return Path(given)
    name = _NAMES.get(platform.machine(), _NAMES["x86_64"])
    kept = _KEPT / name
    if not kept.exists():
        _fetch(name, kept)
    return kept


def _fetch(name: str, kept: Path) -> None:
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-compile",
    ]
    with tempfile.TemporaryDirectory(prefix="torpor-emulator-") as folder:
        pins = ["--constraint", str(_ROOT / "requirements-ci.lock")]
        command = [*pip, *pins, "--no-deps", "--no-compile", "--target", folder, WHEEL]
        subprocess.run(command, check=True, timeout=120, stderr=subprocess.DEVNULL)
        kept.parent.mkdir(exist_ok=True)
        part = kept.with_suffix(f".{os.getpid()}")
        shutil.copyfile(Path(folder) / "samcli" / "local" / "rapid" / name, part)
        part.chmod(0o755)
        part.rename(kept)


HOUSED = Path("/var/emulator")
"""The program in its house."""
_MOVE_IN = """set -e
mount --bind "$1" "$0/var/lang"
[ -z "$2" ] || mount --bind "$2" "$0/var/runtime"
mount --rbind "$0/var" /var
mount --rbind "$0/opt" /opt
mount -t tmpfs -o mode=1777 none /tmp
cd /var/task
shift 2
exec "$@"
"""


def house(folder: Path, program: Path, files: Mapping[str, str], *, lang: str, client: str = "") -> list[str]:
    """Lay out in a folder what the emulator takes from fixed places: itself, executables by their paths below `/`, the
    prefix of an interpreter and its runtime client. Returns the command by which `HOUSED` is started to find them
    there, and a `/tmp` of its own; they are mounts in a namespace that ends with it."""
    for place in ("var/task", "var/lang", "var/runtime", "opt/extensions"):
        (folder / place).mkdir(parents=True)
    shutil.copy(program, folder / HOUSED.relative_to("/"))
    for name, content in files.items():
        (folder / name).write_text(content)
        (folder / name).chmod(0o755)
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", *user, "--mount", "/bin/sh", "-c", _MOVE_IN, str(folder), lang, client]


class EmulatorProcess:
    """One emulator process with what it starts. `before` is what its program is started by, `after` starts the
    runtime; `output` gets what they all write."""

    def __init__(
        self,
        program: Path,
        after: Sequence[str],
        environment: Mapping[str, str],
        *,
        folder: Path,
        before: Sequence[str] = (),
        output: int | IO[bytes] = subprocess.DEVNULL,
    ) -> None:
        self.port = free_port()
        addresses = [
            *("--runtime-interface-emulator-address", f"127.0.0.1:{self.port}"),
            *("--runtime-api-address", f"127.0.0.1:{free_port()}"),
        ]
        self.process = subprocess.Popen(
            [*before, str(program), *addresses, *after],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def listens(self) -> bool:
        """Does it take invocations?"""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        """End the emulator and all it started."""
        for pid in [self.process.pid, *descendants(self.process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def descendants(pid: int) -> list[int]:
    """All processes below a process."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def free_port() -> int:
    """A TCP port that nobody has now, and that no outgoing connection gets meanwhile."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def main() -> int:
    """Fetch it ahead of the tests, which skip where it cannot be had."""
    try:
        binary()
    except (OSError, subprocess.SubprocessError) as error:
        print(f"The emulator cannot be had, so tests beside it will be skipped: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
