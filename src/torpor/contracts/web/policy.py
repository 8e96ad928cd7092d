"""Web services as policy values (contract 1.2, 1.5, 5): the serverless kind, and the persistent one."""

from torpor.contracts.web import limits
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

_SHUTDOWN = ShutdownBudget(
    runtime_only=limits.STOP_GRACE,
    with_internal_extension=limits.STOP_GRACE,
    with_external_extension=limits.STOP_GRACE,
    runtime_share=1.0,
)


def policy(version: FunctionVersion, *, start_limit: float = limits.START_LIMIT) -> LifecyclePolicy:
    """A server that is sent requests. A serverless one rests while it has none and is not trusted any more after a
    request that took too long; a persistent one always runs. `start_limit` is in seconds."""
    persistent = version.persistent
    return LifecyclePolicy(
        runtime_kind=RuntimeKind.SERVER,
        init_limit=start_limit,
        init_failure=InitFailure.FAIL_WAITING,
        slots=version.concurrency,
        timeout_scope=FailureScope.INVOCATION if persistent else FailureScope.DRAIN,
        runtime_exit_scope=FailureScope.REPLACE,
        extension_exit_scope=FailureScope.REPLACE,
        freezing=Freezing.NEVER if persistent else Freezing.WHEN_IDLE,
        shutdown=_SHUTDOWN,
        cancel_scope=FailureScope.INVOCATION,
    )


def scaling(version: FunctionVersion) -> ScalingPolicy:
    """Serverless: from none to many by demand. Persistent: exactly one, which stays until another takes over."""
    if version.persistent:
        return ScalingPolicy(
            when_full=WhenFull.QUEUE,
            queue_limit=limits.QUEUE_LIMIT,
            minimum=1,
            maximum=1,
            counted=False,
            handover=True,
            leave_limit=limits.LEAVE_LIMIT,
        )
    return ScalingPolicy(
        when_full=WhenFull.QUEUE,
        queue_limit=limits.QUEUE_LIMIT,
        minimum=version.minimum,
        maximum=version.maximum,
        counted=False,
        idle_timeout=limits.IDLE_TIMEOUT if version.idle_timeout_s is None else version.idle_timeout_s,
    )


def cpu_share(version: FunctionVersion) -> float:
    """CPUs that a memory size stands for (contract 1.4)."""
    return version.memory_mb / limits.MEMORY_PER_CPU_MB


def response_limit(version: FunctionVersion) -> int | None:
    """Bytes that the body of an answer may have; None for as many as it likes."""
    return None if version.persistent else limits.RESPONSE_MAX


def request_limit(version: FunctionVersion) -> int | None:
    """Bytes that the body of a request may have; None for as many as it likes."""
    return None if version.persistent else limits.REQUEST_MAX
