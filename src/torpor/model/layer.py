"""What functions share: layers and their immutable versions."""

from dataclasses import dataclass

from torpor.model.function import CodeRef


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerVersion:
    """One version of a layer. Numbers begin at 1 and are never given twice."""

    name: str
    number: int
    code: CodeRef
    created: float
    """Seconds since the epoch."""
    description: str = ""
    license: str = ""
    runtimes: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    deleted: bool = False
    """Not shown any more and not to be used by further functions; kept for its number."""
