"""A call that an API answers with a code of its own."""

from torpor.model.errors import CallerError


class ApiFailure(CallerError):
    """The API answers this call with a code of its own; each API has a table of its codes."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
