"""The commands and their options; what they do stands beside, imported when a command is used."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from torpor.cli.event_program import Endpoint, Json, event_program
from torpor.cli.output import show
from torpor.model.errors import InvalidRequest
from torpor.settings import FILE_NAME, Setting, table

_CONTEXT = {"help_option_names": ["-h", "--help"]}

Name = Annotated[str, typer.Argument(metavar="NAME", help="A name as `torpor list` shows it.")]
Runnable = Annotated[
    str, typer.Argument(metavar="NAME", help="A name as `torpor list` shows it; NAME:VERSION or NAME:ALIAS too.")
]
Deletable = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="A name as `torpor list` shows it; NAME:VERSION or NAME:ALIAS deletes that alone."
    ),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help=f"Settings file (default ./{FILE_NAME}, if there).")
]


def _tell_version(wanted: bool) -> None:
    if wanted:
        from torpor import __version__

        show(f"torpor {__version__}")
        raise typer.Exit


def program() -> typer.Typer:
    """The whole command line."""
    app = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings=_CONTEXT,
    )
    app.callback()(_start)
    for name, command in _COMMANDS.items():
        app.command(name, context_settings=_CONTEXT)(command)
    app.add_typer(event_program(), name="events")
    return app


def _start(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_tell_version, help="Print the version and stop.")
    ] = False,
) -> None:
    """Run serverless functions and web services on this machine: Lambda, Function Compute, any HTTP server."""


def deploy(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder with the code, or a zip archive of it.")],
    name: Annotated[str | None, typer.Option("--name", help="Function or service name (default: from PATH).")] = None,
    runtime: Annotated[str | None, typer.Option("--runtime", help="Such as python3.12 (default: guessed).")] = None,
    handler: Annotated[str | None, typer.Option("--handler", help="Such as app.handler (default: guessed).")] = None,
    memory: Annotated[int | None, typer.Option("--memory", metavar="MB", help="Memory size.")] = None,
    timeout: Annotated[int | None, typer.Option("--timeout", metavar="SECONDS", help="Longest invocation.")] = None,
    env: Annotated[list[str] | None, typer.Option("--env", metavar="KEY=VALUE", help="Variable; may repeat.")] = None,
    url: Annotated[bool | None, typer.Option("--url", help="Give the function a URL that is open to all.")] = None,
    web: Annotated[bool, typer.Option("--web", help="It is a web service: an HTTP server of any kind.")] = False,
    build: Annotated[str | None, typer.Option("--build", metavar="CMD", help="Build command (guessed).")] = None,
    start: Annotated[str | None, typer.Option("--start", metavar="CMD", help="Start command (guessed).")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port that the service listens on (8080).")] = None,
    persistent: Annotated[
        bool | None, typer.Option("--persistent/--serverless", help="Run the service always, or on demand.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", metavar="N", help="Requests that one instance takes at once.")
    ] = None,
    endpoint: Endpoint = None,
    json: Json = False,
) -> int:
    """Create a function or web service from a folder or zip archive, or update it.

    The options from --build to --concurrency are for web services, --runtime, --handler and --url for functions.
    """
    if web:
        _refuse_given("cannot be used with --web", {"--runtime": runtime, "--handler": handler, "--url": url})
        from torpor.cli.web_deploying import WebWishes, deploy_web

        asked = WebWishes(
            name=name,
            build=build,
            start=start,
            port=port,
            memory=memory,
            timeout=timeout,
            env=tuple(env or ()),
            persistent=persistent,
            concurrency=concurrency,
        )
        return deploy_web(path, asked, endpoint=endpoint, as_json=json)
    _refuse_given(
        "is for web services: add --web",
        {"--build": build, "--start": start, "--port": port, "--persistent": persistent, "--concurrency": concurrency},
    )
    from torpor.cli.deploying import Wishes, deploy

    wishes = Wishes(
        name=name,
        runtime=runtime,
        handler=handler,
        memory=memory,
        timeout=timeout,
        env=tuple(env or ()),
        url=bool(url),
    )
    return deploy(path, wishes, endpoint=endpoint, as_json=json)


def _refuse_given(reason: str, options: Mapping[str, object]) -> None:
    """Options that were given in vain are refused rather than passed over. Raises InvalidRequest."""
    for option, value in options.items():
        if value is not None:
            raise InvalidRequest(f"{option} {reason}.")


def invoke(
    name: Runnable,
    payload: Annotated[str, typer.Option("--payload", "-p", help="JSON, @FILE, or - for standard input.")] = "{}",
    tail: Annotated[bool, typer.Option("--tail", help="Show the invocation's log lines too (standard error).")] = False,
    tenant: Annotated[
        str | None, typer.Option("--tenant-id", metavar="ID", help="Whom it runs for, if its tenants are kept apart.")
    ] = None,
    event: Annotated[
        bool, typer.Option("--event", help="Leave an event, which runs later, and print its id instead.")
    ] = False,
    endpoint: Endpoint = None,
    json: Json = False,
) -> int:
    """Run a function once and print its result."""
    from torpor.cli.invoking import invoke, send_event

    if event:
        _refuse_given("cannot be used with --event, which waits for no result", {"--tail": tail or None})
        return send_event(name, payload, tenant=tenant, endpoint=endpoint, as_json=json)
    return invoke(name, payload, tail=tail, tenant=tenant, endpoint=endpoint, as_json=json)


def list_functions(endpoint: Endpoint = None, json: Json = False) -> int:
    """List all functions and web services."""
    from torpor.cli.functions import list_functions

    return list_functions(endpoint=endpoint, as_json=json)


def delete(name: Deletable, endpoint: Endpoint = None, json: Json = False) -> int:
    """Delete a function, one of its versions or aliases, or a web service."""
    from torpor.cli.functions import delete

    return delete(name, endpoint=endpoint, as_json=json)


def logs(
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing as lines arrive.")] = False,
    endpoint: Endpoint = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> int:
    """Print the log of a function or web service."""
    from torpor.cli.watching import logs

    return logs(name, follow=follow, endpoint=endpoint, as_json=json)


def ps(endpoint: Endpoint = None, json: Json = False) -> int:
    """List the execution environments that exist now."""
    from torpor.cli.watching import environments

    return environments(endpoint=endpoint, as_json=json)


def doctor(config: ConfigFile = None, json: Json = False) -> int:
    """Say what this host offers: isolation, and the interpreters found."""
    from torpor.cli.serving import doctor

    return doctor(config, as_json=json)


def serve(config: ConfigFile = None, json: Json = False, **flags: Any) -> int:
    """Run the server until it is told to stop (Ctrl-C or SIGTERM).

    Each option can be set by a variable (--data by TORPOR_DATA) or in torpor.toml (data = ...) as well.
    """
    from torpor.cli.serving import serve

    return serve(config, flags, as_json=json)


def _with_settings(command: Callable[..., int]) -> Callable[..., int]:
    """The command with one option for each setting in place of its `flags`."""
    signature = inspect.signature(command)
    own = [entry for entry in signature.parameters.values() if entry.kind is not inspect.Parameter.VAR_KEYWORD]
    options = [_option(row) for row in table()]
    keyword = [entry.replace(kind=inspect.Parameter.KEYWORD_ONLY) for entry in own]
    command.__signature__ = signature.replace(parameters=[*options, *keyword])  # type: ignore[attr-defined]
    command.__annotations__.pop("flags", None)
    return command


def _option(row: Setting) -> inspect.Parameter:
    shown = f"{row.help} Default: {row.shown_default}."
    if row.kind is bool:
        annotation: Any = Annotated[bool | None, typer.Option(f"{row.flag}/--no-{row.flag[2:]}", help=shown)]
    else:
        metavar = "|".join(row.choices) or (row.unit.upper() if row.unit and " " not in row.unit else "VALUE")
        annotation = Annotated[str | None, typer.Option(row.flag, metavar=metavar, help=shown)]
    return inspect.Parameter(row.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


_COMMANDS: dict[str, Callable[..., int]] = {
    "serve": _with_settings(serve),
    "deploy": deploy,
    "invoke": invoke,
    "list": list_functions,
    "delete": delete,
    "logs": logs,
    "ps": ps,
    "doctor": doctor,
}
