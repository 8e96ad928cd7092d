"""Operations on function URLs."""

from torpor.api.aws.call import Call, Handler, Reply
from torpor.api.aws.paging import page
from torpor.api.aws.url_registry import UrlRegistry
from torpor.contracts.lambda_ import url_config
from torpor.contracts.lambda_.names import FunctionName
from torpor.contracts.lambda_.tenancy import refuse_for
from torpor.contracts.lambda_.url_config import UrlConfig
from torpor.contracts.lambda_.url_routing import address
from torpor.model.clock import Clock
from torpor.model.errors import NotFound
from torpor.model.function import FunctionRecord
from torpor.service.functions import Functions


class UrlOperations:
    """The control plane's view of URLs: a function has one, and each of its aliases one of its own."""

    def __init__(self, functions: Functions, urls: UrlRegistry, clock: Clock, domain: str = "") -> None:
        """`domain` is the address below which URLs have names; empty for this machine's own."""
        self._functions = functions
        self._urls = urls
        self._clock = clock
        self._domain = domain

    def handlers(self) -> dict[str, Handler]:
        """By operation name."""
        return {
            "CreateFunctionUrlConfig": self.create,
            "GetFunctionUrlConfig": self.get,
            "UpdateFunctionUrlConfig": self.update,
            "DeleteFunctionUrlConfig": self.delete,
            "ListFunctionUrlConfigs": self.list,
        }

    async def create(self, call: Call) -> Reply:
        """CreateFunctionUrlConfig: with an id that stays for as long as the URL does."""
        named = _named(call)
        record = self._record(named)
        if self._urls.get(named.name, named.qualifier) is not None:
            raise url_config.url_exists(_arn(record, named.qualifier))
        refuse_for(record.latest.version, "a function URL")
        config = url_config.new_config(call.values, self._urls.new_identity(), self._clock.wall())
        self._urls.keep(named.name, named.qualifier, config)
        shown = self._shown(call, record, named.qualifier, config)
        del shown["LastModifiedTime"]
        return Reply(201, shown)

    async def get(self, call: Call) -> Reply:
        """GetFunctionUrlConfig."""
        named = _named(call)
        config = self._config(named)
        return Reply(200, self._shown(call, self._record(named), named.qualifier, config))

    async def update(self, call: Call) -> Reply:
        """UpdateFunctionUrlConfig: what is not given stays, the URL itself always does."""
        named = _named(call)
        config = url_config.changed_config(self._config(named), call.values, self._clock.wall())
        self._urls.keep(named.name, named.qualifier, config)
        return Reply(200, self._shown(call, self._record(named), named.qualifier, config))

    async def delete(self, call: Call) -> Reply:
        """DeleteFunctionUrlConfig; a later one gets another id."""
        named = _named(call)
        self._config(named)
        self._urls.remove(named.name, named.qualifier)
        return Reply(204)

    async def list(self, call: Call) -> Reply:
        """ListFunctionUrlConfigs: the function's own first, then those of aliases by name."""
        named = call.function
        record = self._record(FunctionName(name=named.name))
        items = ((qualifier, (qualifier, config)) for qualifier, config in self._urls.of(named.name))
        found, following = page(items, call.values)
        shown = [self._shown(call, record, qualifier, config) for qualifier, config in found]
        return Reply(200, {"FunctionUrlConfigs": shown, **following})

    def _record(self, named: FunctionName) -> FunctionRecord:
        try:
            record = self._functions.get(named.name)
        except NotFound as error:
            raise url_config.no_function() from error
        if named.qualifier and named.qualifier not in record.aliases:
            raise url_config.no_function()
        return record

    def _config(self, named: FunctionName) -> UrlConfig:
        config = self._urls.get(named.name, named.qualifier)
        if config is None:
            raise url_config.no_url()
        return config

    def _shown(self, call: Call, record: FunctionRecord, qualifier: str, config: UrlConfig) -> dict[str, object]:
        url = address(config.identity, record.latest.version.region, call.base_url, self._domain)
        return config.shown(_arn(record, qualifier), url)


def _named(call: Call) -> FunctionName:
    named = call.function
    url_config.check_qualifier(named)
    return named


def _arn(record: FunctionRecord, qualifier: str) -> str:
    resource = record.latest.version.resource
    return f"{resource}:{qualifier}" if qualifier else resource
