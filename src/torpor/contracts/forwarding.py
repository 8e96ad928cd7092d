"""Header fields between a caller, proxies and the platform: which mean one connection only, and who is believed."""

LOCAL_PEERS = frozenset({"127.0.0.1", "::1", ""})
"""Whoever calls from this machine may be a proxy in front of the server, and says itself for whom it speaks."""
HOP_BY_HOP = frozenset(
    {"connection", "content-length", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""Names in lower case; every name that begins with `proxy-` belongs to them too."""


def listed(value: str) -> set[str]:
    """The words of a list, in lower case."""
    return {word.strip().lower() for word in value.split(",")}
