"""The part of EventBridge's API that schedules need: rules that go off by the clock, and functions as their targets."""

from torpor.api.eventbridge.face import EventsSettings, RulesFace, claims
from torpor.api.eventbridge.schedules import Fired, Firing, TimerService

__all__ = ["EventsSettings", "Fired", "Firing", "RulesFace", "TimerService", "claims"]
