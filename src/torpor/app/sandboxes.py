"""The isolation ladder out of the settings, and what this host offers."""

import tempfile
from pathlib import Path

from torpor.app.process import runner
from torpor.model.errors import RuntimeMissing
from torpor.sandbox.images import ImageCatalog
from torpor.sandbox.interpreters import discover
from torpor.sandbox.ladder import Ladder, LadderOptions
from torpor.sandbox.port import Capability
from torpor.settings import Settings, local_port


def diagnose(settings: Settings) -> list[Capability]:
    """What this host offers, tried for real in a folder of its own: the isolation ladder and the runtimes found."""
    images = ImageCatalog(str(settings.runtimes), discover(), any_node=settings.any_node)

    async def climb(folder: Path) -> tuple[Capability, ...]:
        ladder = ladder_of(settings, folder, images)
        provider = await ladder.climb()
        found = ladder.capabilities(provider)
        await provider.close()
        await ladder.close()
        return found

    with tempfile.TemporaryDirectory(prefix="torpor-doctor-") as folder:
        return [*runner()(climb(Path(folder))), *runtimes(images)]


def runtimes(images: ImageCatalog) -> list[Capability]:
    return [
        Capability(name=name, available=images.installed(name), detail=_runtime_detail(images, name))
        for name in images.present()
    ]


def ladder_of(settings: Settings, folder: Path, images: ImageCatalog) -> Ladder:
    code = folder / "code"
    code.mkdir(exist_ok=True)
    return Ladder(
        LadderOptions(
            choice=settings.isolation,
            state_dir=str(folder / "sandboxes"),
            code_root=str(code),
            images=images,
            prepared=settings.prepared,
            boot_only=not settings.clone,
            host_ports=_host_ports(settings),
        )
    )


def _host_ports(settings: Settings) -> frozenset[int]:
    """Ports of the host's loopback that functions may reach: those set, and that of a local AWS endpoint."""
    port = local_port(settings.aws_endpoint_url)
    return frozenset(settings.host_ports) | (frozenset() if port is None else {port})


def _runtime_detail(images: ImageCatalog, name: str) -> str:
    try:
        image = images.resolve(name)
    except RuntimeMissing as error:
        return str(error)
    return f"{image.version} at {image.host_executable}" if image.host_executable else "bootstrap of the package"
