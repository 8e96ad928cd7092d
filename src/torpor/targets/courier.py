"""One address for everything that leaves the server."""

from typing import assert_never

from torpor.model.errors import TargetRefused
from torpor.model.parcel import Parcel, ToFile, ToFunction, ToService, ToWeb
from torpor.targets.cloud import CloudServices
from torpor.targets.file import ResultFiles
from torpor.targets.web import WebRequests


class Couriers:
    """Sends each parcel the way it has to go."""

    def __init__(self, services: CloudServices, web: WebRequests, files: ResultFiles) -> None:
        self._services = services
        self._web = web
        self._files = files

    async def send(self, parcel: Parcel) -> None:
        """Raises TargetDown if it may work later, TargetRefused if it never will."""
        match parcel:
            case ToService():
                await self._services.send(parcel)
            case ToWeb():
                await self._web.send(parcel)
            case ToFile():
                await self._files.send(parcel)
            case ToFunction():
                raise TargetRefused("Functions are called by the queue itself.")
            case _:
                assert_never(parcel)
