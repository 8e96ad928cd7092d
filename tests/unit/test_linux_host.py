"""What the doctor says about a host, and which processes may be clones."""

import pytest

from torpor.sandbox.images import RuntimeImage
from torpor.sandbox.linux import host
from torpor.sandbox.linux.fidelity import may_clone
from torpor.sandbox.port import ProcessSpec

IMAGE = RuntimeImage(
    runtime="python3.12",
    lang="/usr",
    executable="/var/lang/bin/python3.12",
    runtime_dir="/runtime",
    clone_module="client",
    argv=("/var/lang/bin/python3.12", "/var/runtime/bootstrap.py"),
)


@pytest.mark.parametrize(
    ("release", "enough"), [("6.1.0-13-amd64", True), ("5.12.0", True), ("5.4.0-100-generic", False), ("odd", False)]
)
def test_kernel_that_is_too_old_is_named(release: str, enough: bool) -> None:
    found = host._kernel(release)
    assert (found.available, release in found.detail) == (enough, True)


@pytest.mark.parametrize(
    ("name", "cloned"),
    [("STAGE", True), ("PYTHONPATH", True), ("PYTHONHASHSEED", False), ("LD_PRELOAD", False), ("LC_ALL", False)],
)
def test_variables_that_shape_an_interpreters_start_prevent_a_clone(name: str, cloned: bool) -> None:
    process = ProcessSpec(name="runtime", argv=IMAGE.argv, environment={name: "x"}, clone=True)
    assert may_clone(process, IMAGE) is cloned


def test_other_program_or_no_leave_prevents_a_clone() -> None:
    assert not may_clone(ProcessSpec(name="p", argv=("/opt/wrapper", *IMAGE.argv), environment={}, clone=True), IMAGE)
    assert not may_clone(ProcessSpec(name="p", argv=IMAGE.argv, environment={}), IMAGE)
