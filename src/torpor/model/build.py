"""What is asked of a build: how a package's source becomes what an environment runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOrder:
    """One build. Sizes in bytes, memory in MB, time in seconds."""

    name: str
    """Of what is built, for messages."""
    archive: bytes
    """The source, as a zip archive."""
    command: tuple[str, ...]
    """Program and arguments as seen inside, run as root in the folder of the source."""
    variables: Callable[[Mapping[str, str], str], Mapping[str, str]]
    """The command's variables, out of those of the image and the folder of the source as seen inside."""
    code_at: str
    """Where the source stands inside."""
    system_at: str
    """Name in the result for the folder with the system folders that the build has changed."""
    source_limit: int
    """Of the unpacked source."""
    memory_mb: int
    time_limit: float
