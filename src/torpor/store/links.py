"""Whether the symbolic links of a package stay inside it, other links on their way included."""

from collections import deque
from collections.abc import Mapping

from torpor.model.errors import InvalidPackage

TARGET_BYTES_MAX = 1_024
HOPS_MAX = 40
"""As many links in a row as the kernel follows."""
STEPS_MAX = 2_000_000
"""Path parts looked at for all links of one package: a bound on the time spent, never met by an honest package."""


def target_of(path: str, content: bytes) -> str:
    """The target a link's entry holds. Raises InvalidPackage when it cannot be one."""
    try:
        target = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidPackage(f"The target of the link {path!a} is not UTF-8.") from error
    if not target or "\0" in target or len(content) > TARGET_BYTES_MAX:
        raise InvalidPackage(f"The target of the link {path!a} is empty, too long or holds a NUL character.")
    return target


def check(targets: Mapping[str, str]) -> None:
    """Follow every link (path to target) as the kernel would. Raises InvalidPackage if one leaves the package."""
    steps = 0
    for path, target in targets.items():
        steps += _follow(path, target, targets, STEPS_MAX - steps)


def _follow(path: str, target: str, targets: Mapping[str, str], budget: int) -> int:
    """How many steps it took. `..` is applied where a link led, so looking at the text alone would not do."""
    place = path.split("/")[:-1]
    pending: deque[str] = deque()
    hops, steps, following = 0, 0, target
    while True:
        if following:
            _enter(path, following, pending)
            hops, following = hops + 1, ""
        if not pending:
            return steps
        steps += 1
        if hops > HOPS_MAX or steps > budget:
            raise InvalidPackage(f"The link {path!a} leads through too many others or in a circle.")
        following = _step(path, place, pending.popleft(), targets)


def _enter(path: str, target: str, pending: deque[str]) -> None:
    if target.startswith("/"):
        raise InvalidPackage(f"The link {path!a} has an absolute target; links must stay inside the package.")
    pending.extendleft(reversed(target.split("/")))


def _step(path: str, place: list[str], part: str, targets: Mapping[str, str]) -> str:
    """Move `place` by one part; the target to follow next if that part is a link, or nothing."""
    if part in ("", "."):
        return ""
    if part == "..":
        if not place:
            raise InvalidPackage(f"The link {path!a} leads out of the package.")
        place.pop()
        return ""
    target = targets.get("/".join([*place, part]), "")
    if not target:
        place.append(part)
    return target
