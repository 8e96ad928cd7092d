"""The saved form of versions, aliases, layers and other resources: JSON documents, the same in every adapter."""

from typing import Any, TypeVar

import msgspec

from torpor.model.errors import InvalidRequest, StoreUnavailable
from torpor.model.function import Alias, VersionRecord
from torpor.model.layer import LayerVersion

_T = TypeVar("_T")

_tags = msgspec.json.Decoder(dict[str, str])
_version = msgspec.json.Decoder(VersionRecord)
_layer = msgspec.json.Decoder(LayerVersion)
_aliases = msgspec.json.Decoder(dict[str, Alias])
_resource = msgspec.json.Decoder(dict[str, Any])


def encode(value: object) -> str:
    """JSON text of what is saved. Raises InvalidRequest when a value in it has no JSON form."""
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
        raise InvalidRequest(f"A value cannot be stored as JSON: {error}.") from error


def decode_version(text: str) -> VersionRecord:
    """Unknown fields are passed over, absent ones take their default. Raises StoreUnavailable for a broken document."""
    return _decode(_version, text)


def decode_layer(text: str) -> LayerVersion:
    """As `decode_version`."""
    return _decode(_layer, text)


def decode_tags(text: str) -> dict[str, str]:
    """Raises StoreUnavailable for a broken document."""
    return _decode(_tags, text)


def decode_aliases(text: str) -> dict[str, Alias]:
    """As `decode_version`."""
    return _decode(_aliases, text)


def decode_resource(text: str) -> dict[str, Any]:
    """Raises StoreUnavailable for a broken document."""
    return _decode(_resource, text)


def _decode(decoder: msgspec.json.Decoder[_T], text: str) -> _T:
    try:
        return decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise StoreUnavailable(f"The metadata database holds a damaged record ({error}); restore a backup.") from error
