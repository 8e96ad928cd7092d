"""Custom domains: which function a path belongs to, and how it is rewritten on the way (6). Pure."""

import re
from collections.abc import Container, Mapping, Sequence
from typing import Any

import msgspec

from torpor.contracts.function_compute.api_failures import invalid

_DOMAIN = re.compile(r"(?:\*\.)?(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_OWN_DOMAINS = ("localhost", "internal")
"""Names below these are the server's own: who took them would take its API away."""
_PROTOCOLS = ("HTTP", "HTTPS", "HTTP,HTTPS")


class Rule(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One rewriting rule."""

    match: str
    replacement: str


class RewriteConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Rules in the order of their kinds' rank."""

    equal_rules: list[Rule] = []
    wildcard_rules: list[Rule] = []
    regex_rules: list[Rule] = []


class Route(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Where the requests of a path go."""

    path: str
    function_name: str
    service_name: str = ""
    qualifier: str = ""
    methods: list[str] = []
    rewrite_config: RewriteConfig | None = None


def check_domain(name: object) -> str:
    """The domain's name in lower case. Raises ApiFailure; an address is no name."""
    text = name.lower() if isinstance(name, str) else ""
    if _DOMAIN.fullmatch(text) is None or text.rpartition(".")[2] in _OWN_DOMAINS:
        raise invalid(f"domainName '{name}' is not valid: a full domain name, with '*' at most as its first label")
    return text


def check_protocol(protocol: object) -> None:
    """Raises ApiFailure."""
    if protocol not in (None, *_PROTOCOLS):
        raise invalid(f"protocol '{protocol}' is not one of {', '.join(_PROTOCOLS)}")


def routes_of(config: object) -> list[Route]:
    """The routes of a domain's `routeConfig`. Raises ApiFailure."""
    given = config.get("routes") if isinstance(config, Mapping) else None
    try:
        routes = msgspec.convert(_without_nulls(given or []), list[Route])
    except msgspec.ValidationError as error:
        raise invalid(f"routeConfig is not valid: {error}") from error
    for route in routes:
        if not route.path.startswith("/") or "*" in route.path[:-1]:
            raise invalid(f"the route path '{route.path}' has to begin with '/'; '*' may stand at its end only")
        _check_rules(route.rewrite_config)
    return routes


def _check_rules(config: RewriteConfig | None) -> None:
    for rule in config.regex_rules if config is not None else ():
        try:
            re.compile(rule.match)
        except re.error as error:
            raise invalid(f"the rewrite rule '{rule.match}' is not a regular expression: {error}") from error


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def find_domain(host: str, domains: Container[str]) -> str:
    """The domain that a host's name belongs to; empty if to none. A wildcard stands for one label."""
    name = host.lower().partition(":")[0]
    if name in domains:
        return name
    general = "*." + name.partition(".")[2]
    return general if general in domains else ""


def find_route(routes: Sequence[Route], path: str) -> Route | None:
    """Exact paths go before prefixes, longer prefixes before shorter ones."""
    exact = next((route for route in routes if route.path == path), None)
    if exact is not None:
        return exact
    prefixes = [route for route in routes if route.path.endswith("*") and path.startswith(route.path[:-1])]
    return max(prefixes, key=lambda route: len(route.path), default=None)


def rewritten(config: RewriteConfig | None, target: str) -> str:
    """Path and query as the function sees them: the first rule that matches, equal before wildcard before regex."""
    if config is None:
        return target
    path, _, query = target.partition("?")
    for rule in config.equal_rules:
        if rule.match == path:
            return _with_query(rule.replacement, query)
    for rule in config.wildcard_rules:
        found = re.search(_wildcard(rule.match), path)
        if found is not None:
            return _with_query(path[: found.start()] + _filled(rule.replacement, found) + path[found.end() :], query)
    for rule in config.regex_rules:
        found = re.search(rule.match, path)
        if found is not None:
            return _with_query(path[: found.start()] + _filled(rule.replacement, found) + path[found.end() :], query)
    return target


def _wildcard(pattern: str) -> str:
    anchor = "^" if pattern.startswith("^") else ""
    return anchor + "(.*)".join(re.escape(part) for part in pattern.removeprefix("^").split("*"))


def _filled(replacement: str, found: re.Match[str]) -> str:
    def group(reference: re.Match[str]) -> str:
        number = int(reference[1])
        return (found[number] or "") if number <= len(found.groups()) else ""

    return re.sub(r"\$([0-9])", group, replacement)


def _with_query(target: str, query: str) -> str:
    if not query:
        return target
    return f"{target}&{query}" if "?" in target else f"{target}?{query}"
