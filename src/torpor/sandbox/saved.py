"""Keeping changed code where sandboxes lie in the server's own file system."""

import asyncio
import os

from torpor.model.errors import SandboxUnavailable
from torpor.sandbox.launcher import saving


async def save_code(code: str, folder: str) -> None:
    """Copy a code folder to `code` below this folder. Raises SandboxUnavailable."""
    try:
        await asyncio.to_thread(_copy, code, folder)
    except OSError as error:
        raise SandboxUnavailable(f"Nothing can be saved to {folder}: {error}.") from error


def _copy(code: str, folder: str) -> None:
    source = os.open(code, os.O_RDONLY | os.O_DIRECTORY)
    try:
        target = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            saving.save(source, {}, target)
        finally:
            os.close(target)
    finally:
        os.close(source)
