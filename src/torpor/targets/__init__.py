"""Where results of events go outside of this server, and queues whose messages become events: ports of the engine's
surroundings, one module for each way."""

from torpor.targets.cloud import CloudServices as CloudServices
from torpor.targets.courier import Couriers as Couriers
from torpor.targets.file import ResultFiles as ResultFiles
from torpor.targets.web import WebRequests as WebRequests
