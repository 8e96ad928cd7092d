"""The URL of a function: made on demand, shown where there is one."""

import json
from typing import Any
from urllib.parse import quote

from torpor.cli.client import Client, function_path
from torpor.model.errors import NotFound

_STATEMENT = "torpor-url-open"
_OPEN = {
    "StatementId": _STATEMENT,
    "Action": "lambda:InvokeFunctionUrl",
    "Principal": "*",
    "FunctionUrlAuthType": "NONE",
}


def url_of(server: Client, name: str) -> str:
    """A function's URL; empty if it has none."""
    found = _config(server, name)
    return "" if found is None else str(found["FunctionUrl"])


def open_url(server: Client, name: str) -> str:
    """A function's URL, made if there is none, and open to everyone unless it was made for signed requests only."""
    found = _config(server, name) or server.send("POST", _path(name), {"AuthType": "NONE"}).json
    if found["AuthType"] == "NONE" and not _is_open(server, name):
        server.send("POST", function_path(name, "policy"), _OPEN)
    return str(found["FunctionUrl"])


def _config(server: Client, name: str) -> Any:
    try:
        return server.get(_path(name))
    except NotFound:
        return None


def _is_open(server: Client, name: str) -> bool:
    try:
        policy = json.loads(server.get(function_path(name, "policy"))["Policy"])
    except NotFound:
        return False
    return any(statement["Sid"] == _STATEMENT for statement in policy["Statement"])


def _path(name: str) -> str:
    return f"/2021-10-31/functions/{quote(name, safe='')}/url"
