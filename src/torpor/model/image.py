"""What a runtime's image tells about starting it."""

from collections.abc import Mapping
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
