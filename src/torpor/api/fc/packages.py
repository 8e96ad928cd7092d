"""Where the code of a function or layer comes from."""

import asyncio
import base64
import binascii
from collections.abc import Mapping
from typing import Any

from torpor.api.aws.objects import ObjectName, ObjectSource
from torpor.contracts.function_compute import limits
from torpor.contracts.function_compute.api_failures import invalid, too_large
from torpor.contracts.function_compute.checksum import checksum
from torpor.contracts.lambda_.failures_api import ApiFailure as SourceFailure


class PackageSource:
    """Packages inside requests and in an object store."""

    def __init__(self, objects: ObjectSource, max_inline: int = limits.CODE_REQUEST_MAX) -> None:
        self._objects = objects
        self._max_inline = max_inline

    async def archive_of(self, code: object, region: str, *, expected: str = "") -> tuple[bytes, str]:
        """The package that a call's code gives or names, and its checksum. Raises ApiFailure.

        `expected` is the checksum that the caller says it has; the code may say one too.
        """
        if not isinstance(code, Mapping):
            raise invalid("code is required: zipFile, or ossBucketName and ossObjectName")
        archive = await self._archive(code, region)
        if not archive:
            raise invalid("the code package is empty")
        found = await asyncio.to_thread(checksum, archive)
        wanted = expected or str(code.get("checksum") or "")
        if wanted and wanted != found:
            raise invalid(f"the code's checksum is {found}, not {wanted}")
        return archive, found

    async def _archive(self, code: Mapping[str, Any], region: str) -> bytes:
        if code.get("zipFile"):
            return await asyncio.to_thread(self._inline, code["zipFile"])
        bucket, key = code.get("ossBucketName"), code.get("ossObjectName")
        if not isinstance(bucket, str) or not isinstance(key, str) or not bucket or not key:
            raise invalid("code is required: zipFile, or ossBucketName and ossObjectName")
        if not self._objects.endpoint:
            raise invalid(
                "code from OSS needs an S3-compatible endpoint to fetch it from, and this server has none configured; "
                "set one, or send the package as zipFile"
            )
        try:
            return await self._objects.fetch(ObjectName(bucket=bucket, key=key), region)
        except SourceFailure as error:
            raise invalid(str(error)) from error

    def _inline(self, encoded: object) -> bytes:
        try:
            archive = base64.b64decode(str(encoded), validate=True)
        except (binascii.Error, ValueError) as error:
            raise invalid("code.zipFile is not valid base64") from error
        if len(archive) > self._max_inline:
            raise too_large(self._max_inline)
        return archive
