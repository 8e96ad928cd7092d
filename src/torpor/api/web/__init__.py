"""Web services over HTTP: the operator's routes below `/_torpor/services`, and the services' own traffic."""

from torpor.api.web.operations import ServicesFace, body_limit, is_services_path
from torpor.api.web.traffic import Traffic, is_traffic, streams

__all__ = ["ServicesFace", "Traffic", "body_limit", "is_services_path", "is_traffic", "streams"]
