#!/var/lang/bin/python3
"""An extension that registers for everything and does nothing, as lean as can be: what is measured is the platform."""

import os
import re
import socket
import sys

host, _, port = os.environ["AWS_LAMBDA_RUNTIME_API"].partition(":")
connection = socket.create_connection((host, int(port)))
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
body = b'{"events":["INVOKE","SHUTDOWN"]}'
connection.sendall(
    b"POST /2020-01-01/extension/register HTTP/1.1\r\nHost: api\r\nLambda-Extension-Name: %s\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (os.path.basename(sys.argv[0]).encode(), len(body), body)
)
identifier = re.search(rb"lambda-extension-identifier: *([0-9a-f-]+)", connection.recv(65536), re.IGNORECASE)[1]
asks = (
    b"GET /2020-01-01/extension/event/next HTTP/1.1\r\nHost: api\r\nLambda-Extension-Identifier: %s\r\n\r\n"
    % identifier
)
event = b""
while b'"SHUTDOWN"' not in event:
    connection.sendall(asks)
    event = connection.recv(65536)
