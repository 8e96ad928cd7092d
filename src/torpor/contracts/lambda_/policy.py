"""The standard Lambda environment and that of managed instances as policy values (contract 1.1 to 1.3, 1.6)."""

from dataclasses import replace

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


def lambda_policy(
    start: Start, *, init_limit: float, restore_limit: float = limits.RESTORE_LIMIT, single_use: bool = False
) -> LifecyclePolicy:
    """By how the environment comes to be ready; `init_limit` is that of this kind."""
    policy = standard_policy(init_limit=init_limit, single_use=single_use)
    if start is Start.PROVISIONED:
        return _provisioned(policy)
    if start is Start.SAVED:
        return replace(policy, init_failure=InitFailure.REPLACE, is_saved=True)
    return replace(_replaced(policy), restore_limit=restore_limit) if start is Start.RESTORED else policy


def standard_policy(*, init_limit: float = limits.INIT_LIMIT, single_use: bool = False) -> LifecyclePolicy:
    """On-demand environments: one invocation at a time, frozen between invocations, reset after a failure."""
    return LifecyclePolicy(
        runtime_kind=RuntimeKind.POLLER,
        init_limit=init_limit,
        init_failure=InitFailure.RETRY_IN_INVOCATION,
        slots=1,
        timeout_scope=FailureScope.ENVIRONMENT,
        runtime_exit_scope=FailureScope.ENVIRONMENT,
        extension_exit_scope=FailureScope.ENVIRONMENT,
        freezing=Freezing.WHEN_IDLE,
        shutdown=_SHUTDOWN,
        single_use=single_use,
    )


def _provisioned(policy: LifecyclePolicy) -> LifecyclePolicy:
    """Environments that are kept initialised (1.4): nothing waits for their Init, and what fails is replaced ahead of
    the next invocation rather than initialised again inside it."""
    return replace(_replaced(policy), init_failure=InitFailure.REPLACE, early=False)


def _replaced(policy: LifecyclePolicy) -> LifecyclePolicy:
    """After a failure there is another environment."""
    return replace(
        policy,
        timeout_scope=FailureScope.REPLACE,
        runtime_exit_scope=FailureScope.REPLACE,
        extension_exit_scope=FailureScope.REPLACE,
    )


def extended_init_limit(version: FunctionVersion, floor: float = limits.EXTENDED_INIT_FLOOR) -> float:
    """Of an Init that no invocation waits for (1.1)."""
    return min(max(floor, version.timeout_s), limits.EXTENDED_INIT_CEILING)


def managed_policy(version: FunctionVersion, floor: float = limits.EXTENDED_INIT_FLOOR) -> LifecyclePolicy:
    """Managed instances: as many invocations at once as the version says, never frozen, replaced after a failure."""
    return LifecyclePolicy(
        runtime_kind=RuntimeKind.PARALLEL_POLLER,
        init_limit=extended_init_limit(version, floor),
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
