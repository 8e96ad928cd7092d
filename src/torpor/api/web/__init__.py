"""Web services over HTTP: the operator's routes below `/_torpor/services`, and the services' own traffic."""

from torpor.api.web.operations import PREFIX, ServicesFace
from torpor.api.web.traffic import Traffic

__all__ = ["PREFIX", "ServicesFace", "Traffic"]
