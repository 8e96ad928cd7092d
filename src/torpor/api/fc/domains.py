"""Custom domains."""

from collections.abc import Mapping
from typing import Any

from torpor.api.fc.call import NO_CONTENT, Call, Handler, Reply, shown
from torpor.api.fc.registry import DOMAIN, Registry
from torpor.contracts.function_compute import http_trigger, rendering, routing
from torpor.contracts.function_compute.api_failures import ApiFailure, not_built
from torpor.contracts.function_compute.http_trigger import HttpConfig
from torpor.contracts.function_compute.routing import Route
from torpor.model.errors import Conflict, NotFound

_KEPT = ("protocol", "routeConfig", "certConfig", "tlsConfig", "authConfig", "corsConfig")
_GENERATION = "generation"
_HIDDEN = frozenset({_GENERATION})


class DomainOperations:
    """Which hosts' requests go to which functions."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._resources = registry.resources
        self._known = frozenset(name for name, _ in self._resources.list(DOMAIN))

    def routes(self) -> dict[tuple[str, str], Handler]:
        return {
            ("POST", "/custom-domains"): self.create,
            ("GET", "/custom-domains"): self.list_all,
            ("GET", "/custom-domains/{domain}"): self.get,
            ("PUT", "/custom-domains/{domain}"): self.update,
            ("DELETE", "/custom-domains/{domain}"): self.delete,
        }

    async def create(self, call: Call) -> Reply:
        """CreateCustomDomain."""
        values = call.document
        name = routing.check_domain(values.get("domainName"))
        moment = rendering.time_text(self._registry.clock.wall())
        document = _read(values) | {"domainName": name, "createdTime": moment, "lastModifiedTime": moment}
        document |= {"accountId": call.place.account, "apiVersion": str(call.generation)}
        document[_GENERATION] = "services" if call.generation.has_services else "functions"
        try:
            self._resources.put(DOMAIN, name, document, create=True)
        except Conflict as error:
            raise ApiFailure("DomainNameAlreadyExists", f"domain name '{name}' already exists") from error
        self._known |= {name}
        return _shown(document)

    async def get(self, call: Call) -> Reply:
        """GetCustomDomain."""
        return _shown(self._domain(call))

    async def list_all(self, call: Call) -> Reply:
        """ListCustomDomains."""
        documents = dict(self._resources.list(DOMAIN))
        page, following = rendering.page(documents, call.query)
        body: dict[str, Any] = {"customDomains": [_visible(documents[name]) for name in page]}
        return Reply(200, body | ({"nextToken": following} if following else {}))

    async def update(self, call: Call) -> Reply:
        """UpdateCustomDomain: what is not given stays."""
        old = self._domain(call)
        call.expect(rendering.etag(_visible(old)))
        moment = rendering.time_text(self._registry.clock.wall())
        document = {**old, **_read({**old, **call.document}), "lastModifiedTime": moment}
        self._resources.put(DOMAIN, old["domainName"], document)
        return _shown(document)

    async def delete(self, call: Call) -> Reply:
        """DeleteCustomDomain."""
        old = self._domain(call)
        call.expect(rendering.etag(_visible(old)))
        self._resources.remove(DOMAIN, old["domainName"])
        self._known -= {old["domainName"]}
        return NO_CONTENT

    def knows(self, host: str) -> bool:
        """Is there a domain for a request's Host field?"""
        return bool(self._known) and bool(routing.find_domain(host, self._known))

    def route(self, host: str, path: str) -> tuple[Route, HttpConfig | None] | None:
        """The route of a request. Its configuration is the domain's, or None where the function's trigger says it;
        None in all if the domain has none for that path. Raises ApiFailure if there is no such domain."""
        name = routing.find_domain(host, self._known)
        if not name:
            raise ApiFailure("DomainNameNotFound", f"domain name '{host}' does not exist")
        document = self._resources.get(DOMAIN, name)
        route = routing.find_route(routing.routes_of(document.get("routeConfig")), path)
        if route is None:
            return None
        return route, None if document.get(_GENERATION) == "services" else _http_config(document, route)

    def _domain(self, call: Call) -> Mapping[str, Any]:
        name = call.values["domain"].lower()
        try:
            return self._resources.get(DOMAIN, name)
        except NotFound as error:
            raise ApiFailure("DomainNameNotFound", f"domain name '{name}' does not exist") from error


def _http_config(document: Mapping[str, Any], route: Route) -> HttpConfig:
    auth = document.get("authConfig") or {}
    given: dict[str, Any] = {
        "authType": auth.get("authType") or http_trigger.ANONYMOUS,
        "methods": route.methods,
        "corsConfig": document.get("corsConfig"),
    }
    return http_trigger.http_config(given)


def _read(values: Mapping[str, Any]) -> dict[str, Any]:
    routing.check_protocol(values.get("protocol"))
    if "HTTPS" in str(values.get("protocol") or "") or values.get("certConfig"):
        raise not_built("Custom domains over HTTPS; put a TLS proxy in front of the server")
    if (values.get("wafConfig") or {}).get("enableWAF"):
        raise not_built("A web application firewall (wafConfig)")
    document = {name: values[name] for name in _KEPT if values.get(name) is not None}
    for route in routing.routes_of(document.get("routeConfig")):
        _http_config(document, route)
    return document


def _visible(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in _HIDDEN}


def _shown(document: Mapping[str, Any]) -> Reply:
    return shown(_visible(document))
