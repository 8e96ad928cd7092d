"""What an attempt makes of an event's progress. Pure; times are as the names say."""

from msgspec.structs import replace

from torpor.model.event import Progress, Result, Step
from torpor.model.failure import as_text
from torpor.model.invocation import Outcome
from torpor.scheduling.retries import Again, Condition, Ended, RetryPolicy, Verdict, decide
from torpor.service.events.lanes import Held

_TOLD = 200
"""Characters of a failure that its event's history tells."""


def verdict_of(held: Held, judged: Result) -> Verdict:
    """What an attempt was; one that was stopped did not fail by itself."""
    verdict = Verdict(judged.verdict)
    return Verdict.CANCELLED if held.is_stopped and verdict is not Verdict.SUCCESS else verdict


def after(progress: Progress, verdict: Verdict, judged: Result, outcome: Outcome | None, step: Step) -> Progress:
    """`outcome` is None if nothing ran; `step` is the attempt's line of history."""
    refused = verdict in (Verdict.THROTTLED, Verdict.SYSTEM)
    return replace(
        progress.with_step(step),
        runs=progress.runs + (outcome is not None),
        errors=progress.errors + (verdict is Verdict.ERROR),
        refusals=progress.refusals + 1 if refused else 0,
        refused_since=progress.refused_since if refused else 0.0,
        result=judged,
    )


def since(progress: Progress, now: float) -> Progress:
    """If its last attempt did not run: as it was when the first of those in a row was made, at the latest `now`."""
    return replace(progress, refused_since=progress.refused_since or now) if progress.refusals else progress


def throttled(progress: Progress, why: str, *, wall: float, now: float) -> Progress:
    """Refused once more by a limit; refusals in a row are one line of history. `now` is the queue's own time."""
    progress = replace(progress, refused_since=progress.refused_since or now)
    last = progress.steps[-1] if progress.steps else None
    if last is None or last.what != "throttled":
        return progress.with_step(Step(at=wall, what="throttled", detail=why, times=1))
    step = replace(last, detail=why, times=last.times + 1, seconds=max(wall - last.at, 0.0))
    return replace(progress, steps=(*progress.steps[:-1], step))


def run_step(held: Held, judged: Result, outcome: Outcome | None, *, wall: float, now: float) -> Step:
    """The line of history of a run that has just ended; `now` is the queue's own time."""
    duration = outcome.duration if outcome is not None else 0.0
    begun = max(now - duration, held.started_at)
    told = as_text(judged.payload)[:_TOLD] if judged.error_type else judged.refusal
    detail = ": ".join(part for part in (judged.verdict, judged.error_type, told) if part)
    return Step(at=wall - duration, what="run", detail=detail, seconds=duration, waited=max(begun - held.since, 0.0))


def next_move(policy: RetryPolicy, held: Held, verdict: Verdict, refusals: int, now: float) -> Again | Ended:
    """See `decide`; `now` is the queue's own time."""
    progress = held.progress
    since = progress.refused_since or now
    return decide(
        policy, verdict, errors=progress.errors, refusals=refusals, refused_for=now - since, age=now - held.born
    )


def finished(progress: Progress, condition: Condition, wall: float) -> Progress:
    """It is through; `wall` in seconds since the epoch."""
    step = Step(at=wall, what="ended", detail=condition.value)
    return replace(progress.with_step(step), ended=wall, condition=condition.value)


def shortened(progress: Progress, limit: int) -> Progress:
    """With at most so many bytes of its result."""
    result = progress.result
    if result is None or len(result.payload) <= limit:
        return progress
    return replace(progress, result=replace(result, payload=result.payload[:limit]))
