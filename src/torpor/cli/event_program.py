"""`torpor events`: its commands and their options."""

from collections.abc import Callable
from typing import Annotated

import typer

_CONTEXT = {"help_option_names": ["-h", "--help"]}
Endpoint = Annotated[
    str | None,
    typer.Option("--endpoint", envvar="TORPOR_ENDPOINT", metavar="URL", help="The server to talk to."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Identity = Annotated[str, typer.Argument(metavar="ID", help="An event's number, or its request id.")]


def event_program() -> typer.Typer:
    """The commands below `torpor events`; without one of them it prints the overview."""
    app = typer.Typer(rich_markup_mode=None, context_settings=_CONTEXT, invoke_without_command=True)
    app.callback()(overview)
    commands: dict[str, Callable[..., int]] = {
        "list": list_events,
        "sources": sources,
        "show": show_event,
        "retry": retry_event,
        "drop": drop_event,
    }
    for name, command in commands.items():
        app.command(name, context_settings=_CONTEXT)(command)
    return app


def overview(context: typer.Context, endpoint: Endpoint = None, json: Json = False) -> int | None:
    """Asynchronous events: how many of each function stand where, how old they are, how they come and go."""
    if context.invoked_subcommand is not None:
        return None
    from torpor.cli.events import overview

    return overview(endpoint=endpoint, as_json=json)


def list_events(
    function: Annotated[str | None, typer.Option("--function", metavar="NAME", help="Of this function only.")] = None,
    state: Annotated[
        str | None,
        typer.Option(
            "--state",
            help="queued, waiting (for an environment), running, delivering, succeeded, failed, dead or dropped.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many at most.")] = 50,
    before: Annotated[
        int | None, typer.Option("--before", metavar="ID", min=1, help="Only those that came before this one.")
    ] = None,
    endpoint: Endpoint = None,
    json: Json = False,
) -> int:
    """List the newest events."""
    from torpor.cli.events import list_events

    return list_events(function=function, state=state, limit=limit, before=before, endpoint=endpoint, as_json=json)


def sources(endpoint: Endpoint = None, json: Json = False) -> int:
    """List what makes events without a caller: schedules, timers, queues."""
    from torpor.cli.events import sources

    return sources(endpoint=endpoint, as_json=json)


def show_event(identity: Identity, endpoint: Endpoint = None, json: Json = False) -> int:
    """Show one event with its whole history: attempts, waits, deliveries."""
    from torpor.cli.events import show_event

    return show_event(identity, endpoint=endpoint, as_json=json)


def retry_event(identity: Identity, endpoint: Endpoint = None, json: Json = False) -> int:
    """Run an event that is through again with all its attempts; a dead one's result is delivered again instead."""
    from torpor.cli.events import retry_event

    return retry_event(identity, endpoint=endpoint, as_json=json)


def drop_event(identity: Identity, endpoint: Endpoint = None, json: Json = False) -> int:
    """Take an event out: it is not tried again, and its result goes nowhere."""
    from torpor.cli.events import drop_event

    return drop_event(identity, endpoint=endpoint, as_json=json)
