"""Event streams are what the vendor's own client reads."""

from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from torpor.contracts import event_stream


def _read(data: bytes) -> list[tuple[dict[str, str], bytes]]:
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    return [(dict(found.headers), found.payload) for found in buffer]


@given(st.lists(st.binary(max_size=3000), max_size=5), st.text(max_size=40))
def test_the_client_reads_every_event_with_its_headers(payloads: list[bytes], content_type: str) -> None:
    stream = b"".join(event_stream.event("PayloadChunk", content_type, payload) for payload in payloads)

    headers = {":message-type": "event", ":event-type": "PayloadChunk", ":content-type": content_type}
    assert _read(stream) == [(headers, payload) for payload in payloads]


def test_an_error_is_read_as_one() -> None:
    ((headers, payload),) = _read(event_stream.exception("ServiceException", b"{}"))

    assert headers == {
        ":message-type": "exception",
        ":exception-type": "ServiceException",
        ":content-type": "application/json",
    }
    assert payload == b"{}"
