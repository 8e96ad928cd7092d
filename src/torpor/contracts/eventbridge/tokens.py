"""Tokens of pages: each stands for the name of the last item shown, so that nothing shifts when others come and go."""

import base64
import binascii

from torpor.contracts.eventbridge.failures import invalid


def token_of(name: str) -> str:
    """The token of the page behind this item."""
    return base64.urlsafe_b64encode(name.encode()).decode()


def name_behind(token: str) -> str:
    """The name that a token stands for. Raises ApiFailure for a text that never was one."""
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise invalid("The specified NextToken is invalid.") from error
