"""Code packages that lie in an object store: fetched once, at deployment."""

import asyncio
import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlencode, urlsplit
from xml.etree import ElementTree

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from torpor.contracts.lambda_ import limits
from torpor.contracts.lambda_.failures_api import invalid_parameter

_BLOCK = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectName:
    """An object, and its version if a certain one is meant."""

    bucket: str
    key: str
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectSource:
    """The S3-compatible endpoint that functions' code is fetched from; empty `endpoint` means there is none.

    `timeout` is in seconds, for connecting and for each wait on the network; `total` for the whole fetch.
    """

    endpoint: str = ""
    access_key: str = "test"
    secret_key: str = "test"
    timeout: float = 10.0
    total: float = 120.0
    max_bytes: int = limits.UNZIPPED_MAX

    async def fetch(self, wanted: ObjectName, region: str) -> bytes:
        """The object's content. Raises ApiFailure when it cannot be had or is too large."""
        if urlsplit(self.endpoint).scheme not in ("http", "https"):
            raise invalid_parameter(
                "Code from S3 needs an endpoint to fetch it from, and this server has none configured. "
                "Set the server's AWS endpoint URL, or send the package as ZipFile."
            )
        try:
            async with asyncio.timeout(self.total):
                return await asyncio.to_thread(self._fetch, wanted, region)
        except TimeoutError as error:
            raise _unreachable(self.endpoint, "it took too long") from error
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(self.endpoint, str(error)) from error

    def _fetch(self, wanted: ObjectName, region: str) -> bytes:
        url = self._url(wanted)
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.netloc, timeout=self.timeout)
        try:
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            connection.request("GET", target, headers=self._signed(url, region))
            response = connection.getresponse()
            if response.status != http.client.OK:
                raise _refused(response.status, response.read(_BLOCK), wanted)
            return self._read(response)
        finally:
            connection.close()

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        content = bytearray()
        while block := response.read(_BLOCK):
            content += block
            if len(content) > self.max_bytes:
                raise invalid_parameter(f"Unzipped size must be smaller than {limits.UNZIPPED_MAX} bytes")
        return bytes(content)

    def _url(self, wanted: ObjectName) -> str:
        path = f"/{quote(wanted.bucket, safe='')}/{quote(wanted.key, safe='/~')}"
        query = "?" + urlencode({"versionId": wanted.version}) if wanted.version else ""
        return self.endpoint.rstrip("/") + path + query

    def _signed(self, url: str, region: str) -> Mapping[str, str]:
        request = AWSRequest(method="GET", url=url)
        S3SigV4Auth(Credentials(self.access_key, self.secret_key), "s3", region).add_auth(request)
        return dict(request.headers.items())


def _refused(status: int, body: bytes, wanted: ObjectName) -> Exception:
    code, message = _told(body)
    if status == http.client.FORBIDDEN:
        return invalid_parameter(
            "Your access has been denied by S3, please make sure your request credentials have permission to GetObject "
            f"for {wanted.bucket}/{wanted.key}. S3 Error Code: {code or 'AccessDenied'}. "
            f"S3 Error Message: {message or 'Access Denied'}"
        )
    return invalid_parameter(
        f"Error occurred while GetObject. S3 Error Code: {code or status}. S3 Error Message: {message or 'none given'}"
    )


def _told(body: bytes) -> tuple[str, str]:
    try:
        document = ElementTree.fromstring(body)
    except ElementTree.ParseError:
        return "", ""
    return document.findtext("{*}Code") or "", document.findtext("{*}Message") or ""


def _unreachable(endpoint: str, reason: str) -> Exception:
    return invalid_parameter(f"The code could not be fetched from {endpoint}: {reason}.")
