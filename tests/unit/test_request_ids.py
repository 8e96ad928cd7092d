"""Identifiers of invocations and traces."""

import re
import uuid

from torpor.contracts.lambda_.identifiers import new_request_id
from torpor.contracts.lambda_.tracing import new_trace


def test_request_ids_are_distinct_random_uuids_in_lower_case() -> None:
    made = [new_request_id() for _ in range(2000)]
    assert len(set(made)) == len(made)
    assert all(str(uuid.UUID(one)) == one and uuid.UUID(one).version == 4 for one in made)
    assert all(uuid.UUID(one).variant == uuid.RFC_4122 for one in made)
    assert {one[19] for one in made} == set("89ab")


def test_new_trace_carries_the_time_and_is_not_sampled() -> None:
    made = {new_trace(1_700_000_000.9) for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch(r"Root=1-6553f100-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0", one) for one in made)
