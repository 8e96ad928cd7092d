"""A real server of S3, DynamoDB and SQS for tests, in memory; functions that use it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import botocore
from moto.server import ThreadedMotoServer
from tests.support.functions import PYTHON, Package, archive

PLAIN = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
"""What clients of it need beside its address."""
_LIBRARIES = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "urllib3", "six.py")
_KEPT_DATA = ("endpoints.json", "partitions.json", "sdk-default-configuration.json", "_retry.json")


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


def with_boto3(source: str, *services: str) -> Package:
    """A function with the SDK in its package, no more of its data than these services need."""
    site = Path(botocore.__file__).parent.parent
    files: dict[str, str | bytes] = {"app.py": source}
    for library in _LIBRARIES:
        found = [site / library] if library.endswith(".py") else sorted((site / library).rglob("*"))
        for path in found:
            inside = path.relative_to(site)
            if path.is_file() and path.suffix != ".pyc" and _needed(inside.parts, services):
                files[str(inside)] = path.read_bytes()
    return Package(archive=archive(files), runtime=PYTHON, handler="app.handler")


def _needed(parts: tuple[str, ...], services: tuple[str, ...]) -> bool:
    return parts[:2] != ("botocore", "data") or parts[2] in (*services, *_KEPT_DATA)
