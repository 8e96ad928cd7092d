"""How the processes of an environment are ended, in a reset and in a shutdown (contract 1.3).

The runtime goes first. With a time budget it gets a polite signal and a share of that budget, then each external
extension that asked for it is told of the shutdown and has the rest; whoever is left at the deadline is killed.
Without a budget everything is killed at once.
"""

from collections.abc import Iterator, Mapping

from torpor.lifecycle import effects as fx
from torpor.lifecycle.agents import RUNTIME, Agent, AgentState
from torpor.model.policy import ShutdownBudget

KILL_GRACE = 10.0
"""Seconds in which killed processes must be reported gone; after that the sandbox counts as lost."""


class Ending:
    """The steps of one ending, computed from the agents as they stand; holds no state of its own."""

    def __init__(self, shutdown: ShutdownBudget, runtime: Agent, extensions: Mapping[str, Agent], now: float) -> None:
        self._shutdown = shutdown
        self._runtime = runtime
        self._extensions = extensions
        self._now = now

    @property
    def budget(self) -> float:
        """Seconds for the whole ending."""
        if any(agent.external and agent.lives for agent in self._extensions.values()):
            return self._shutdown.with_external_extension
        if any(agent.lives for agent in self._extensions.values()):
            return self._shutdown.with_internal_extension
        return self._shutdown.runtime_only

    @property
    def deadline(self) -> float:
        return self._now + self.budget

    def begin(self, reason: str, *, graceful: bool) -> Iterator[fx.Effect]:
        """The first steps. Strays that the agents left behind are killed too where there is no budget."""
        if not self.budget:
            yield fx.KillAgents()
            yield fx.ArmTimer("shutdown", self._now + KILL_GRACE)
            return
        yield fx.ArmTimer("shutdown", self.deadline)
        if not self._runtime.lives:
            yield from self.runtime_gone(reason, self.deadline)
        elif graceful:
            yield fx.SignalAgent(RUNTIME, fx.SignalName.TERMINATE)
            share = self.budget * self._shutdown.runtime_share
            yield fx.ArmTimer("shutdown-runtime", self._now + share)
        else:
            yield fx.SignalAgent(RUNTIME, fx.SignalName.KILL)

    def runtime_gone(self, reason: str, deadline: float) -> Iterator[fx.Effect]:
        """The runtime has ended: now the extensions' turn; with none left, or no time, everything is killed."""
        told = False
        if self._now >= deadline:
            yield fx.KillAgents()
            return
        for agent in self._extensions.values():
            if not (agent.external and agent.lives):
                continue
            told = True
            if agent.state is AgentState.FAILED or agent.state is AgentState.GAVE_UP:
                continue  # it has said that it ends
            if agent.wants_shutdown:
                yield fx.NotifyShutdown(agent.name, reason, deadline)
            else:
                yield fx.SignalAgent(agent.name, fx.SignalName.KILL)
        if not told:
            yield fx.KillAgents()
