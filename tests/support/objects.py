"""A real S3 server for tests, in memory."""

from collections.abc import Iterator
from contextlib import contextmanager

from moto.server import ThreadedMotoServer

PLAIN = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
"""What clients of it need beside its address."""


@contextmanager
def object_store() -> Iterator[str]:
    """The address of a running one."""
    store = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    store.start()
    host, port = store.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        store.stop()
