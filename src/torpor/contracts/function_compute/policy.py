"""An instance of Function Compute as policy values (1.2, 1.8 to 1.10)."""

from torpor.contracts.function_compute import limits
from torpor.contracts.function_compute.server_wire import hook_timeout
from torpor.model.function import FunctionVersion
from torpor.model.policy import (
    FailureScope,
    Freezing,
    InitFailure,
    LifecyclePolicy,
    RuntimeKind,
    ScalingPolicy,
    ShutdownBudget,
    WhenFull,
)
from torpor.model.server import INITIALIZE, PRE_FREEZE, PRE_STOP, ServerSettings


def instance_policy(
    version: FunctionVersion, *, start_limit: float = limits.START_LIMIT, grace: float = limits.SHUTDOWN_GRACE
) -> LifecyclePolicy:
    """The life of one instance; times in seconds."""
    server = version.server
    hooks = server.hooks if server is not None else {}
    alone = version.concurrency == 1
    return LifecyclePolicy(
        runtime_kind=RuntimeKind.SERVER,
        init_limit=start_limit,
        init_failure=InitFailure.FAIL_WAITING,
        slots=version.concurrency,
        timeout_scope=FailureScope.REPLACE if alone else FailureScope.DRAIN,
        runtime_exit_scope=FailureScope.REPLACE,
        extension_exit_scope=FailureScope.REPLACE,
        freezing=_freezing(server),
        shutdown=ShutdownBudget(
            runtime_only=grace, with_internal_extension=grace, with_external_extension=grace, runtime_share=1.0
        ),
        cancel_scope=_cancel_scope(server, alone=alone),
        init_hook=INITIALIZE in hooks or _is_checked(server),
        init_hook_limit=_init_hook_limit(version, server),
        pre_freeze_hook=PRE_FREEZE in hooks,
        pre_stop_hook=PRE_STOP in hooks,
        pre_stop_limit=hook_timeout(version, PRE_STOP),
    )


def _init_hook_limit(version: FunctionVersion, server: ServerSettings | None) -> float:
    """The hook itself, and the first health check after it."""
    limit = limits.HOOK_MARGIN
    if server is not None and INITIALIZE in server.hooks:
        limit += hook_timeout(version, INITIALIZE)
    if server is not None and server.health is not None:
        limit += server.health.initial_delay_s + server.health.timeout_s
    return limit


def scaling(
    version: FunctionVersion, *, together: int = limits.INSTANCES, idle_timeout: float = limits.IDLE_TIMEOUT
) -> ScalingPolicy:
    """How many instances: those above the region's cap are refused to callers who wait for the result (0, 8)."""
    chosen = version.idle_timeout_s
    return ScalingPolicy(
        on_demand=True,
        when_full=WhenFull.REFUSE,
        minimum=version.minimum,
        maximum=version.maximum,
        together=together,
        counted=False,
        idle_timeout=idle_timeout if chosen is None else chosen,
    )


def cpu_share(version: FunctionVersion) -> float:
    """CPUs: as configured, else in proportion to the memory."""
    return version.cpu or max(limits.CPU_MIN, version.memory_mb / limits.MEMORY_PER_CPU_MB)


def _is_checked(server: ServerSettings | None) -> bool:
    return server is not None and server.health is not None


def _freezing(server: ServerSettings | None) -> Freezing:
    # A frozen server cannot answer the checks that tell whether requests may go to it.
    return Freezing.NEVER if _is_checked(server) else Freezing.WHEN_IDLE


def _cancel_scope(server: ServerSettings | None, *, alone: bool) -> FailureScope:
    return FailureScope.REPLACE if alone and not _is_checked(server) else FailureScope.INVOCATION
