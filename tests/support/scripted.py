"""Runtimes and extensions that follow a script, run unmodified by any platform; what they were answered, comparable.

A script is a Python program that finds the functions of `_CALLS` defined. Each call it makes is one line of its output:
who called, what the script calls it, and the answer.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from textwrap import dedent

TOLD = "ANSWER "
_CALLS = r"""#!/var/lang/bin/python3 -SE
# Only what starts fast: these programs are started a hundred times.
import _socket, os, sys, threading, time
HOST, PORT = os.environ["AWS_LAMBDA_RUNTIME_API"].split(":")
WHO = os.path.basename(sys.argv[0])
RUNTIME, EXTENSION = "/2018-06-01/runtime/", "/2020-01-01/extension/"
PATIENCE = 10
OPEN = []

class Answer:
    def __init__(self, status=0, headers={}, body=""):
        self.status, self.headers, self.body = status, dict(headers), body
    id = property(lambda self: self.headers.get("lambda-runtime-aws-request-id", "none"))
    identifier = property(lambda self: self.headers.get("lambda-extension-identifier", "none"))

def tell(what, answer):
    line = repr((WHO, what, answer.status, answer.headers, answer.body))
    getattr(threading.current_thread(), "later", say)(line)
    return answer

def say(line):
    os.write(1, f"ANSWER {line}\n".encode())

class Beside(threading.Thread):
    # What runs beside the script. That their order be the same in every run, its answers are told when it is joined.
    def __init__(self, work, arguments):
        super().__init__(target=work, args=arguments, daemon=True)
        self.lines = []
        self.later = self.lines.append

    def join(self):
        super().join(PATIENCE)
        for line in self.lines:
            say(line)

def beside(work, *arguments):
    thread = Beside(work, arguments)
    thread.start()
    return thread

def signal_that(name):
    open(f"/tmp/{name}", "w").close()

def wait_until(name):
    end = time.monotonic() + PATIENCE
    while not os.path.exists(f"/tmp/{name}") and time.monotonic() < end:
        time.sleep(0.01)

def sent(method, path, headers, body):
    api = _socket.socket()
    api.settimeout(PATIENCE)
    api.connect((HOST, int(PORT)))
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = [f"{method} {path} HTTP/1.1", f"Host: {HOST}", *lines]
    api.sendall(("\r\n".join(head) + "\r\n\r\n" + body).encode())
    return api

def received(api):
    got = b""
    while b"\r\n\r\n" not in got:
        got += more(api)
    head, _, body = got.decode("latin-1").partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    while len(body) < int(headers["content-length"]):
        body += more(api).decode("latin-1")
    return Answer(int(first.split()[1]), headers, body)

def more(api):
    piece = api.recv(65536)
    if not piece:
        raise ConnectionError("broken off")
    return piece

def call(what, method, path, body, headers):
    try:
        api = sent(method, path, {"Content-Length": len(body)} | headers, body)
        # A worker has the connection over which it got an event for as long as it works.
        OPEN.append(api)
        return tell(what, received(api))
    except OSError as error:
        return tell(what, Answer(body=type(error).__name__))

def get(what, path, **headers):
    return call(what, "GET", path, "", headers)

def post(what, path, body="", **headers):
    return call(what, "POST", path, body, headers)

def ask(what="next"):
    return get(what, RUNTIME + "invocation/next")

def respond(event, body="{}", what="response", **headers):
    return post(what, f"{RUNTIME}invocation/{event.id}/response", body, **headers)

def fail(event, body="{}", what="error", **headers):
    return post(what, f"{RUNTIME}invocation/{event.id}/error", body, **headers)

def stream(event, pieces, end="0\r\n\r\n", what="streaming", **headers):
    # A streamed answer: its pieces, and `end` behind them, with or without trailers; without an end it breaks off.
    named = {"Transfer-Encoding": "chunked", "Lambda-Runtime-Function-Response-Mode": "streaming"} | headers
    api = sent("POST", f"{RUNTIME}invocation/{event.id}/response", named, "")
    for piece in pieces:
        api.sendall(f"{len(piece):x}\r\n{piece}\r\n".encode())
    if end is None:
        api.close()
        return None
    api.sendall(end.encode())
    return tell(what, received(api))

def register(what="register", name=WHO, body='{"events":["INVOKE","SHUTDOWN"]}', **headers):
    named = headers if name is None else headers | {"Lambda_Extension_Name": name}
    return post(what, EXTENSION + "register", body, **named)

def identified(me):
    return {} if me is None else {"Lambda_Extension_Identifier": me if isinstance(me, str) else me.identifier}

def event_next(me, what="event"):
    return get(what, EXTENSION + "event/next", **identified(me))

def error(me, kind, what, body="", **headers):
    return post(what, f"{EXTENSION}{kind}/error", body, **identified(me), **headers)
"""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Scripts and the invocations that they are run by, one after the other."""

    runtime: str
    """Source; empty for a function without a bootstrap."""
    extensions: Mapping[str, str] = field(default_factory=dict)
    """Sources of external extensions by name; one that begins with `#!` is taken as it is."""
    invocations: int = 1
    timeout: int = 3
    """Of the function, in seconds."""
    workers: int = 0
    """How many invocations one environment of a managed instance takes at once; 0 for a standard environment."""

    @property
    def is_scripted(self) -> bool:
        """Does its runtime do anything? If not, it is a bootstrap that cannot be started, or none."""
        return bool(self.runtime) and not self.runtime.startswith("#!")

    @property
    def package(self) -> dict[str, str]:
        return {"bootstrap": program(self.runtime)} if self.runtime else {"app.py": ""}

    @property
    def layer(self) -> dict[str, str]:
        return {f"extensions/{name}": program(source) for name, source in self.extensions.items()}


@dataclass(frozen=True, slots=True)
class Told:
    """One answer."""

    status: int
    headers: Mapping[str, str]
    body: str

    def fields(self) -> dict[str, str]:
        """All that is compared, by what it is called."""
        return {"status": str(self.status), "body": self.body, **self.headers}


Answers = Mapping[str, Told]
"""By who was answered and what."""


def program(source: str) -> str:
    """The text of an executable."""
    return source if source.startswith("#!") else _CALLS + dedent(source)


def script(*parts: str) -> str:
    """Sources one after the other."""
    return "".join(map(dedent, parts))


_HEADERS = re.compile(r"(?i)content-type|allow|lambda-.*|x-amz-function-error")
"""Those that say something about the call; the others are the HTTP server's own."""
_ATTEMPT = "Lambda-Runtime-Invocation-Id"
_MEASURED = re.compile(
    r"(?P<arn>arn:aws:lambda:[\w-]+:\d+:function:[^\s\"]+)"
    r"|(?P<id>[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
    r"|(?P<trace>Root=1-[^\"\s]+)"
    r"|(?P<ms>\b\d{13}\b)"
)


def answers(lines: Iterable[str], callers: Iterable[Told], function: str) -> Answers:
    """The answers in a platform's output and those to the callers; what differs from run to run is named instead."""
    found: dict[str, Told] = {}
    for told in callers:
        found[_unused("caller", found)] = _named(told, function, {})
    numbers: dict[str, dict[str, str]] = {}
    for line in lines:
        if line.startswith(TOLD):
            who, what, status, headers, body = ast.literal_eval(line[len(TOLD) :])
            told = _named(Told(status, headers, body), function, numbers.setdefault(who, {}))
            found[_unused(f"{who}: {what}", found)] = told
    return found


def _unused(key: str, taken: Mapping[str, object]) -> str:
    return next(name for name in _numbered(key) if name not in taken)


def _numbered(key: str) -> Iterator[str]:
    yield key
    count = 1
    while True:
        count += 1
        yield f"{key} ({count})"


def _named(told: Told, function: str, ids: dict[str, str]) -> Told:
    def name(found: re.Match[str]) -> str:
        if found["id"]:
            return ids.setdefault(found["id"], f"<id {len(ids) + 1}>")
        return f"<{found.lastgroup}>"

    def clear(text: str) -> str:
        return _MEASURED.sub(name, text).replace(function, "<function>")

    headers = {key.title(): value for key, value in sorted(told.headers.items()) if _HEADERS.fullmatch(key)}
    headers = {key: "<attempt>" if key == _ATTEMPT else clear(value) for key, value in headers.items()}
    return Told(told.status, headers, clear(told.body))
