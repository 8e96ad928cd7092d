"""What an attempt at an event was, whichever cloud's function it is of."""

from torpor.model.errors import Throttled, TorporError
from torpor.model.event import Result
from torpor.model.invocation import Outcome, OutcomeStatus
from torpor.scheduling.retries import Verdict


def judged(result: Outcome | TorporError) -> Result:
    """What an attempt was; an outcome's failure is worded already."""
    if isinstance(result, Throttled):
        return Result(verdict=Verdict.THROTTLED, refusal=str(result))
    if isinstance(result, TorporError):
        return Result(verdict=Verdict.SYSTEM, refusal=str(result))
    if result.status is OutcomeStatus.FAILURE and not result.error_type:
        return Result(verdict=Verdict.SYSTEM, refusal="The platform failed.", environment=result.environment)
    return Result(
        verdict=Verdict.ERROR if result.error_type else Verdict.SUCCESS,
        payload=result.payload,
        error_type=result.error_type,
        version=result.version,
        environment=result.environment,
    )
