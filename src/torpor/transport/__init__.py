"""HTTP/1.1 over TCP and Unix sockets, server and client. Knows no route and no contract."""

from torpor.transport.attention import Attention
from torpor.transport.client import ClientConnection, ResponseSink, connect, refused
from torpor.transport.exchange import Application, Exchange, Headers, RawHeaders, Streams
from torpor.transport.limits import HttpLimits
from torpor.transport.request import encode_request
from torpor.transport.response import AnyHeaders, ErrorFace, FixedHeaders, header_lines, json_error
from torpor.transport.response_parser import AnswerFields, ClientLimits, Loss, LossKind
from torpor.transport.server import HttpServer, ServerStatistics, listen
from torpor.transport.tunnel import Tunnel, splice
from torpor.transport.waiting import within

__all__ = [
    "AnswerFields",
    "AnyHeaders",
    "Application",
    "Attention",
    "ClientConnection",
    "ClientLimits",
    "ErrorFace",
    "Exchange",
    "FixedHeaders",
    "Headers",
    "HttpLimits",
    "HttpServer",
    "Loss",
    "LossKind",
    "RawHeaders",
    "ResponseSink",
    "ServerStatistics",
    "Streams",
    "Tunnel",
    "connect",
    "encode_request",
    "header_lines",
    "json_error",
    "listen",
    "refused",
    "splice",
    "within",
]
