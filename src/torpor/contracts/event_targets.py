"""Where results of events may go, whichever cloud's function they are of.

Beside functions these are queues and topics of AWS or of whatever speaks as they do, a web address, to which a signed
request is sent, and `file:NAME`, a file of the server's own folder for that, which development needs and nothing else.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from torpor.model.errors import TargetRefused
from torpor.model.parcel import Parcel, ToFile, ToService, ToWeb

ARN = re.compile(
    r"arn:(?P<partition>aws[a-zA-Z0-9-]*):(?P<service>[a-zA-Z0-9-]+):(?P<region>[a-z0-9-]*):(?P<account>[0-9]*):"
    r"(?P<name>.+)"
)
_FILE = re.compile(r"file:(?P<name>[A-Za-z0-9][A-Za-z0-9_.-]{0,99})")


def is_own(target: str) -> bool:
    """Is it one of those that only this server has?"""
    if _FILE.fullmatch(target):
        return True
    if not target.startswith(("http://", "https://")):
        return False
    try:
        parts = urlsplit(target)
        return bool(parts.hostname) and "@" not in parts.netloc and parts.port != 0
    except ValueError:
        return False


def is_queue_or_topic(target: str) -> bool:
    """Is it the ARN of one that takes single messages in any order?"""
    found = ARN.fullmatch(target)
    return found is not None and found["service"] in ("sqs", "sns") and not found["name"].endswith(".fifo")


def named(target: str) -> re.Match[str]:
    """The parts of an ARN. Raises TargetRefused for anything else."""
    found = ARN.fullmatch(target)
    if found is None:
        raise unknown(target)
    return found


def queue_url(arn: str) -> str:
    """The address of a queue, by which its service's client knows it. Raises TargetRefused."""
    found = named(arn)
    return f"https://sqs.{found['region']}.amazonaws.com/{found['account']}/{found['name']}"


def parcel(target: str, body: bytes, identity: str, *, largest: int) -> Parcel | None:
    """A result for a web address, a file, a queue or a topic; `identity` is the same whenever it is sent again,
    `largest` the bytes that a queue or topic takes. None if it is another target. Raises TargetRefused."""
    if file := _FILE.fullmatch(target):
        return ToFile(name=file["name"], line=body)
    if is_own(target):
        return ToWeb(url=target, identity=identity, body=body)
    found = named(target)
    return message(target, body.decode(), largest) if found["service"] in ("sqs", "sns") else None


def message(target: str, text: str, largest: int, attributes: Mapping[str, Any] | None = None) -> ToService:
    """A message for a queue or topic. Raises TargetRefused if it is too large."""
    found, given = named(target), {"MessageAttributes": attributes} if attributes else {}
    size = len(text.encode())
    if size > largest:
        raise TargetRefused(f"The record has {size} bytes, more than the {largest} that {target} takes.")
    if found["service"] == "sqs":
        values = {"QueueUrl": queue_url(target), "MessageBody": text, **given}
        return ToService(service="sqs", operation="send_message", values=values, region=found["region"])
    return ToService(
        service="sns",
        operation="publish",
        values={"TopicArn": target, "Message": text, **given},
        region=found["region"],
    )


def unknown(target: str) -> TargetRefused:
    """There is no way to it."""
    return TargetRefused(f"{target} is no target that this server knows.")
