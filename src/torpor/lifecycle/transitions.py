"""The environment table: phase × event → what is done and which phases may follow.

The whole life of every serving style is in this one table; contracts differ only in the policy value that the actions
read. What is absent is illegal and raises. `SETTLED` marks events that may arrive late or twice from the outside world
(a timer that was being cancelled, a process that ended anyway) and are taken note of without effect.

    provision → sandbox ready → agents ready → assigned → delivered → answered → agents ready → nothing pending → freeze
    → assigned → thaw …

and for each policy row its failure: an Init that fails or outlasts its limit is made again inside the waiting
invocation (`reinitializing`) or ends the environment; a time-out or a crash resets it (`resetting` →
`uninitialized`), fails one invocation alone, or replaces the environment (`stopping` → `gone`).
"""

from collections.abc import Mapping

import msgspec

from torpor.lifecycle import events as e
from torpor.lifecycle.phases import PhaseName as P


class Rule(msgspec.Struct, frozen=True):
    """`action` names a method of the machine; `to` lists every phase that may hold when it is done."""

    action: str
    to: frozenset[P]


def _rule(action: str, *to: P) -> Rule:
    return Rule(action, frozenset(to))


_AFTER_ENDING = (P.RESETTING, P.UNINITIALIZED, P.REINITIALIZING, P.STOPPING, P.GONE)
_AFTER_READY = (P.IDLE, P.SERVING)
_AFTER_LOSS = (P.IDLE, P.SERVING, *_AFTER_ENDING)


def _settled(phase: P) -> Rule:
    return _rule("settled", phase)


_LOST = _rule("sandbox_lost", P.GONE)
_STOP = _rule("stop", P.STOPPING, P.GONE)
_CRASH = _rule("agent_exited", P.RESETTING, P.UNINITIALIZED, P.STOPPING, P.GONE)
_GIVEN_UP = _rule("agent_gave_up", P.RESETTING, P.UNINITIALIZED, P.STOPPING, P.GONE)

TRANSITIONS: Mapping[P, Mapping[type, Rule]] = {
    P.PROVISIONING: {
        e.SandboxReady: _rule("begin", P.INITIALIZING, P.RESTORING),
        e.SandboxLost: _LOST,
        e.Cancelled: _rule("cancelled", P.PROVISIONING),
        e.Assigned: _rule("enqueue", P.PROVISIONING),
        e.StopRequested: _STOP,
        e.NothingPending: _settled(P.PROVISIONING),
        e.DeadlineReached: _settled(P.PROVISIONING),
    },
    P.INITIALIZING: {
        e.SandboxLost: _LOST,
        e.Cancelled: _rule("cancelled", P.INITIALIZING),
        e.NextWithdrawn: _rule("next_withdrawn", P.INITIALIZING),
        e.Assigned: _rule("enqueue", P.INITIALIZING),
        e.AgentRegistered: _rule("register", P.INITIALIZING),
        e.NextRequested: _rule("agent_ready", P.INITIALIZING, P.SAVING, *_AFTER_READY, P.STOPPING, P.GONE),
        e.RestoreAwaited: _rule("restore_awaited", P.INITIALIZING, P.SAVING),
        e.HookFinished: _rule("init_hook_finished", P.INITIALIZING, *_AFTER_READY, P.STOPPING, P.GONE),
        e.AgentFailed: _rule("agent_failed", P.INITIALIZING, *_AFTER_ENDING),
        e.AgentExited: _rule("init_crashed", P.INITIALIZING, *_AFTER_ENDING),
        e.DeadlineReached: _rule("init_timed_out", P.INITIALIZING, *_AFTER_ENDING),
        e.StopRequested: _STOP,
        e.NothingPending: _settled(P.INITIALIZING),
    },
    P.REINITIALIZING: {
        e.SandboxLost: _LOST,
        e.Cancelled: _settled(P.REINITIALIZING),
        e.NextWithdrawn: _rule("next_withdrawn", P.REINITIALIZING),
        e.AgentRegistered: _rule("register", P.REINITIALIZING),
        e.NextRequested: _rule("agent_ready", P.REINITIALIZING, P.SERVING),
        e.AgentFailed: _rule("agent_failed", P.REINITIALIZING, *_AFTER_ENDING),
        e.AgentExited: _rule("init_crashed", P.REINITIALIZING, *_AFTER_ENDING),
        e.DeadlineReached: _rule("invocation_timed_out", P.REINITIALIZING, *_AFTER_ENDING),
        e.StopRequested: _STOP,
        e.NothingPending: _settled(P.REINITIALIZING),
    },
    P.SAVING: {
        e.SandboxLost: _LOST,
        e.AgentExited: _rule("saved_exited", P.SAVING),
        e.StopRequested: _STOP,
        e.NextRequested: _settled(P.SAVING),
        e.AgentRegistered: _settled(P.SAVING),
        e.AgentFailed: _settled(P.SAVING),
        e.DeadlineReached: _settled(P.SAVING),
        e.Cancelled: _settled(P.SAVING),
        e.NothingPending: _settled(P.SAVING),
    },
    P.RESTORING: {
        e.SandboxLost: _LOST,
        e.Cancelled: _rule("cancelled", P.RESTORING),
        e.Assigned: _rule("enqueue", P.RESTORING),
        e.AgentRegistered: _rule("register", P.RESTORING),
        e.NextRequested: _rule("agent_ready", P.RESTORING, *_AFTER_READY),
        e.RestoreAwaited: _rule("wake", P.RESTORING),
        e.AgentFailed: _rule("restore_reported", P.RESTORING, P.STOPPING, P.GONE),
        e.AgentExited: _rule("restore_crashed", P.RESTORING, P.STOPPING, P.GONE),
        e.DeadlineReached: _rule("restore_timed_out", P.RESTORING, P.STOPPING, P.GONE),
        e.StopRequested: _STOP,
        e.NothingPending: _settled(P.RESTORING),
    },
    P.IDLE: {
        e.SandboxLost: _LOST,
        e.Cancelled: _rule("cancelled", P.IDLE),
        e.NextWithdrawn: _rule("next_withdrawn", P.IDLE),
        e.HealthChanged: _rule("health_changed", P.IDLE),
        e.Assigned: _rule("serve", P.SERVING),
        e.NextRequested: _rule("parked_again", *_AFTER_READY),
        e.AgentRegistered: _rule("register", P.IDLE),
        e.AgentFailed: _GIVEN_UP,
        e.AgentExited: _CRASH,
        e.NothingPending: _rule("rest", P.IDLE, P.QUIESCING, P.FROZEN),
        e.StopRequested: _STOP,
        e.DeadlineReached: _settled(P.IDLE),
    },
    P.SERVING: {
        e.SandboxLost: _LOST,
        e.Cancelled: _rule("cancelled", *_AFTER_LOSS),
        e.NextWithdrawn: _rule("next_withdrawn", P.SERVING),
        e.HealthChanged: _rule("health_changed", P.SERVING),
        e.Assigned: _rule("serve", P.SERVING),
        e.NextRequested: _rule("agent_ready", P.SERVING, P.IDLE, P.STOPPING, P.GONE),
        e.AnswerBegun: _rule("answer_begun", P.SERVING),
        e.Answered: _rule("answered", P.SERVING, P.IDLE, P.STOPPING, P.GONE),
        e.AnswerRefused: _rule("answer_refused", P.SERVING, P.IDLE, P.STOPPING, P.GONE),
        e.AgentRegistered: _rule("register", P.SERVING),
        e.AgentFailed: _GIVEN_UP,
        e.AgentExited: _CRASH,
        e.DeadlineReached: _rule("invocation_timed_out", *_AFTER_LOSS),
        e.StopRequested: _STOP,
        e.NothingPending: _settled(P.SERVING),
    },
    P.QUIESCING: {
        e.SandboxLost: _LOST,
        e.Cancelled: _rule("cancelled", P.QUIESCING),
        e.NextWithdrawn: _rule("next_withdrawn", P.QUIESCING),
        e.HealthChanged: _rule("health_changed", P.QUIESCING),
        e.Assigned: _rule("enqueue", P.QUIESCING),
        e.NextRequested: _rule("parked_again", P.QUIESCING),
        e.HookFinished: _rule("quiesced", P.FROZEN, P.IDLE, P.SERVING),
        e.AgentRegistered: _rule("register", P.QUIESCING),
        e.AgentFailed: _GIVEN_UP,
        e.AgentExited: _CRASH,
        e.DeadlineReached: _settled(P.QUIESCING),
        e.StopRequested: _STOP,
        e.NothingPending: _settled(P.QUIESCING),
    },
    P.FROZEN: {
        e.SandboxLost: _LOST,
        e.Cancelled: _settled(P.FROZEN),
        e.NextWithdrawn: _rule("next_withdrawn", P.FROZEN),
        e.HealthChanged: _rule("health_changed", P.FROZEN),
        e.Assigned: _rule("thaw_and_serve", P.SERVING),
        e.NextRequested: _rule("parked_again", P.FROZEN),
        e.AgentRegistered: _rule("register", P.FROZEN),
        e.AgentFailed: _GIVEN_UP,
        e.AgentExited: _CRASH,
        e.StopRequested: _STOP,
        e.DeadlineReached: _settled(P.FROZEN),
        e.NothingPending: _settled(P.FROZEN),
    },
    P.RESETTING: {
        e.RestoreAwaited: _settled(P.RESETTING),
        e.SandboxLost: _LOST,
        e.Cancelled: _rule("cancelled", P.RESETTING),
        e.NextWithdrawn: _settled(P.RESETTING),
        e.HealthChanged: _settled(P.RESETTING),
        e.Assigned: _rule("enqueue", P.RESETTING),
        e.AgentExited: _rule("agent_ended", *_AFTER_ENDING),
        e.DeadlineReached: _rule("ending_overdue", P.RESETTING, P.GONE),
        e.NextRequested: _settled(P.RESETTING),
        e.AgentRegistered: _settled(P.RESETTING),
        e.AgentFailed: _settled(P.RESETTING),
        e.HookFinished: _settled(P.RESETTING),
        e.StopRequested: _STOP,
        e.NothingPending: _settled(P.RESETTING),
    },
    P.UNINITIALIZED: {
        e.RestoreAwaited: _settled(P.UNINITIALIZED),
        e.SandboxLost: _LOST,
        e.Cancelled: _settled(P.UNINITIALIZED),
        e.NextWithdrawn: _settled(P.UNINITIALIZED),
        e.HealthChanged: _settled(P.UNINITIALIZED),
        e.Assigned: _rule("reinitialize", P.REINITIALIZING),
        e.AgentExited: _settled(P.UNINITIALIZED),
        e.DeadlineReached: _settled(P.UNINITIALIZED),
        e.AgentRegistered: _settled(P.UNINITIALIZED),
        e.AgentFailed: _settled(P.UNINITIALIZED),
        e.NextRequested: _settled(P.UNINITIALIZED),
        e.StopRequested: _STOP,
        e.NothingPending: _settled(P.UNINITIALIZED),
    },
    P.STOPPING: {
        e.RestoreAwaited: _settled(P.STOPPING),
        e.SandboxLost: _LOST,
        e.Cancelled: _settled(P.STOPPING),
        e.NextWithdrawn: _settled(P.STOPPING),
        e.HealthChanged: _settled(P.STOPPING),
        e.AgentExited: _rule("agent_ended", P.STOPPING, P.GONE),
        e.DeadlineReached: _rule("ending_overdue", P.STOPPING, P.GONE),
        e.HookFinished: _rule("stop_hook_finished", P.STOPPING, P.GONE),
        e.NextRequested: _settled(P.STOPPING),
        e.AgentRegistered: _settled(P.STOPPING),
        e.AgentFailed: _settled(P.STOPPING),
        e.StopRequested: _settled(P.STOPPING),
        e.NothingPending: _settled(P.STOPPING),
    },
    P.GONE: {
        event: _settled(P.GONE)
        for event in (
            e.SandboxReady,
            e.SandboxLost,
            e.AgentExited,
            e.DeadlineReached,
            e.HookFinished,
            e.NextRequested,
            e.AgentFailed,
            e.AgentRegistered,
            e.StopRequested,
            e.NothingPending,
            e.NextWithdrawn,
            e.Cancelled,
            e.HealthChanged,
            e.RestoreAwaited,
        )
    },
}
