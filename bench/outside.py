"""What a web service is measured beside: the same server outside of any sandbox, and nginx before it."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop
from tests.support.emulator import descendants, free_port

from bench.backends import BUILD
from bench.load import once
from torpor.sandbox.interpreters import Language, choose, discover

_WITHIN = 30.0
_NGINX = """worker_processes 1;
daemon off;
{user}
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream backend {{
        server 127.0.0.1:{backend};
        keepalive 64;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port};
        keepalive_requests 1000000000;
        location / {{
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
    }}
}}
"""
"""Every connection is kept; access log off, as Torpor writes none of requests that go well."""


def interpreter() -> str:
    """The interpreter that a service has under this version's name, on the host. LookupError without one."""
    found = choose(discover(), Language.PYTHON, 3, sys.version_info.minor)
    if found is None:
        raise LookupError("this version of Python is not among the interpreters found")
    return found.executable


def built(folder: Path) -> None:
    """Do with a server's folder what its build does."""
    subprocess.run([interpreter(), *BUILD.split()], cwd=folder, check=True, stdout=subprocess.DEVNULL)


class Outside:
    """A process that listens on a port."""

    def __init__(self, command: list[str], port: int, folder: Path) -> None:
        self.port = port
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={"PATH": "/usr/bin:/bin", "HOME": "/tmp", "PORT": str(port), "PYTHONPATH": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    async def first_answer(self, data: bytes) -> None:
        """Wait for the port, then for one answer. Raises OSError or RuntimeError if it does not come."""
        deadline = time.monotonic() + _WITHIN
        while True:
            try:
                await once(self.port, data)
                return
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise
                await asyncio.sleep(0.001)

    def workers(self) -> list[int]:
        """It and all processes below it."""
        return [self.process.pid, *descendants(self.process.pid)]

    def stop(self) -> None:
        """End it; what is below it ends with it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def started(folder: Path) -> Outside:
    """Start the server in a folder by a shell, as inside; it may not listen yet."""
    command = ["/bin/bash", "-c", f"exec {interpreter()} server.py"]
    return Outside(command, free_port(), folder)


@contextmanager
def answering(folder: Path, data: bytes) -> Iterator[Outside]:
    """The server in a folder, once it answers."""
    server = started(folder)
    try:
        uvloop.run(server.first_answer(data))
        yield server
    finally:
        server.stop()


@contextmanager
def nginx(backend: int, data: bytes) -> Iterator[Outside]:
    """nginx with one worker before a port. LookupError if there is none on this host."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        raise LookupError("nginx is not installed")
    with tempfile.TemporaryDirectory(prefix="torpor-bench-") as name:
        port, user = free_port(), "user root;" if os.geteuid() == 0 else ""
        configuration = Path(name) / "nginx.conf"
        configuration.write_text(_NGINX.format(user=user, folder=name, backend=backend, port=port), encoding="utf-8")
        server = Outside([program, "-e", "stderr", "-p", name, "-c", str(configuration)], port, Path(name))
        try:
            uvloop.run(server.first_answer(data))
            yield server
        finally:
            server.stop()
