"""Web services: functions that are servers, deployed from source by a build and a start command.

A deployment runs beside everything else: the service in force goes on until the new one is built and kept, and a
deployment that fails changes nothing.
"""

import asyncio
import io
import logging
import zipfile
from collections.abc import Callable, Iterable
from itertools import count
from typing import Protocol, cast

from torpor.contracts.web import environment, limits, names
from torpor.contracts.web.settings import CONTRACT, ServiceSettings, build_command, version_fields
from torpor.model.build import BuildOrder
from torpor.model.errors import BuildFailed, Conflict, InvalidPackage, NotFound, TooLarge, TorporError
from torpor.model.function import FunctionRecord
from torpor.service.changes import Changes, NewFunction
from torpor.service.deployments import Deployment, Stage
from torpor.service.functions import Functions
from torpor.service.packages import Package
from torpor.store.package import refuse_crowded
from torpor.store.ports import Tree

RUNTIME = "server"
BUILDS_AT_ONCE = 2
DEPLOYMENTS_KEPT = 500
_LOG = logging.getLogger(__name__)


class Builder(Protocol):
    """Makes applications of sources."""

    async def build(self, order: BuildOrder, on_output: Callable[[bytes], None]) -> Tree:
        """Run the build; its tree is the caller's to keep or to `discard`. Raises BuildFailed for the command,
        InvalidPackage and TooLarge for the source, and SandboxUnavailable."""
        ...

    async def discard(self, tree: Tree) -> None:
        """Remove a tree that nobody wants."""
        ...


class Services:
    """The services of one server. All methods belong to one event loop's thread."""

    def __init__(self, functions: Functions, builder: Builder, build_limit: float = limits.BUILD_TIME) -> None:
        """`build_limit` is the longest time in seconds that a build command may take."""
        self._functions = functions
        self._builder = builder
        self._build_limit = build_limit
        self._deployments: dict[str, Deployment] = {}
        self._numbers = count(1)
        self._building = asyncio.Semaphore(BUILDS_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    def get(self, name: str) -> FunctionRecord:
        """Raises NotFound."""
        try:
            return self._functions.get(names.record_name(name))
        except NotFound:
            raise NotFound(f"There is no service {name}.", what="service") from None

    def all(self) -> Iterable[FunctionRecord]:
        """Every service, by name."""
        return [self._functions.get(name) for name in self._functions.names(CONTRACT)]

    async def deploy(self, name: str, archive: bytes, settings: ServiceSettings) -> Deployment:
        """Begin to deploy a service, new or not, from a zip archive of its source.

        Raises InvalidRequest for name and settings, TooLarge and InvalidPackage for the source, and Conflict while
        another deployment of it is under way.
        """
        names.checked_name(name)
        present = self._present(name)
        version_fields(name, settings, present.latest if present else None)
        await asyncio.to_thread(_check_source, archive)
        known = self._deployments.get(name)
        if known is not None and not known.is_over:
            raise Conflict(f"The service {name} is being deployed already; wait for that to end.")
        self._forget_old()
        deployment = Deployment(next(self._numbers), output_limit=limits.BUILD_LOG_MAX)
        self._deployments.pop(name, None)
        self._deployments[name] = deployment
        task = asyncio.get_running_loop().create_task(self._perform(name, archive, settings, deployment))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return deployment

    def configure(self, name: str, settings: ServiceSettings) -> FunctionRecord:
        """Change settings and keep what was built. Raises NotFound, and InvalidRequest for the settings."""
        present = self.get(name)
        return self._functions.update_configuration(present.name, _changes(name, settings, present))

    def deployment(self, name: str) -> Deployment:
        """The last one since the server was started. Raises NotFound."""
        try:
            return self._deployments[name]
        except KeyError:
            raise NotFound(f"No deployment of a service {name} is known here.", what="deployment") from None

    def delete(self, name: str) -> None:
        """Raises NotFound, and Conflict while it is being deployed."""
        record = self.get(name)
        known = self._deployments.get(name)
        if known is not None and not known.is_over:
            raise Conflict(f"The service {name} is being deployed; wait for that to end.")
        self._functions.delete(record.name)
        self._deployments.pop(name, None)

    async def close(self) -> None:
        """End what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _forget_old(self) -> None:
        """Of many deployments only the last ones are known."""
        ended = [name for name, deployment in self._deployments.items() if deployment.is_over]
        for name in ended[: max(len(ended) - DEPLOYMENTS_KEPT, 0)]:
            del self._deployments[name]

    def _present(self, name: str) -> FunctionRecord | None:
        try:
            return self.get(name)
        except NotFound:
            return None

    async def _perform(self, name: str, archive: bytes, settings: ServiceSettings, deployment: Deployment) -> None:
        """Whatever goes wrong is told to whoever waits."""
        try:
            await self._build_and_keep(name, archive, settings, deployment)
        except BuildFailed as error:
            deployment.fail(str(error), error.code)
        except TorporError as error:
            deployment.fail(str(error))
        except asyncio.CancelledError:
            deployment.fail("The server is stopping; deploy again once it is back.")
            raise
        except Exception:
            _LOG.exception("deploying %s failed", name)
            deployment.fail("The platform failed; the server's own output says why.")
        else:
            deployment.enter(Stage.SUCCEEDED)

    async def _build_and_keep(
        self, name: str, archive: bytes, settings: ServiceSettings, deployment: Deployment
    ) -> None:
        present = self._present(name)
        command = build_command(settings, present.latest if present else None)
        if not command:
            await self._keep(name, archive, settings, deployment)
            return
        order = _order(archive, command, settings, present, self._build_limit)
        async with self._building:
            deployment.enter(Stage.BUILDING)
            tree = await self._builder.build(order, deployment.write)
        try:
            await self._keep(name, tree, settings, deployment)
        finally:
            await self._builder.discard(tree)

    async def _keep(self, name: str, package: Package, settings: ServiceSettings, deployment: Deployment) -> None:
        deployment.enter(Stage.STORING)
        present = self._present(name)
        changes = _changes(name, settings, present)
        if present is not None:
            await self._functions.update_code(present.name, package, changes=changes)
            return
        new = NewFunction(
            name=names.record_name(name),
            resource=name,
            contract=CONTRACT,
            runtime=RUNTIME,
            handler="",
            configuration=changes,
        )
        await self._functions.create(new, package)


def _changes(name: str, settings: ServiceSettings, present: FunctionRecord | None) -> Changes:
    fields = version_fields(name, settings, present.latest if present else None)
    return cast(Changes, fields)


def _order(
    archive: bytes, command: str, settings: ServiceSettings, present: FunctionRecord | None, time_limit: float
) -> BuildOrder:
    before = present.latest.version if present else None
    own = settings.environment if settings.environment is not None else (before.environment if before else {})
    port = settings.port or (environment.port(before) if before else limits.PORT_DEFAULT)
    return BuildOrder(
        archive=archive,
        program=environment.shell(f"umask 022\n{command}"),
        shown=command,
        variables=lambda image, folder: environment.build_variables(own, image, folder, port),
        image=RUNTIME,
        code_at=environment.APP,
        system_at=environment.SYSTEM,
        source_limit=limits.UNPACKED_MAX,
        disk_mb=limits.BUILT_MAX // limits.MIB,
        memory_mb=limits.BUILD_MEMORY_MB,
        processes=limits.PROCESSES_MAX,
        files=limits.FILES_MAX,
        time_limit=time_limit,
    )


def _check_source(archive: bytes) -> None:
    limit = limits.PACKAGE_MAX
    if len(archive) > limit:
        raise TooLarge(f"The source has {len(archive)} bytes zipped, more than {limit}.", what="zipped", limit=limit)
    refuse_crowded(archive)
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as package:
            found = package.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise InvalidPackage(f"The source is not a readable zip archive: {error}.") from error
    if any([part for part in name.split("/") if part not in ("", ".")][:1] == [environment.SYSTEM] for name in found):
        raise InvalidPackage(f"The source holds {environment.SYSTEM}, a name that belongs to the platform.")
