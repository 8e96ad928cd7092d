"""Operations on code signing configurations, and on which of them a function has."""

import secrets
from collections.abc import Mapping
from typing import Any

from torpor.api.aws.attached import CODE_SIGNING
from torpor.api.aws.call import Call, Handler, Reply
from torpor.api.aws.lookup import Lookup
from torpor.api.aws.paging import page
from torpor.contracts.lambda_ import code_signing as wire
from torpor.contracts.lambda_.configuration import check_tags
from torpor.contracts.lambda_.failures_api import ApiFailure
from torpor.contracts.lambda_.names import FunctionName, Place, require_unqualified
from torpor.contracts.lambda_.rendering import date_text
from torpor.model.clock import Clock
from torpor.model.errors import NotFound
from torpor.service.attachments import Attachments
from torpor.service.resources import Resources

KIND = "code signing config"
_ALPHABET = "0123456789abcdef"
_ID_LENGTH = 17


class SigningOperations:
    """What a function's packages have to be signed with."""

    def __init__(self, resources: Resources, attachments: Attachments, lookup: Lookup, clock: Clock) -> None:
        self._resources = resources
        self._attachments = attachments
        self._lookup = lookup
        self._clock = clock

    def handlers(self) -> dict[str, Handler]:
        """By operation name."""
        return {
            "CreateCodeSigningConfig": self.create,
            "GetCodeSigningConfig": self.get,
            "ListCodeSigningConfigs": self.list,
            "UpdateCodeSigningConfig": self.update,
            "DeleteCodeSigningConfig": self.delete,
            "ListFunctionsByCodeSigningConfig": self.list_functions,
            "PutFunctionCodeSigningConfig": self.put_of_function,
            "GetFunctionCodeSigningConfig": self.get_of_function,
            "DeleteFunctionCodeSigningConfig": self.delete_of_function,
        }

    async def create(self, call: Call) -> Reply:
        """CreateCodeSigningConfig."""
        check_tags(call.values.get("Tags", {}))
        identity = "csc-" + "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))
        arn = {"Arn": wire.config_arn(call.place, identity)}
        document = wire.config_document(call.values, arn, self._clock.wall())
        self._resources.put(KIND, identity, document, create=True)
        return Reply(201, {"CodeSigningConfig": _shown(document)})

    async def get(self, call: Call) -> Reply:
        """GetCodeSigningConfig."""
        return Reply(200, {"CodeSigningConfig": _shown(self._named(call)[1])})

    async def list(self, call: Call) -> Reply:
        """ListCodeSigningConfigs, by id."""
        documents, following = page(self._resources.list(KIND), call.values)
        return Reply(200, {"CodeSigningConfigs": [_shown(each) for each in documents], **following})

    async def update(self, call: Call) -> Reply:
        """UpdateCodeSigningConfig: what is not given stays."""
        identity, kept = self._named(call)
        document = wire.config_document(call.values, kept, self._clock.wall())
        self._resources.put(KIND, identity, document)
        return Reply(200, {"CodeSigningConfig": _shown(document)})

    async def delete(self, call: Call) -> Reply:
        """DeleteCodeSigningConfig; refused while a function has it."""
        identity, document = self._named(call)
        using = self._functions_with(document["Arn"])
        if using:
            message = f"The code signing configuration {document['Arn']} is used by functions: {', '.join(using)}."
            raise ApiFailure("ResourceConflictException", message)
        self._resources.remove(KIND, identity)
        return Reply(204)

    async def list_functions(self, call: Call) -> Reply:
        """ListFunctionsByCodeSigningConfig, by name."""
        _, document = self._named(call)
        using = ((name, call.place.function_arn(name)) for name in self._functions_with(document["Arn"]))
        arns, following = page(using, call.values)
        return Reply(200, {"FunctionArns": arns, **following})

    async def put_of_function(self, call: Call) -> Reply:
        """PutFunctionCodeSigningConfig: holds for packages from now on."""
        named = self._whole(call)
        self.attach(named.name, call.values["CodeSigningConfigArn"], call.place)
        return Reply(200, {"CodeSigningConfigArn": call.values["CodeSigningConfigArn"], "FunctionName": named.name})

    async def get_of_function(self, call: Call) -> Reply:
        """GetFunctionCodeSigningConfig: empty when nothing is set."""
        named = self._whole(call)
        kept = self._attachments.find(CODE_SIGNING, named.name)
        return Reply(200, {} if kept is None else {"CodeSigningConfigArn": kept["Arn"], "FunctionName": named.name})

    async def delete_of_function(self, call: Call) -> Reply:
        """DeleteFunctionCodeSigningConfig; when nothing is set, that is passed over."""
        named = self._whole(call)
        if self._attachments.find(CODE_SIGNING, named.name) is not None:
            self._attachments.remove(CODE_SIGNING, named.name)
        return Reply(204)

    def attach(self, function: str, arn: str, place: Place) -> None:
        """From now on the function has this configuration. Raises ApiFailure."""
        self.require(arn, place)
        self._attachments.put(CODE_SIGNING, function, "", {"Arn": arn})

    def require(self, arn: str, place: Place) -> Mapping[str, Any]:
        """A configuration that a function is to have. Raises ApiFailure."""
        found = self._find(arn, place)
        if found is None:
            raise wire.config_missing(arn)
        return found[1]

    def check_package(self, function: str, place: Place, arn: str = "") -> None:
        """May a package become part of the function, which has the configuration `arn` or one of its own? Raises
        ApiFailure."""
        kept = self._attachments.find(CODE_SIGNING, function)
        arn = arn or (kept["Arn"] if kept else "")
        if arn:
            wire.check_package(self.require(arn, place), place.function_arn(function))

    def tags(self, arn: str, place: Place) -> Mapping[str, str]:
        """A configuration's tags. Raises ApiFailure."""
        tags: Mapping[str, str] = self._existing(arn, place)[1].get("Tags", {})
        return tags

    def set_tags(self, arn: str, place: Place, tags: Mapping[str, str]) -> None:
        """Replace a configuration's tags. Raises ApiFailure."""
        check_tags(tags)
        identity, document = self._existing(arn, place)
        self._resources.put(KIND, identity, {**document, "Tags": dict(tags)})

    def _whole(self, call: Call) -> FunctionName:
        named = call.function
        require_unqualified(named)
        self._lookup.record(call, named)
        return named

    def _named(self, call: Call) -> tuple[str, Mapping[str, Any]]:
        return self._existing(call.values["CodeSigningConfigArn"], call.place)

    def _existing(self, arn: str, place: Place) -> tuple[str, Mapping[str, Any]]:
        found = self._find(arn, place)
        if found is None:
            raise wire.config_not_found(arn)
        return found

    def _find(self, arn: str, place: Place) -> tuple[str, Mapping[str, Any]] | None:
        identity = wire.config_id(arn, place)
        try:
            return None if identity is None else (identity, self._resources.get(KIND, identity))
        except NotFound:
            return None

    def _functions_with(self, arn: str) -> tuple[str, ...]:
        kept = (
            (name, self._attachments.find(CODE_SIGNING, name)) for name in self._attachments.functions(CODE_SIGNING)
        )
        return tuple(name for name, document in kept if document is not None and document["Arn"] == arn)


def _shown(document: Mapping[str, Any]) -> dict[str, Any]:
    return wire.shown_config(document, date_text(document["LastModified"]))
