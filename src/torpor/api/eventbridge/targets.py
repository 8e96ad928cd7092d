"""Operations on the targets of rules."""

from collections.abc import Mapping
from typing import Any

from torpor.api.eventbridge.call import Call, Handler, page
from torpor.api.eventbridge.registry import Document, Rules
from torpor.contracts.api_failure import ApiFailure
from torpor.contracts.eventbridge import limits, rendering
from torpor.contracts.eventbridge.failures import too_many
from torpor.contracts.eventbridge.names import Place, check_bus, target_function
from torpor.contracts.eventbridge.targets import check_target


class TargetOperations:
    """Targets, which are kept with their rules. The timers of rules do not change with them."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def handlers(self) -> dict[str, Handler]:
        """By operation name."""
        return {
            "ListRuleNamesByTarget": self.list_rules,
            "ListTargetsByRule": self.list_all,
            "PutTargets": self.put,
            "RemoveTargets": self.remove,
        }

    def put(self, call: Call) -> Mapping[str, Any]:
        """PutTargets: add targets, replacing those of the same id. Those that cannot be reached are told.

        Whether a target's function exists is seen when the rule goes off.
        """
        name, document = self._rule(call)
        given = call.values["Targets"]
        for target in given:
            check_target(target)
        failed = [entry for target in given if (entry := _unreachable(target, call.place)) is not None]
        passed_over = {entry["TargetId"] for entry in failed}
        added = {target["Id"]: target for target in given if target["Id"] not in passed_over}
        targets = {**document["Targets"], **added}
        if len(targets) > limits.TARGETS_MAX:
            raise too_many()
        if added:
            self._rules.put(name, {**document, "Targets": targets})
        return rendering.outcome(failed)

    def remove(self, call: Call) -> Mapping[str, Any]:
        """RemoveTargets. Ids that are not there are told."""
        name, document = self._rule(call)
        known, wanted = document["Targets"], call.values["Ids"]
        failed = [
            rendering.failed(
                identity, "ResourceNotFoundException", f"Rule {name} does not have a target with the id {identity}."
            )
            for identity in wanted
            if identity not in known
        ]
        left = {identity: target for identity, target in known.items() if identity not in wanted}
        if len(left) < len(known):
            self._rules.put(name, {**document, "Targets": left})
        return rendering.outcome(failed)

    def list_all(self, call: Call) -> Mapping[str, Any]:
        """ListTargetsByRule, by id."""
        _, document = self._rule(call)
        shown, token = page(document["Targets"].items(), call.values)
        return {"Targets": shown, **token}

    def list_rules(self, call: Call) -> Mapping[str, Any]:
        """ListRuleNamesByTarget, by name."""
        check_bus(call.values, call.place)
        arn = call.values["TargetArn"]
        having = [
            (name, name)
            for name, document in self._rules.all()
            if any(target["Arn"] == arn for target in document["Targets"].values())
        ]
        shown, token = page(having, call.values)
        return {"RuleNames": shown, **token}

    def _rule(self, call: Call) -> tuple[str, Document]:
        check_bus(call.values, call.place)
        name: str = call.values["Rule"]
        return name, self._rules.get(name)


def _unreachable(target: Mapping[str, Any], place: Place) -> dict[str, str] | None:
    try:
        target_function(target["Arn"], place)
    except ApiFailure as error:
        return rendering.failed(target["Id"], error.code, str(error))
    return None
