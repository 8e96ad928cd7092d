"""The saved form of a version, of a function or a layer: one JSON document, the same in every adapter."""

from typing import TypeVar

import msgspec

from torpor.model.errors import InvalidRequest, StoreUnavailable
from torpor.model.function import VersionRecord
from torpor.model.layer import LayerVersion

_T = TypeVar("_T")

_tags = msgspec.json.Decoder(dict[str, str])
_version = msgspec.json.Decoder(VersionRecord)
_layer = msgspec.json.Decoder(LayerVersion)


def encode(value: object) -> str:
    """JSON text of a record or of tags. Raises InvalidRequest when a value in it has no JSON form."""
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
        raise InvalidRequest(f"A value of the function cannot be stored as JSON: {error}.") from error


def decode_version(text: str) -> VersionRecord:
    """Unknown fields are passed over, absent ones take their default. Raises StoreUnavailable for a broken document."""
    return _decode(_version, text)


def decode_layer(text: str) -> LayerVersion:
    """As `decode_version`."""
    return _decode(_layer, text)


def decode_tags(text: str) -> dict[str, str]:
    """Raises StoreUnavailable for a broken document."""
    return _decode(_tags, text)


def _decode(decoder: msgspec.json.Decoder[_T], text: str) -> _T:
    try:
        return decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise StoreUnavailable(f"The metadata database holds a damaged record ({error}); restore a backup.") from error
