"""The four serving styles as event lists, and for each policy row its failure."""

from dataclasses import replace

from tests.support.lifecycle import FUNCTION_SERVER, MANAGED, WEB_SERVICE, Story

from torpor.contracts.lambda_.policy import lambda_policy
from torpor.lifecycle import RUNTIME, PhaseName
from torpor.lifecycle import events as ev
from torpor.model.failure import Answer, Failure, FailureKind
from torpor.model.policy import ShutdownBudget
from torpor.model.start import Start

PROVISIONED = lambda_policy(Start.PROVISIONED, init_limit=130.0)


def _kind(story: Story, name: str = "i1") -> FailureKind:
    result = story.told[name]
    assert isinstance(result, Failure)
    return result.kind


def test_standard_cold_invocation_then_freeze_and_thaw() -> None:
    story = Story()
    assert story.assign() == []
    assert story.then(ev.SandboxReady()) == ["Emit", "ArmTimer", "StartAgents"]
    assert story.ready() == ["Emit", "Emit", "LimitCpu", "CancelTimer", "Deliver"]
    assert story.phase is PhaseName.SERVING
    assert story.answer() == ["Complete"]
    assert story.ready() == ["Emit", "Conclude"]
    assert story.then(ev.NothingPending()) == ["Freeze"]
    assert story.phase is PhaseName.FROZEN
    assert story.assign("i2") == ["Thaw", "Deliver"]


def test_caller_that_wants_the_log_is_told_only_when_the_invocation_is_reported() -> None:
    story = Story().frozen()
    story.assign(wants_log=True)
    assert story.answer() == []
    assert story.ready() == ["Emit", "Conclude", "Complete"]


def test_standard_init_timeout_is_made_again_inside_the_invocation_under_its_own_deadline() -> None:
    story = Story()
    story.assign(timeout=30.0)
    story.then(ev.SandboxReady())
    effects = story.then(ev.DeadlineReached("init"), after=10.0)
    assert effects == ["Emit", "Emit", "CancelTimer", "KillAgents", "ArmTimer"]
    assert story.phase is PhaseName.RESETTING
    effects = story.then(ev.AgentExited(RUNTIME, signal=9))
    assert effects[-4:] == ["ArmTimer", "Emit", "LimitCpu", "StartAgents"]
    assert story.phase is PhaseName.REINITIALIZING
    story.ready(after=12.0)
    story.answer()
    story.ready()
    ended = [effect.record for effect in story.effects if type(effect).__name__ == "Conclude"][-1]
    assert ended.init_duration is None and ended.duration > 12.0
    assert isinstance(story.told["i1"], Answer)


def test_standard_reinit_that_outlasts_the_timeout_fails_the_invocation() -> None:
    story = Story()
    story.assign(timeout=5.0)
    story.then(ev.SandboxReady())
    story.then(ev.DeadlineReached("init"), after=10.0)
    story.then(ev.AgentExited(RUNTIME, signal=9))
    story.then(ev.DeadlineReached("i1"), after=5.0)
    assert _kind(story) is FailureKind.TIMEOUT
    assert story.records()[-3:] == ["InvocationStarted", "RuntimeDone", "InvocationEnded"]


def test_standard_init_error_is_reported_once_it_fails_inside_the_invocation_too() -> None:
    story = Story()
    story.assign()
    story.then(ev.SandboxReady())
    story.then(ev.AgentFailed(RUNTIME, "Runtime.ImportModuleError", b'{"x":1}'))
    story.crash()
    assert story.phase is PhaseName.REINITIALIZING and not story.told
    story.then(ev.AgentFailed(RUNTIME, "Runtime.ImportModuleError", b'{"x":2}'))
    story.crash()
    result = story.told["i1"]
    assert isinstance(result, Failure) and result.payload == b'{"x":2}'
    assert story.phase is PhaseName.UNINITIALIZED


def test_standard_timeout_and_crash_reset_the_environment() -> None:
    story = Story().frozen()
    story.assign(timeout=3.0)
    effects = story.then(ev.DeadlineReached("i1"), after=3.0)
    assert effects == ["Emit", "Conclude", "Complete", "KillAgents", "ArmTimer"]
    assert story.phase is PhaseName.RESETTING
    story.then(ev.AgentExited(RUNTIME, signal=9))
    assert story.phase is PhaseName.UNINITIALIZED and _kind(story) is FailureKind.TIMEOUT
    story.assign("i2")
    assert story.phase is PhaseName.REINITIALIZING
    story.ready()
    story.crash(3)
    assert _kind(story, "i2") is FailureKind.EXIT and story.phase is PhaseName.UNINITIALIZED


def test_crash_after_the_answer_does_not_change_what_the_caller_was_told() -> None:
    story = Story().frozen()
    story.assign()
    story.answer()
    story.crash()
    assert isinstance(story.told["i1"], Answer)
    assert story.phase is PhaseName.UNINITIALIZED


def test_idle_crash_is_noticed_and_the_next_invocation_initialises_again() -> None:
    story = Story().frozen()
    story.crash()
    assert story.phase is PhaseName.UNINITIALIZED
    story.assign()
    assert story.phase is PhaseName.REINITIALIZING


def test_shutdown_without_extensions_kills_at_once() -> None:
    story = Story().frozen()
    assert story.then(ev.StopRequested("spindown")) == ["Emit", "KillAgents", "ArmTimer"]
    effects = story.then(ev.AgentExited(RUNTIME, signal=9))
    assert effects[-1] == "Destroy" and story.phase is PhaseName.GONE


def test_extensions_start_first_and_shutdown_ends_the_runtime_before_telling_them() -> None:
    story = Story(extensions=("watcher",))
    story.assign()
    assert story.then(ev.SandboxReady())[-1] == "StartAgents"
    assert not story.machine.runtime.lives
    assert story.then(ev.AgentRegistered("watcher", True, True, False)) == ["StartAgents"]
    story.ready()
    assert story.phase is PhaseName.INITIALIZING
    assert story.then(ev.NextRequested("watcher"))[-2:] == ["Deliver", "NotifyInvoke"]
    story.answer()
    story.ready()
    assert story.phase is PhaseName.SERVING
    story.then(ev.NextRequested("watcher"))
    assert story.phase is PhaseName.IDLE
    story.then(ev.NothingPending())
    assert story.then(ev.StopRequested("spindown")) == ["Thaw", "Emit", "ArmTimer", "SignalAgent", "ArmTimer"]
    assert story.then(ev.AgentExited(RUNTIME, signal=15)) == ["NotifyShutdown"]
    assert story.then(ev.AgentExited("watcher", code=0))[-1] == "Destroy"


def test_extension_crash_during_an_invocation_resets() -> None:
    story = Story(extensions=("watcher",))
    story.then(ev.SandboxReady())
    story.then(ev.AgentRegistered("watcher", True, True, False))
    story.ready()
    story.then(ev.NextRequested("watcher"))
    story.assign()
    story.crash(1, "watcher")
    result = story.told["i1"]
    assert isinstance(result, Failure) and result.agent == "watcher"
    assert story.phase is PhaseName.RESETTING


def test_managed_environment_serves_as_many_as_workers_ask() -> None:
    story = Story(MANAGED)
    story.then(ev.SandboxReady())
    story.ready()
    story.ready()
    assert story.phase is PhaseName.IDLE and story.machine.free_slots == 2
    story.assign("a")
    story.assign("b")
    assert story.machine.free_slots == 0
    story.answer("b")
    assert story.machine.free_slots == 0
    story.ready()
    assert story.machine.free_slots == 1
    assert story.then(ev.NothingPending()) == []


def test_managed_timeout_fails_one_invocation_and_refuses_its_late_answer() -> None:
    story = Story(MANAGED)
    story.then(ev.SandboxReady())
    story.ready()
    story.ready()
    story.assign("slow")
    story.assign("quick")
    story.then(ev.DeadlineReached("slow"), after=3.0)
    assert _kind(story, "slow") is FailureKind.TIMEOUT and story.phase is PhaseName.SERVING
    assert story.machine.has_expired("slow") and not story.machine.is_running("slow")
    story.answer("quick")
    assert isinstance(story.told["quick"], Answer)
    story.answer("slow")
    assert story.phase is PhaseName.IDLE


def test_managed_runtime_exit_fails_what_runs_and_ends_the_environment() -> None:
    story = Story(MANAGED)
    story.then(ev.SandboxReady())
    story.ready()
    story.assign()
    assert story.crash()[-1] == "Destroy"
    assert _kind(story) is FailureKind.EXIT and story.phase is PhaseName.GONE


def test_function_server_runs_its_hooks_around_init_freeze_and_stop() -> None:
    story = Story(FUNCTION_SERVER)
    story.assign()
    story.then(ev.SandboxReady())
    assert story.ready() == ["ArmTimer", "CallHook"]
    assert story.then(ev.HookFinished("initialize"))[-1] == "Deliver"
    story.assign("i2")
    story.answer()
    story.answer("i2")
    assert story.then(ev.NothingPending()) == ["CallHook"]
    assert story.phase is PhaseName.QUIESCING
    assert story.then(ev.HookFinished("pre-freeze")) == ["Freeze"]
    assert story.then(ev.StopRequested("spindown")) == ["Thaw", "Emit", "CallHook", "ArmTimer"]
    assert story.then(ev.HookFinished("pre-stop")) == ["ArmTimer", "SignalAgent", "ArmTimer"]
    assert story.then(ev.AgentExited(RUNTIME, code=0))[-1] == "Destroy"


def test_function_server_invocation_that_arrives_during_the_freeze_hook_is_served_without_a_freeze() -> None:
    story = Story(FUNCTION_SERVER)
    story.then(ev.SandboxReady())
    story.ready()
    story.then(ev.HookFinished("initialize"))
    story.then(ev.NothingPending())
    story.assign()
    assert story.then(ev.HookFinished("pre-freeze"))[-1] == "Deliver"


def test_function_server_failed_initializer_fails_those_who_wait() -> None:
    story = Story(FUNCTION_SERVER)
    story.assign()
    story.then(ev.SandboxReady())
    story.ready()
    story.then(ev.HookFinished("initialize", Failure(kind=FailureKind.INIT_ERROR)))
    assert _kind(story) is FailureKind.INIT_ERROR
    assert story.phase is PhaseName.STOPPING


def test_web_service_that_never_answers_its_probe_fails_those_who_wait() -> None:
    story = Story(WEB_SERVICE)
    story.assign()
    story.then(ev.SandboxReady())
    story.then(ev.DeadlineReached("init"), after=60.0)
    assert _kind(story) is FailureKind.TIMEOUT
    assert story.phase is PhaseName.STOPPING
    story.then(ev.DeadlineReached("shutdown"), after=10.0)
    story.then(ev.AgentExited(RUNTIME, signal=9))
    assert story.phase is PhaseName.GONE


def test_web_service_request_timeout_ends_the_environment_once_the_others_are_through() -> None:
    story = Story(WEB_SERVICE)
    story.then(ev.SandboxReady())
    story.ready()
    story.assign("a")
    story.assign("b")
    story.then(ev.DeadlineReached("a"), after=900.0)
    assert _kind(story, "a") is FailureKind.TIMEOUT
    assert story.phase is PhaseName.SERVING and story.machine.free_slots == 0
    story.answer("b")
    assert isinstance(story.told["b"], Answer)
    assert story.phase is PhaseName.STOPPING


def test_web_service_request_whose_caller_left_gives_its_slot_back_at_once() -> None:
    story = Story(WEB_SERVICE)
    story.then(ev.SandboxReady())
    story.ready()
    story.assign("a")
    story.assign("b")
    story.then(ev.Cancelled("a"))
    assert _kind(story, "a") is FailureKind.CANCELLED
    assert story.phase is PhaseName.SERVING and story.machine.free_slots == 9


def test_requests_beyond_the_first_wait_in_an_environment_that_starts_up_to_its_slots() -> None:
    story = Story(WEB_SERVICE)
    assert story.machine.free_slots == 10
    story.assign("a")
    story.assign("b")
    story.then(ev.SandboxReady())
    assert story.machine.free_slots == 8
    story.then(ev.Cancelled("a"))
    assert _kind(story, "a") is FailureKind.CANCELLED and story.machine.free_slots == 9
    assert story.ready()[-1] == "Deliver"


def test_unhealthy_server_takes_nothing_until_it_is_well_again() -> None:
    story = Story(WEB_SERVICE)
    story.then(ev.SandboxReady())
    story.ready()
    story.then(ev.HealthChanged(False))
    assert story.machine.free_slots == 0
    story.then(ev.HealthChanged(True))
    assert story.machine.free_slots == 10


def test_managed_worker_that_dies_fails_its_invocation_and_shrinks_the_environment() -> None:
    story = Story(MANAGED)
    story.then(ev.SandboxReady())
    for _ in range(3):
        story.ready()
    story.assign("a")
    story.assign("b")
    story.then(ev.AnswerRefused("a", Failure(kind=FailureKind.EXIT)))
    assert _kind(story, "a") is FailureKind.EXIT and story.phase is PhaseName.SERVING
    assert story.machine.free_slots == 1 and story.machine.returning_slots == 0
    story.then(ev.NextWithdrawn(RUNTIME))
    assert story.machine.free_slots == 0
    story.answer("b")
    assert story.machine.returning_slots == 1
    story.ready()
    assert story.machine.free_slots == 1 and story.machine.returning_slots == 0


def test_lost_sandbox_fails_everything_and_is_removed() -> None:
    story = Story()
    story.assign()
    assert story.then(ev.SandboxLost("no memory"))[-1] == "Destroy"
    assert _kind(story) is FailureKind.SANDBOX and story.phase is PhaseName.GONE


def test_stop_while_running_fails_the_invocation() -> None:
    story = Story().frozen()
    story.assign()
    story.then(ev.StopRequested("spindown"))
    assert _kind(story) is FailureKind.STOPPED


def test_sandbox_whose_processes_cannot_be_killed_counts_as_lost() -> None:
    story = Story().frozen()
    story.then(ev.StopRequested("spindown"))
    assert story.then(ev.DeadlineReached("shutdown"), after=9.0) == ["KillAgents", "ArmTimer"]
    assert story.then(ev.DeadlineReached("shutdown"), after=1.0)[-1] == "Destroy"
    assert story.phase is PhaseName.GONE


def test_invocation_waiting_for_a_reset_that_never_ends_is_failed() -> None:
    story = Story().frozen()
    story.assign()
    story.then(ev.DeadlineReached("i1"), after=3.0)
    story.assign("i2")
    story.then(ev.DeadlineReached("shutdown"), after=10.0)
    assert _kind(story, "i2") is FailureKind.SANDBOX


def test_frozen_server_is_thawed_for_its_stop_hook_though_it_is_killed_afterwards() -> None:
    at_once = ShutdownBudget(
        runtime_only=0.0, with_internal_extension=0.0, with_external_extension=0.0, runtime_share=1.0
    )
    story = Story(replace(FUNCTION_SERVER, init_hook=False, pre_freeze_hook=False, shutdown=at_once)).frozen()
    assert story.then(ev.StopRequested("spindown")) == ["Thaw", "Emit", "CallHook", "ArmTimer"]
    assert story.then(ev.HookFinished("pre-stop"))[0] == "KillAgents"


def test_stop_hook_that_outlasts_its_limit_is_followed_by_the_signal_and_its_late_end_by_nothing() -> None:
    story = Story(replace(FUNCTION_SERVER, init_hook=False)).initialised()
    story.then(ev.StopRequested("spindown"))
    assert story.then(ev.DeadlineReached("shutdown"), after=90.0) == ["ArmTimer", "SignalAgent", "ArmTimer"]
    assert story.then(ev.HookFinished("pre-stop", Failure(kind=FailureKind.TIMEOUT))) == []
    assert story.then(ev.DeadlineReached("shutdown"), after=5.0) == ["KillAgents", "ArmTimer"]
    assert story.crash()[-1] == "Destroy"


def test_server_that_dies_during_its_stop_hook_is_gone_at_once() -> None:
    story = Story(replace(FUNCTION_SERVER, init_hook=False)).initialised()
    story.then(ev.StopRequested("spindown"))
    assert story.crash()[-1] == "Destroy"
    assert story.then(ev.HookFinished("pre-stop")) == [] and story.phase is PhaseName.GONE


def test_initialise_hook_that_outlasts_its_own_limit_is_told_by_that_limit() -> None:
    story = Story(FUNCTION_SERVER)
    story.assign()
    story.then(ev.SandboxReady())
    story.ready()
    story.then(ev.DeadlineReached("init"), after=30.0)
    failure = story.told["i1"]
    assert isinstance(failure, Failure) and failure.kind is FailureKind.TIMEOUT
    assert (failure.limit, failure.detail) == (30.0, "initialize")


def test_invocation_that_found_no_worker_after_all_is_delivered_to_the_next_that_asks() -> None:
    story = Story(MANAGED, extensions=("extensions/e",))
    story.assign()
    story.then(ev.SandboxReady())
    story.then(ev.AgentRegistered("extensions/e", False, False, False))
    story.ready()
    story.then(ev.NextWithdrawn(RUNTIME))
    story.then(ev.NextRequested("extensions/e"))
    assert story.phase is PhaseName.IDLE and story.machine.waiting
    assert "Deliver" in story.ready()
    story.answer()
    assert isinstance(story.told["i1"], Answer)


def test_caller_that_left_a_parallel_runtime_is_told_once_though_the_time_runs_out_later() -> None:
    story = Story(MANAGED).initialised()
    story.assign()
    story.then(ev.Cancelled("i1"))
    assert _kind(story) is FailureKind.CANCELLED
    assert story.then(ev.DeadlineReached("i1"), after=3.0) == []
    story.answer()
    assert story.phase is PhaseName.IDLE


def test_provisioned_environment_takes_nothing_before_it_is_ready_and_freezes_then() -> None:
    story = Story(PROVISIONED)
    assert story.machine.free_slots == 0
    story.then(ev.SandboxReady())
    assert story.machine.free_slots == 0
    story.ready(after=100.0)
    assert (story.phase, story.machine.free_slots) == (PhaseName.IDLE, 1)
    assert story.then(ev.NothingPending()) == ["Freeze"]
    assert story.assign() == ["Thaw", "Deliver"]
    story.answer()
    story.ready()
    ended = [effect.record for effect in story.effects if type(effect).__name__ == "Conclude"][-1]
    assert ended.init_duration is not None and ended.init_duration >= 100.0 > ended.duration


def test_provisioned_environment_whose_start_fails_ends() -> None:
    story = Story(PROVISIONED)
    story.then(ev.SandboxReady())
    story.then(ev.DeadlineReached("init"), after=130.0)
    story.then(ev.AgentExited(RUNTIME, signal=9))
    assert story.phase is PhaseName.GONE


def test_provisioned_environment_that_crashes_or_times_out_ends_rather_than_start_again_in_an_invocation() -> None:
    for event in (ev.AgentExited(RUNTIME, code=3), ev.DeadlineReached("i1")):
        story = Story(PROVISIONED).frozen()
        story.assign(timeout=3.0)
        story.then(event, after=3.0)
        if story.phase is not PhaseName.GONE:
            story.then(ev.AgentExited(RUNTIME, signal=9))
        assert story.phase is PhaseName.GONE and isinstance(story.told["i1"], Failure)
