"""The operations of this API as its own published model describes them."""

from torpor.contracts.api_model import ApiModel, Member, Operation, Route, Shape, load

__all__ = ["ApiModel", "Member", "Operation", "Route", "Shape", "api_model"]


def api_model() -> ApiModel:
    """See `api_model.load`."""
    return load("lambda")
