"""HTTP/1.1 over TCP and Unix sockets. Knows no route and no contract."""

from torpor.transport.attention import Attention
from torpor.transport.exchange import Application, Exchange, Headers
from torpor.transport.limits import HttpLimits
from torpor.transport.response import ErrorFace, FixedHeaders, json_error
from torpor.transport.server import HttpServer, ServerStatistics, listen

__all__ = [
    "Application",
    "Attention",
    "ErrorFace",
    "Exchange",
    "FixedHeaders",
    "Headers",
    "HttpLimits",
    "HttpServer",
    "ServerStatistics",
    "json_error",
    "listen",
]
