"""Where the code of a create or update call comes from."""

import asyncio
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torpor.api.aws.objects import ObjectName, ObjectSource
from torpor.contracts.lambda_ import limits
from torpor.contracts.lambda_.failures_api import BROKEN_PACKAGE, invalid_parameter, not_built

NO_SOURCE = "Please provide a source for function code."


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageSource:
    """Packages inside requests, at most `max_inline` bytes each, and in an object store."""

    objects: ObjectSource
    max_inline: int = limits.ZIPPED_MAX

    async def archive_of(self, code: Mapping[str, Any], region: str) -> bytes:
        """The package that the code fields of a call give or name. Raises ApiFailure."""
        if code.get("ImageUri"):
            raise not_built("Code from a container image (ImageUri)")
        if "S3Bucket" in code or "S3Key" in code:
            return await self.objects.fetch(_object_of(code), region)
        if "ZipFile" not in code:
            raise invalid_parameter(NO_SOURCE)
        return self._checked_inline(code["ZipFile"])

    def _checked_inline(self, archive: bytes) -> bytes:
        if not archive:
            raise invalid_parameter("Uploaded file must be a non-empty zip")
        if len(archive) > self.max_inline:
            raise invalid_parameter(f"Zipped size must be smaller than {self.max_inline} bytes")
        return archive


async def check_archive(archive: bytes) -> None:
    """Refuse what could not be unpacked, without keeping anything. Raises ApiFailure."""
    unpacked = await asyncio.to_thread(_unpacked_bytes, archive)
    if unpacked > limits.UNZIPPED_MAX:
        raise invalid_parameter(f"Unzipped size must be smaller than {limits.UNZIPPED_MAX} bytes")


def _object_of(code: Mapping[str, Any]) -> ObjectName:
    if "ZipFile" in code:
        raise invalid_parameter("Please do not provide other FunctionCode parameters when providing a ZipFile.")
    if "S3Bucket" not in code or "S3Key" not in code:
        raise invalid_parameter("S3Bucket and S3Key have to be given together.")
    return ObjectName(bucket=code["S3Bucket"], key=code["S3Key"], version=code.get("S3ObjectVersion", ""))


def _unpacked_bytes(archive: bytes) -> int:
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as package:
            return sum(item.file_size for item in package.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise invalid_parameter(BROKEN_PACKAGE) from error
