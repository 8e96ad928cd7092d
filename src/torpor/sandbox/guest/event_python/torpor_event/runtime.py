"""The server of an event function: loads its module, then opens the port and calls its handler and hooks as asked."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
from typing import Any, NamedTuple, NoReturn

from . import context, failures, handlers, log, wire

_USUAL_PORT = 9000
_TERMINATED = 128 + signal.SIGTERM


class _Call(NamedTuple):
    """One kind of request: its name in the log, where the handler's name is told, and what a failure is called."""

    name: str
    header: str
    variables: tuple[str, ...]
    failure: str


_INVOKE = _Call("Invoke", "x-fc-function-handler", ("FC_FUNCTION_HANDLER", "FC_HANDLER"), "UnhandledInvocationError")
_INITIALIZE = _Call("Initialize", "x-fc-function-initializer", ("FC_INITIALIZER_HANDLER",), "InitializationError")
_HOOK = "x-fc-instance-lifecycle-{}-handler"
_CALLS = {
    ("POST", "/invoke"): _INVOKE,
    ("POST", "/initialize"): _INITIALIZE,
    ("GET", "/pre-freeze"): _Call("PreFreeze", _HOOK.format("pre-freeze"), (), "UnhandledInvocationError"),
    ("GET", "/pre-stop"): _Call("PreStop", _HOOK.format("pre-stop"), (), "UnhandledInvocationError"),
}

_running = False


def code_folder() -> str:
    """Where the function's code is."""
    return os.environ.get("FC_FUNC_CODE_PATH", "/code").rstrip("/") or "/"


def serve(handler: str) -> None:
    """Load the code, then answer requests for ever. `handler` is used if no variable names one. Raises OSError."""
    log.prepare()
    signal.signal(signal.SIGTERM, _terminated)
    if handler:
        os.environ.setdefault(_INVOKE.variables[0], handler)
    for call in (_INVOKE, _INITIALIZE):
        _load_early(call)
    log.flush()
    port = int(os.environ.get("FC_SERVER_PORT") or _USUAL_PORT)
    wire.serve(wire.listen(port), _answer)


def _load_early(call: _Call) -> None:
    """Run the code outside the handler. Its failure is the answer to every request there will be."""
    name = _handler_name(call, {})
    if name:
        try:
            handlers.find(name)
        except Exception:
            return


def _handler_name(call: _Call, headers: context.Headers) -> str:
    named = (os.environ.get(variable) for variable in call.variables)
    return next(filter(None, named), None) or headers.get(call.header, "")


def _answer(request: wire.Request) -> wire.Answer:
    global _running
    call = _CALLS.get((request.method, request.path))
    if call is None:
        return _failure("PathNotSupported", b'{"errorMessage":"Not a path of event functions"}')
    log.start(call.name, request.headers.get("x-fc-request-id", ""))
    _running = True
    error = None
    try:
        result = _call(call, request)
    except SystemExit:
        log.end(call.name, failed=True)
        raise
    except BaseException as raised:
        error = raised
        failures.show(error)
    _running = False
    log.end(call.name, failed=error is not None)
    return wire.Answer(200, result, _OK) if error is None else _failure(call.failure, failures.body(error))


_OK = {"Content-Type": "application/octet-stream", "x-fc-status": "200"}


def _failure(kind: str, body: bytes) -> wire.Answer:
    return wire.Answer(404, body, {"Content-Type": "application/json", "x-fc-status": "404", "x-fc-error-type": kind})


def _call(call: _Call, request: wire.Request) -> bytes:
    name = _handler_name(call, request.headers)
    if call is _INVOKE:
        return _encode(handlers.find(name)(request.body, context.build(request.headers)))
    if name:
        handlers.find(name)(context.build(request.headers))
    elif call is _INITIALIZE:
        handlers.find(_handler_name(_INVOKE, request.headers))
    return b""


def _encode(result: Any) -> bytes:
    if isinstance(result, (bytes, bytearray)):
        return bytes(result)
    return (result if isinstance(result, str) else json.dumps(result)).encode()


def _terminated(number: int, frame: Any | None) -> NoReturn:
    """End, and show where the function was when its time was up."""
    log.flush()
    if _running:
        faulthandler.dump_traceback()
    os._exit(_TERMINATED)
