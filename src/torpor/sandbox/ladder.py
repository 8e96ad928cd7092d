"""The isolation ladder: which rungs this host offers, and the strongest of them."""

from pathlib import Path

from torpor.sandbox.images import ImageCatalog
from torpor.sandbox.plain import PlainProvider
from torpor.sandbox.port import Capability, SandboxProvider


def strongest(settings: object, folder: Path, images: ImageCatalog) -> SandboxProvider:
    return PlainProvider(str(folder / "sandboxes"), images)


def ladder(settings: object, images: ImageCatalog) -> list[Capability]:
    return []
