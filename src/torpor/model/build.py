"""What is asked of a build: how a package's source becomes what an environment runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOrder:
    """One build. Sizes in bytes unless the name says otherwise, time in seconds."""

    archive: bytes
    """The source, as a zip archive."""
    program: tuple[str, ...]
    """Program and arguments as seen inside, run as root in the folder of the source."""
    shown: str
    """The command as its user wrote it, for messages."""
    variables: Callable[[Mapping[str, str], str], Mapping[str, str]]
    """The program's variables, out of those of the image and the folder of the source as seen inside."""
    image: str
    code_at: str
    """Where the source stands inside."""
    system_at: str
    """Name in the result for the folder with the system folders that the build has changed."""
    source_limit: int
    """Of the unpacked source."""
    disk_mb: int
    """What the build may write."""
    memory_mb: int
    processes: int
    files: int
    time_limit: float
