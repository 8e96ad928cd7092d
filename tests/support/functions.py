"""Small functions as packages, made from source text."""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import dedent

from torpor.sandbox.images import DEFAULT_ROOT, ImageCatalog
from torpor.sandbox.interpreters import discover

EXECUTABLE = 0o755
_CATALOG = ImageCatalog(DEFAULT_ROOT, discover())
PYTHON = next((name for name in ("python3.12", "python3.13", "python3.11") if _CATALOG.installed(name)), "python3.12")
"""The managed Python that tests use: one that this host has."""
NODE = "nodejs20.x"
PROVIDED = "provided.al2023"

BOOT = "import os, time, uuid\nBOOT = uuid.uuid4().hex\nBOOTED = time.time()\n"
"""First lines of a Python module: an id and a time that are new whenever the module is loaded."""

_CALLS = r"""#!/bin/bash
api="/dev/tcp/${AWS_LAMBDA_RUNTIME_API/://}"
next() {
  exec 3<>"$api"
  printf 'GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n' >&3
  read -r _ status _ <&3
  while IFS= read -r line <&3; do
    line="${line%$'\r'}"
    [ -z "$line" ] && break
    case "${line,,}" in lambda-runtime-aws-request-id:*) id="${line#*: }" ;; esac
  done
  event=$(cat <&3)
  exec 3>&-
}
respond() {
  exec 3<>"$api"
  printf 'POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\r\n' "$id" >&3
  printf 'Host: api\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s' "${#1}" "$1" >&3
  cat <&3 >/dev/null
  exec 3>&-
}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A zip archive and how it is run."""

    archive: bytes
    runtime: str
    handler: str


def archive(files: Mapping[str, str | bytes], *, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive of these files, every one of them executable."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as package:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0))
            entry.external_attr = EXECUTABLE << 16
            entry.compress_type = compression
            package.writestr(entry, content)
    return buffer.getvalue()


def python(source: str, *, runtime: str = PYTHON) -> Package:
    """A Python function: `source` defines `handler(event, context)` and finds `BOOT` and `BOOTED` defined."""
    return Package(archive=archive({"app.py": BOOT + dedent(source)}), runtime=runtime, handler="app.handler")


def node(source: str, *, runtime: str = NODE) -> Package:
    """A Node.js function: `source` is an ES module that exports `handler`."""
    return Package(archive=archive({"index.mjs": dedent(source)}), runtime=runtime, handler="index.handler")


def shell(source: str) -> Package:
    """A `bootstrap` in Bash: `next` sets `status`, `id` and `event`, and `respond TEXT` posts the answer."""
    return Package(archive=archive({"bootstrap": _CALLS + dedent(source)}), runtime=PROVIDED, handler="unused")
