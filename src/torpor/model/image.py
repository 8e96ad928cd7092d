"""What a runtime's image tells about starting it, and where its function lies."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


class Image(Protocol):
    """What a contract needs to know of a runtime's image."""

    @property
    def argv(self) -> tuple[str, ...]: ...

    @property
    def environment(self) -> Mapping[str, str]: ...

    @property
    def version(self) -> str: ...

    def wrapped(self, program: str) -> tuple[str, ...]:
        """`argv` started by a program of the customer's."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The place a contract gives its functions inside a sandbox."""

    code_at: str = "/var/task"
    as_root: bool = False
    """Processes are root of their own user namespace."""
    writable: bool = False
    """They may change their whole file system; it goes with the environment."""


STANDARD = Layout()
