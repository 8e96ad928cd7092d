"""Figures beside their targets and the yardstick: a table, `results.json` and a dated section of `RESULTS.md`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

FOLDER = Path(__file__).parent
_TITLE = "# Results\n\nNewest first; written by `make bench`.\n"
_COLUMNS = ("what", "Torpor", "target", "", "beside", "ratio")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure. `target` is a bound: at most, or at least where `more_is_better`. A value of None was not measured;
    the note says why."""

    what: str
    value: float | None
    unit: str
    target: float | None = None
    rule: str = ""
    """How the target follows from what was measured beside it."""
    more_is_better: bool = False
    beside: float | None = None
    yardstick: str = "emulator"
    """What `beside` was measured of."""
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None or self.value is None:
            return None
        return self.value >= self.target if self.more_is_better else self.value <= self.target

    @property
    def ratio(self) -> float | None:
        """How many times better than what it is measured beside."""
        if not self.beside or not self.value:
            return None
        return self.value / self.beside if self.more_is_better else self.beside / self.value

    def cells(self) -> tuple[str, ...]:
        """As shown in a table."""
        verdict = {True: "met", False: "MISSED", None: ""}[self.met]
        return (
            self.what,
            "not measured" if self.value is None else _figure(self.value, self.unit),
            self._bound(),
            verdict,
            "" if self.beside is None else f"{_figure(self.beside, self.unit)} ({self.yardstick})",
            "" if self.ratio is None else f"{self.ratio:.2f}x",
        )

    def _bound(self) -> str:
        if self.target is None:
            return ""
        rule = f" ({self.rule})" if self.rule else ""
        return ("≥ " if self.more_is_better else "≤ ") + _figure(self.target, self.unit) + rule


def show(machine: Mapping[str, str], rows: Sequence[Row], notes: Sequence[str]) -> str:
    """The section for people."""
    lines = [_line(_COLUMNS), _line(["---"] * len(_COLUMNS)), *[_line(row.cells()) for row in rows]]
    remarks = [f"- {row.what}: {row.note}" for row in rows if row.note] + [f"- {note}" for note in notes]
    facts = ", ".join(f"{name} {value}" for name, value in machine.items())
    return "\n".join([f"On: {facts}.", "", *lines, "", *remarks]) + "\n"


def keep(machine: Mapping[str, str], rows: Sequence[Row], notes: Sequence[str], *, quick: bool) -> None:
    """Write both files beside this one."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    shown = [asdict(row) | {"met": row.met, "ratio": row.ratio} for row in rows]
    record = {"date": now, "quick": quick, "machine": machine, "rows": shown, "notes": notes}
    (FOLDER / "results.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    path = FOLDER / "RESULTS.md"
    earlier = path.read_text(encoding="utf-8").removeprefix(_TITLE) if path.exists() else ""
    section = f"\n## {now}{', quick' if quick else ''}\n\n{show(machine, rows, notes)}"
    path.write_text(_TITLE + section + earlier, encoding="utf-8")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _figure(value: float, unit: str) -> str:
    number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.1f}"
    return f"{number} {unit}".strip()
