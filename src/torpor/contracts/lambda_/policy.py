"""The standard Lambda environment and that of managed instances as policy values (contract 1.1 to 1.3, 1.6)."""

from torpor.contracts.lambda_ import limits
from torpor.model.function import FunctionVersion
from torpor.model.policy import (
    FailureScope,
    Freezing,
    InitFailure,
    LifecyclePolicy,
    RuntimeKind,
    ShutdownBudget,
)
from torpor.model.start import Start

_SHUTDOWN = ShutdownBudget(
    runtime_only=0.0,
    with_internal_extension=limits.SHUTDOWN_INTERNAL_EXTENSION,
    with_external_extension=limits.SHUTDOWN_EXTERNAL_EXTENSION,
    runtime_share=limits.SHUTDOWN_RUNTIME_SHARE,
)


def standard_policy(
    start: Start = Start.ON_DEMAND,
    *,
    init_limit: float = limits.INIT_LIMIT,
    restore_limit: float = limits.RESTORE_LIMIT,
    single_use: bool = False,
) -> LifecyclePolicy:
    """One invocation at a time, frozen between invocations; reset after a failure, or made anew from the snapshot if
    there is one."""
    scope = FailureScope.ENVIRONMENT if start is not Start.RESTORED else FailureScope.REPLACE
    return LifecyclePolicy(
        runtime_kind=RuntimeKind.POLLER,
        init_limit=init_limit,
        init_failure=InitFailure.REPLACE if start is Start.SAVED else InitFailure.RETRY_IN_INVOCATION,
        slots=1,
        timeout_scope=scope,
        runtime_exit_scope=scope,
        extension_exit_scope=scope,
        freezing=Freezing.WHEN_IDLE,
        shutdown=_SHUTDOWN,
        single_use=single_use,
        is_saved=start is Start.SAVED,
        restore_limit=restore_limit if start is Start.RESTORED else 0.0,
    )


def extended_init_limit(version: FunctionVersion) -> float:
    """Of an Init that no invocation waits for (1.1)."""
    return min(max(limits.EXTENDED_INIT_FLOOR, version.timeout_s), limits.EXTENDED_INIT_CEILING)


def managed_policy(version: FunctionVersion) -> LifecyclePolicy:
    """Managed instances: as many invocations at once as the version says, never frozen, replaced after a failure."""
    return LifecyclePolicy(
        runtime_kind=RuntimeKind.PARALLEL_POLLER,
        init_limit=extended_init_limit(version),
        init_failure=InitFailure.REPLACE,
        slots=version.concurrency,
        timeout_scope=FailureScope.INVOCATION,
        runtime_exit_scope=FailureScope.REPLACE,
        extension_exit_scope=FailureScope.REPLACE,
        freezing=Freezing.NEVER,
        shutdown=_SHUTDOWN,
    )


def cpu_share(version: FunctionVersion) -> float:
    """CPUs that a memory size stands for (contract 7), unless the version names its own."""
    return version.memory_mb / limits.MEMORY_PER_CPU_MB if version.cpu is None else version.cpu
