"""What is asked of the sandbox for one version: the place, its processes, the extensions found in its layers."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torpor.engine.contract import Contract
from torpor.engine.extensions import external_extensions
from torpor.engine.surroundings import FetchCode
from torpor.lifecycle import EXTENSIONS, RUNTIME
from torpor.model.function import FunctionVersion
from torpor.model.start import Start
from torpor.sandbox.images import RuntimeImage
from torpor.sandbox.port import ProcessImage, ProcessSpec, Sandbox, SandboxSpec


class Specifications:
    """Made once the version's code lies in folders of the host."""

    def __init__(
        self,
        version: FunctionVersion,
        contract: Contract,
        image: RuntimeImage,
        start: Start,
        code: str,
        layers: Sequence[str],
    ) -> None:
        self._version = version
        self._contract = contract
        self._image = image
        self._start = start
        self._code = code
        self._layers = tuple(layers)
        self._place = contract.layout(version).code_at

    @property
    def extensions(self) -> tuple[str, ...]:
        """The external extensions, as agents."""
        wire = self._contract.extension_wire
        found = external_extensions(self._layers, wire.FOLDER) if wire is not None else ()
        return tuple(EXTENSIONS + name for name in found)

    def sandbox(self, name: str) -> SandboxSpec:
        version, contract = self._version, self._contract
        layout = contract.layout(version)
        return SandboxSpec(
            name=name,
            runtime=self._image.runtime,
            code=self._code,
            layers=self._layers,
            memory_mb=version.memory_mb,
            tmp_mb=version.tmp_mb,
            cpu_share=contract.cpu_share(version),
            processes=contract.processes_max,
            files=contract.files_max,
            code_at=layout.code_at,
            as_root=layout.as_root,
            writable=layout.writable,
            system=contract.system(version, self._code),
            restored=self._start is Start.RESTORED,
        )

    def placed(self, sandbox: Sandbox) -> FunctionVersion:
        """The version as it runs there: with the port that its server is told, where sandboxes share a network."""
        version, server = self._version, self._version.server
        port = sandbox.server_port(server.port) if server is not None else 0
        if server is None or port == server.port:
            return version
        return replace(version, server=replace(server, port=port))

    def process(self, agent: str, sandbox: Sandbox, log_stream: str, saved: ProcessImage | None) -> ProcessSpec:
        """The runtime, which may go on from where it was saved, or an external extension."""
        return self._runtime(sandbox, log_stream, saved) if agent == RUNTIME else self._extension(agent, sandbox)

    def _runtime(self, sandbox: Sandbox, log_stream: str, saved: ProcessImage | None) -> ProcessSpec:
        contract, version = self._contract, self._version
        image = self._image.placed(sandbox.paths)
        return ProcessSpec(
            name=RUNTIME,
            argv=contract.program(version, image, self._exists),
            environment=contract.variables(
                version,
                image,
                paths=sandbox.paths,
                api_address=sandbox.api_address,
                log_stream=log_stream,
                port=sandbox.server_port(version.server.port) if version.server is not None else 0,
                start=self._start,
            ),
            clone=self._image.clone_module is not None and contract.may_clone(version),
            framed_log_variable=contract.framed_log_variable(version),
            worker_log_variable=contract.worker_log_variable(version),
            image=saved,
            image_request=contract.wire.RESTORE_REQUEST if contract.wire is not None and saved is not None else "",
        )

    def _extension(self, agent: str, sandbox: Sandbox) -> ProcessSpec:
        paths: Mapping[str, str] = sandbox.paths
        return ProcessSpec(
            name=agent,
            argv=(f"{paths['opt']}/{agent}",),
            own_output=True,
            environment=self._contract.extension_variables(
                self._version,
                self._image.placed(paths),
                paths=paths,
                api_address=sandbox.api_address,
                start=self._start,
            ),
        )

    def _exists(self, path: str) -> bool:
        """Is a path of the package or a layer there, as seen inside?"""
        if path.startswith(self._place + "/"):
            return os.path.exists(self._code + path[len(self._place) :])
        return path.startswith("/opt/") and any(os.path.exists(layer + path[len("/opt") :]) for layer in self._layers)


async def fetched_specifications(
    version: FunctionVersion, contract: Contract, image: RuntimeImage, start: Start, fetch: FetchCode
) -> tuple[Specifications, bool]:
    """The specifications of a version's environment, its packages brought to this host; and whether one of them had
    to be. Raises StoreUnavailable."""
    code, fetched = await fetch(version.code)
    layers = []
    for layer in version.layers:
        folder, new = await fetch(layer)
        layers.append(folder)
        fetched = fetched or new
    return Specifications(version, contract, image, start, code, layers), fetched
