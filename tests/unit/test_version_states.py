"""How far versions are, and who may change a function."""

from dataclasses import replace

import pytest

from torpor.model.errors import Conflict
from torpor.model.function import CodeRef, FunctionVersion
from torpor.service.states import State, VersionStates

ONE = FunctionVersion(
    function="f",
    version="1",
    resource="f",
    revision="a",
    contract="lambda",
    runtime="python3.12",
    handler="a.b",
    code=CodeRef(digest="d", packed_bytes=1, unpacked_bytes=1),
)


def test_version_is_active_unless_something_else_is_said() -> None:
    states = VersionStates()
    assert states.all_active and states.of(ONE).is_active
    states.pend(ONE)
    assert states.of(ONE) == State("Pending", "The function is being created.", "Creating")
    assert states.of(replace(ONE, tenant="blue")) == states.of(ONE)
    assert states.of(replace(ONE, revision="b")).is_active
    assert not states.all_active
    states.fail(ONE, "Init failed.", "FunctionError.InitTimeout")
    assert states.of(ONE) == State("Failed", "Init failed.", "FunctionError.InitTimeout")
    for _ in range(2):
        states.settle(ONE)
    assert states.all_active and states.of(ONE).is_active


def test_function_is_changed_by_one_at_a_time() -> None:
    states = VersionStates()
    with states.updating("f"):
        assert states.is_updating("f") and not states.is_updating("g")
        with states.updating("g"), pytest.raises(Conflict), states.updating("f"):
            pass
        assert states.is_updating("f"), "whoever was refused ended the change of another"
    assert not states.is_updating("f")
    with pytest.raises(ValueError, match="broken"), states.updating("f"):
        raise ValueError("broken")
    assert not states.is_updating("f")
