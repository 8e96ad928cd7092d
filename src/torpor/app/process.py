"""The server as a process: signals, limits of the host, the garbage collector."""

import asyncio
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

from torpor import __version__, is_compiled
from torpor.settings import Settings

log = logging.getLogger("torpor")
_FILES_WANTED = 20_000
_YOUNG_OBJECTS = 10_000


def serve(settings: Settings, tell: Callable[[str], None] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. Raises PlatformError if the server cannot start."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(message)s")
    code: int = runner()(_serve(settings, tell or _announce))
    return code


def runner() -> Callable[..., Any]:
    try:
        import uvloop
    except ImportError:
        return asyncio.run
    return uvloop.run


async def _serve(settings: Settings, tell: Callable[[str], None]) -> int:
    from torpor.app.server import Server

    server = Server(settings)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if stopping.is_set():
            server.hurry()
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    _raise_file_limit()
    _set_niceness(settings.niceness)
    try:
        await server.start()
    except BaseException:
        await server.abandon()
        raise
    _spare_the_collector()
    runtimes = " ".join(name for name in server.images.present() if not name.startswith("provided"))
    tell(
        f"Torpor {__version__}{' (compiled)' if is_compiled() else ''} serves {server.url} "
        f"(isolation: {server.provider.isolation}; {runtimes or 'provided runtimes only'})"
    )
    await stopping.wait()
    if running := server.pool.statistics().running:
        seconds = f"{settings.drain_timeout:.0f} s"
        tell(f"Waiting {seconds} at most for {running} running invocations; Ctrl-C again ends them now.")
    await server.stop()
    return 0


def _raise_file_limit() -> None:
    """Each environment takes about twenty descriptors of the server's; functions have a limit of their own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < _FILES_WANTED:
        log.warning("Only %d files may be open here: that is about %d environments at once.", hard, hard // 20)


def _set_niceness(wanted: int) -> None:
    """Functions that use every CPU must not hold up the answers of others. Nothing the server starts inherits it."""
    try:
        if wanted < 0:
            os.setpriority(os.PRIO_PROCESS, 0, wanted)
        if os.getpriority(os.PRIO_PROCESS, 0) < 0:
            os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
    except OSError as error:
        log.warning("The server goes on without a niceness of %d: %s.", wanted, error.strerror)


def _spare_the_collector() -> None:
    """What start-up has made stays for good: looking through it again and again for garbage makes some requests wait
    tens of milliseconds. Requests themselves leave next to no cycles, so that collections may be rare."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 20, 50)


def _announce(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
