"""`torpor serve` and `torpor doctor`: the two commands that run here rather than in a server."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from textwrap import wrap
from typing import Protocol

from torpor.cli.output import show, show_json, working
from torpor.settings import require_safe_listening, resolve

_WIDTH = 96


class _Finding(Protocol):
    """One thing the host can or cannot do."""

    @property
    def name(self) -> str: ...
    @property
    def available(self) -> bool: ...
    @property
    def detail(self) -> str: ...


def serve(config: Path | None, flags: Mapping[str, str | bool | None], *, as_json: bool) -> int:
    """Run the server until it is told to stop. Raises InvalidRequest for settings it must not run with."""
    settings = resolve(flags, file=config)
    require_safe_listening(settings)
    from torpor import app

    def announce(line: str) -> None:
        if as_json:
            show_json({"message": line})
        else:
            show(line)

    return app.serve(settings, announce)


def doctor(config: Path | None, *, as_json: bool) -> int:
    """Print what the host offers."""
    settings = resolve(file=config)
    with working("Looking at this host"):
        from torpor import app

        findings = app.diagnose(settings)
    if as_json:
        show_json({"capabilities": [asdict(finding) for finding in findings]})
    else:
        _show(findings)
    return 0


def _show(findings: Sequence[_Finding]) -> None:
    width = max((len(finding.name) for finding in findings), default=0)
    for finding in findings:
        lead = f"{'yes' if finding.available else 'no ':3}  {finding.name:{width}}  "
        lines = wrap(finding.detail, max(_WIDTH - len(lead), 30)) or [""]
        show(lead + lines[0])
        for line in lines[1:]:
            show(" " * len(lead) + line)
