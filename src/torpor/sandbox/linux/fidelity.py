"""Whether a cloned interpreter would be the same, to the code inside, as a freshly started one."""

from torpor.sandbox.images import RuntimeImage
from torpor.sandbox.port import ProcessSpec

_SHAPES_START = ("PYTHON", "LD_PRELOAD", "LD_AUDIT", "GLIBC_TUNABLES", "MALLOC_", "LC_ALL")
"""Variables with these beginnings act while an interpreter starts, which a clone has long done."""
_HARMLESS = frozenset({"PYTHONPATH"})
"""Read by the clone's own set-up."""


def may_clone(process: ProcessSpec, image: RuntimeImage) -> bool:
    """Whether this process may be a clone: the image's own program, with nothing set that shapes its start."""
    if not process.clone or process.argv != image.argv:
        return False
    return not any(name.startswith(_SHAPES_START) and name not in _HARMLESS for name in process.environment)
