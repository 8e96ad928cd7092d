"""The command line: a face of the server that talks HTTP only, except where it starts or examines one."""

import os
import sys
from collections.abc import Sequence

from torpor.model.errors import InvalidRequest, TorporError

FAILED = 1
MISUSED = 2
INTERRUPTED = 130
_DEBUG = "TORPOR_DEBUG"


def main() -> None:
    """Run the program named on the command line and end the process with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command; its exit code. Every failure is one line on standard error, never a traceback."""
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return FAILED
    except TorporError as error:
        return _tell(str(error), MISUSED if isinstance(error, InvalidRequest) else FAILED)
    except Exception as error:
        if os.environ.get(_DEBUG):
            raise
        name = type(error).__name__
        return _tell(f"This is a fault in Torpor: {name}: {error}. Set {_DEBUG}=1 to see where.", FAILED)


def _run(arguments: Sequence[str]) -> int:
    import typer

    from torpor.cli.program import program

    try:
        code = program()(args=list(arguments) or ["--help"], prog_name="torpor", standalone_mode=False)
    except typer.Abort:
        return INTERRUPTED
    except Exception as error:
        if not isinstance(error, typer.BadParameter.__mro__[1]):
            raise
        return _misuse(error)
    return code if isinstance(code, int) else 0


def _misuse(error: Exception) -> int:
    text = error.format_message() if hasattr(error, "format_message") else str(error)
    context = getattr(error, "ctx", None)
    return _tell(f"{text} See `{context.command_path if context else 'torpor'} --help`.", MISUSED)


def _tell(message: str, code: int) -> int:
    print("torpor:", " ".join(message.split()), file=sys.stderr)
    return code
