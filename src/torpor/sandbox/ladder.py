"""The isolation ladder: every rung this host might offer, strongest first, each tried for real.

sandbox           as root: namespaces, a private root, cgroups, a system call filter, one user per sandbox
sandbox-rootless  the same inside a user namespace, for ordinary accounts
process           no isolation, for laptops and trusted code only
"""

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass

from torpor.model.errors import PlatformError, SandboxUnavailable
from torpor.sandbox.images import ImageCatalog
from torpor.sandbox.linux import LinuxProvider
from torpor.sandbox.linux.egress import EgressPolicy, EgressRelay
from torpor.sandbox.plain import PlainProvider
from torpor.sandbox.port import Capability, Isolation, SandboxProvider

_PROBE = "provided.al2023"
"""The runtime that every host can serve: making its first sandbox ready shows whether a rung holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LadderOptions:
    """What the rungs are built with. `choice` is `auto`, `sandbox` or `process`."""

    choice: str
    state_dir: str
    code_root: str
    images: ImageCatalog
    prepared: int = 2
    boot_only: bool = False
    host_ports: frozenset[int] = frozenset()


class Ladder:
    """Finds the strongest rung that holds, and remembers why the others do not."""

    def __init__(self, options: LadderOptions) -> None:
        self._options = options
        self._tried: list[Capability] = []
        self._egress: EgressRelay | None = None

    async def climb(self) -> SandboxProvider:
        """The strongest rung, opened. Raises PlatformError if the chosen kind cannot be had, with every reason."""
        for isolation in self._rungs():
            try:
                provider = await self._open(isolation)
            except SandboxUnavailable as error:
                self._tried.append(Capability(name=isolation, available=False, detail=str(error)))
                continue
            self._tried.append(Capability(name=isolation, available=True, detail="in use"))
            return provider
        reasons = " ".join(f"{rung.name}: {rung.detail}" for rung in self._tried)
        raise PlatformError(
            f"No sandbox can be made on this host. {reasons} Run with --isolation process to do without isolation."
        )

    def capabilities(self, provider: SandboxProvider) -> tuple[Capability, ...]:
        """Every rung with its reason, then what the rung in use offers."""
        return (*self._tried, *provider.capabilities())

    async def close(self) -> None:
        """End what the rungs share."""
        if self._egress is not None:
            await self._egress.close()

    def _rungs(self) -> Iterator[Isolation]:
        choice = self._options.choice
        if choice in ("auto", "sandbox"):
            if os.geteuid() == 0:
                yield Isolation.ROOT
            else:
                detail = "needs root: start the server as root for the strongest isolation"
                self._tried.append(Capability(name=Isolation.ROOT, available=False, detail=detail))
                yield Isolation.ROOTLESS
        if choice in ("auto", "process"):
            yield Isolation.PROCESS

    async def _open(self, isolation: Isolation) -> SandboxProvider:
        options = self._options
        if isolation is Isolation.PROCESS:
            plain = PlainProvider(options.state_dir, options.images)
            await plain.open()
            return plain
        provider = LinuxProvider(
            options.state_dir,
            options.code_root,
            options.images,
            egress=await self._relay(),
            rootless=isolation is Isolation.ROOTLESS,
            prepared_target=options.prepared,
            boot_only=options.boot_only,
        )
        try:
            await provider.open()
            async with asyncio.timeout(30.0):
                await provider.warm(_PROBE)
        except TimeoutError as error:
            await provider.close()
            raise SandboxUnavailable("making a sandbox took longer than 30 seconds") from error
        except SandboxUnavailable:
            await provider.close()
            raise
        return provider

    async def _relay(self) -> EgressRelay:
        if self._egress is None:
            relay = EgressRelay(EgressPolicy(allow_loopback_ports=self._options.host_ports))
            await relay.start()
            self._egress = relay
        return self._egress
