"""What a fresh clone installs: every distribution that Torpor and its tests need has one pinned version."""

from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.architecture.sources import ROOT

LOCK = ROOT / "requirements-ci.lock"


def _pins() -> list[Requirement]:
    return [Requirement(line) for line in LOCK.read_text().splitlines()]


def _needed() -> dict[str, str]:
    """All that `torpor[dev]` brings here, with who asks for it."""
    waiting = [(need, "torpor") for need in _needs("torpor", {"dev"})]
    found: dict[str, str] = {}
    while waiting:
        need, asker = waiting.pop()
        name = canonicalize_name(need.name)
        if name not in found:
            found[name] = asker
            waiting += [(next_one, name) for next_one in _needs(name, need.extras)]
    return found


def _needs(name: str, extras: set[str]) -> list[Requirement]:
    needs = [Requirement(text) for text in metadata.distribution(name).requires or ()]
    return [need for need in needs if _applies(need, extras)]


def _applies(need: Requirement, extras: set[str]) -> bool:
    return need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras or {""})


def test_everything_a_fresh_clone_installs_is_pinned() -> None:
    pinned = {canonicalize_name(pin.name) for pin in _pins()}

    assert {name: asker for name, asker in _needed().items() if name not in pinned} == {}


def test_every_pin_is_one_version_and_names_stand_once() -> None:
    pins = _pins()

    assert [str(pin) for pin in pins if not str(pin.specifier).startswith("==")] == []
    assert len({(canonicalize_name(pin.name), str(pin.marker)) for pin in pins}) == len(pins)
