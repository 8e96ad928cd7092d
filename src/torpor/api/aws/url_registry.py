"""The function URLs that there are, by id and by what they lead to."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from torpor.api.aws.attached import URL
from torpor.contracts.lambda_.url_config import ID_ALPHABET, ID_LENGTH, UrlConfig, read_config
from torpor.service.attachments import Attachments


def new_identity() -> str:
    """An id that nobody can guess."""
    return "".join(secrets.choice(ID_ALPHABET) for _ in range(ID_LENGTH))


@dataclass(frozen=True, slots=True)
class Found:
    """Where a URL leads."""

    function: str
    qualifier: str
    """An alias; empty for the function as it is."""
    config: UrlConfig | None
    """None if the alias was deleted, and the URL with it."""


class UrlRegistry:
    """Kept with what belongs to functions, which is deleted with them and their aliases. One for all of them.

    Raises StoreUnavailable when the store fails; nothing has changed then.
    """

    def __init__(self, attachments: Attachments, identities: Callable[[], str] = new_identity) -> None:
        self._attachments = attachments
        self._identities = identities
        self._places: dict[str, tuple[str, str]] = {}
        """Function and qualifier by id, also of URLs that went with them."""
        for function in attachments.functions(URL):
            for qualifier, document in attachments.of(URL, function):
                self._places[read_config(document).identity] = function, qualifier

    def find(self, identity: str) -> Found | None:
        """The URL of this id; None if there is none."""
        place = self._places.get(identity)
        if place is None:
            return None
        config = self.get(*place)
        if config is not None and config.identity != identity:
            del self._places[identity]  # its alias was deleted, made anew, and has another URL
            return None
        return Found(*place, config)

    def get(self, function: str, qualifier: str) -> UrlConfig | None:
        """The URL of a function or alias; None if it has none."""
        document = self._attachments.find(URL, function, qualifier)
        return None if document is None else read_config(document)

    def of(self, function: str) -> list[tuple[str, UrlConfig]]:
        """Qualifier and URL of all that lead to a function, by qualifier."""
        return [(qualifier, read_config(document)) for qualifier, document in self._attachments.of(URL, function)]

    def new_identity(self) -> str:
        """An id that no URL has."""
        return self._identities()

    def keep(self, function: str, qualifier: str, config: UrlConfig) -> None:
        """Insert or replace."""
        self._attachments.put(URL, function, qualifier, config.document())
        self._places[config.identity] = function, qualifier

    def remove(self, function: str, qualifier: str) -> None:
        """Raises NotFound."""
        config = self.get(function, qualifier)
        self._attachments.remove(URL, function, qualifier)
        if config is not None:
            del self._places[config.identity]
