"""Invoke: delivery, answers, and what follows once every agent asks for more."""

from torpor.lifecycle import effects as fx
from torpor.lifecycle import events as ev
from torpor.lifecycle.agents import Agent, AgentCall
from torpor.lifecycle.end_rules import EndRules
from torpor.lifecycle.ground import IllegalEvent
from torpor.lifecycle.phases import Frozen, Idle, PhaseName, Quiescing, Serving
from torpor.lifecycle.slots import Slot, SlotCall, SlotState
from torpor.model.failure import Answer, Failure, FailureKind
from torpor.model.policy import FailureScope, Freezing, RuntimeKind
from torpor.model.server import PRE_FREEZE

_IDLE, _SERVING, _FROZEN, _QUIESCING = Idle(), Serving(), Frozen(), Quiescing()


class InvokeRules(EndRules):
    """The rules of invocations in an environment that is ready."""

    def _serve(self, event: ev.Assigned, now: float) -> None:
        if self.free_slots <= 0:
            raise IllegalEvent("assigned without a free slot")
        slot = Slot(event.invocation, event.timeout)
        slot.started = now
        slot.deadline = now + event.timeout
        self._deliver(slot, now)

    def _thaw_and_serve(self, event: ev.Assigned, now: float) -> None:
        self._out.append(fx.Thaw())
        self._serve(event, now)

    def _deliver_waiting(self, now: float) -> None:
        while self.waiting and self._room() > 0:
            slot = self.waiting.popleft()
            if not slot.deadline:
                slot.started = now
                slot.deadline = now + slot.timeout
            self._deliver(slot, now)

    def _room(self) -> int:
        """For invocations that waited inside this environment."""
        if self.policy.runtime_kind is RuntimeKind.PARALLEL_POLLER:
            return self.parked
        return self.policy.slots - len(self.slots)

    def _deliver(self, slot: Slot, now: float) -> None:
        slot.move(SlotCall.DELIVER)
        invocation = slot.invocation
        self.slots[invocation.id] = slot
        self.runtime.move(AgentCall.DELIVER)
        if self.parked:
            self.parked -= 1
        self.phase = _SERVING
        self._out.append(fx.Deliver(invocation, now, slot.deadline))
        if self.extensions:
            self._notify(slot)

    def _notify(self, slot: Slot) -> None:
        for agent in self.extensions.values():
            if agent.wants_invoke:
                agent.move(AgentCall.DELIVER)
                self._out.append(fx.NotifyInvoke(agent.name, slot.invocation, slot.deadline))

    def _redeliver(self) -> None:
        slot = next(slot for slot in self.slots.values() if slot.state is SlotState.DELIVERED)
        self._out.append(fx.DeliverAgain(slot.invocation, slot.deadline))

    def _answer_begun(self, event: ev.AnswerBegun, now: float) -> None:
        slot = self.slots[event.invocation_id]
        self.runtime.move(AgentCall.BEGIN_ANSWER)
        slot.move(SlotCall.BEGIN_ANSWER)
        slot.answered_from = now

    def _answered(self, event: ev.Answered, now: float) -> None:
        self.returning += 1
        self._take_result(event.invocation_id, event.answer, now)

    def _answer_refused(self, event: ev.AnswerRefused, now: float) -> None:
        self._take_result(event.invocation_id, event.failure, now)

    def _take_result(self, invocation_id: str, result: Answer | Failure, now: float) -> None:
        slot = self.slots[invocation_id]
        self.runtime.move(AgentCall.ANSWER)
        if slot.state is SlotState.EXPIRED:
            self._drop(slot, now)
            return
        slot.move(SlotCall.ANSWER)
        slot.result = result
        slot.answered_at = now
        self._runtime_answered(slot, now)

    def _runtime_answered(self, slot: Slot, now: float) -> None:
        """The caller has its answer at once, unless it also wants the log that is not complete yet."""
        if not slot.invocation.wants_log:
            self._tell(slot)
        if self.policy.runtime_kind is not RuntimeKind.POLLER:
            self._finish(slot, now)

    def _agent_done(self, agent: Agent, now: float) -> None:
        """An agent asks for more work while an invocation runs."""
        if self.policy.runtime_kind is not RuntimeKind.POLLER:
            self._deliver_waiting(now)
            return
        slot = next(iter(self.slots.values()))
        if agent is self.runtime:
            self._runtime_through(slot, slot.result if isinstance(slot.result, Failure) else None, now)
        if slot.state is SlotState.ANSWERED and self._all_ready():
            self._finish(slot, now)

    def _finish(self, slot: Slot, now: float) -> None:
        failure = slot.result if isinstance(slot.result, Failure) else None
        self._report(slot, failure, now)
        if not slot.told:
            self._tell(slot)
        self._drop(slot, now)

    def _drop(self, slot: Slot, now: float) -> None:
        if slot.state is not SlotState.DONE:
            slot.move(SlotCall.FINISH)
        self.slots.pop(slot.invocation.id, None)
        if self.slots:
            return
        self.phase = _IDLE
        if self.draining:
            self._fail_all(Failure(kind=FailureKind.STOPPED, detail="failure"), now)
            self._end("failure", now, graceful=False)
        elif self.policy.single_use:
            self._end("spindown", now, graceful=True)

    def _expire(self, slot: Slot, failure: Failure, now: float) -> None:
        slot.move(SlotCall.EXPIRE)
        slot.result = failure
        self._report(slot, failure, now)
        self._tell(slot)

    def _abandon(self, slot: Slot, failure: Failure, scope: FailureScope, reason: str, now: float) -> None:
        """An invocation fails before its runtime is through with it; the scope says who else suffers."""
        if scope is FailureScope.DRAIN:
            self.draining = True
        elif scope is not FailureScope.INVOCATION:
            self._fail(slot, failure, now)
            self._give_up(scope, reason, failure, now)
            return
        if self.policy.runtime_kind is RuntimeKind.SERVER:
            self._fail(slot, failure, now)  # its connection is closed: nothing more will come
            self._drop(slot, now)
        else:
            self._expire(slot, failure, now)

    def _cancelled(self, event: ev.Cancelled, now: float) -> None:
        failure = Failure(kind=FailureKind.CANCELLED)
        slot = self.slots.get(event.invocation_id)
        if slot is not None and slot.state is SlotState.DELIVERED:
            self._abandon(slot, failure, self.policy.cancel_scope, "failure", now)
            return
        for slot in [slot for slot in self.waiting if slot.invocation.id == event.invocation_id]:
            self.waiting.remove(slot)
            self._fail(slot, failure, now)

    def _health_changed(self, event: ev.HealthChanged, now: float) -> None:
        self.healthy = event.healthy

    def _asked(self, agent: Agent) -> None:
        """The runtime has parked one more request for work."""
        if agent is self.runtime:
            self.parked += 1
            self.returning = max(self.returning - 1, 0)

    def _next_withdrawn(self, event: ev.NextWithdrawn, now: float) -> None:
        self.parked = max(self.parked - 1, 0)

    def _parked_again(self, event: ev.NextRequested, now: float) -> None:
        agent = self._agent(event.agent)
        agent.move(AgentCall.NEXT)
        self._asked(agent)
        if self.phase.name is PhaseName.IDLE:
            self._deliver_waiting(now)

    def _rest(self, event: ev.NothingPending, now: float) -> None:
        if self.policy.freezing is Freezing.NEVER or self.waiting:
            return
        if self.policy.pre_freeze_hook:
            self.phase = _QUIESCING
            self._out.append(fx.CallHook(PRE_FREEZE))
        else:
            self.phase = _FROZEN
            self._out.append(fx.Freeze())

    def _quiesced(self, event: ev.HookFinished, now: float) -> None:
        if self.waiting:
            self.phase = _IDLE
            self._deliver_waiting(now)
        else:
            self.phase = _FROZEN
            self._out.append(fx.Freeze())

    def _agent_gave_up(self, event: ev.AgentFailed, now: float) -> None:
        """An extension cannot go on; a runtime has no such call any more once it was ready."""
        failure = self._reported(event)
        if self.phase.name is PhaseName.FROZEN:
            self._out.append(fx.Thaw())
        self._give_up(self.policy.extension_exit_scope, "failure", failure, now)

    def _reported(self, event: ev.AgentFailed) -> Failure:
        self._agent(event.agent).move(AgentCall.FAIL if event.starting else AgentCall.GIVE_UP)
        return Failure(
            kind=FailureKind.INIT_ERROR, agent=event.agent, error_type=event.error_type, payload=event.payload
        )
