"""What the platform's log lines say beside the record itself."""

import msgspec


class LogFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the lines say beside the record itself."""

    function: str
    version: str
    memory_mb: int
    memory_used_mb: int
    runtime_version: str = ""
    runtime_resource: str = ""
    resource: str = ""
    tenant: str = ""
    initialization: str = ""
    """The type of initialisation that the environment had."""
    instance: str = ""
    """Its log stream."""
    trace: str = ""
    """The trace header of the invocation, if segments of it are recorded."""
