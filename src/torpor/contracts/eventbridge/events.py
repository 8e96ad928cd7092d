"""What scheduled rules hand to their targets. Pure."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from torpor.contracts.eventbridge import json_path
from torpor.contracts.eventbridge.transformer import transformed


def scheduled_event(planned: float, rule_arn: str, account: str, region: str, identity: str) -> bytes:
    """The event of a rule that goes off; `planned` is when it was to, in seconds since the epoch, and `identity` is
    the event's id."""
    moment = datetime.fromtimestamp(planned, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return _compact(
        {
            "version": "0",
            "id": identity,
            "detail-type": "Scheduled Event",
            "source": "aws.events",
            "account": account,
            "time": moment,
            "region": region,
            "resources": [rule_arn],
            "detail": {},
        }
    )


def target_payload(target: Mapping[str, Any], event: bytes) -> bytes:
    """What one target, as its document says, is handed of an event."""
    if "Input" in target:
        return str(target["Input"]).encode()
    if "InputPath" in target:
        found = json_path.find(json_path.steps(target["InputPath"]), json.loads(event))
        return _compact(None if found is json_path.MISSING else found)
    if "InputTransformer" in target:
        return transformed(target["InputTransformer"], json.loads(event)).encode()
    return event


def _compact(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
