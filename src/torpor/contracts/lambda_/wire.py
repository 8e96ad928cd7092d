"""A request to the API and its answer, free of any transport."""

from torpor.contracts.http import JSON, ApiRequest, ApiResponse, RequestHeaders

__all__ = ["JSON", "ApiRequest", "ApiResponse", "RequestHeaders"]
