"""Operations on rules: which there are, when they go off, their tags."""

from collections.abc import Mapping
from typing import Any

from torpor.api.eventbridge.call import Call, Handler, page
from torpor.api.eventbridge.registry import Document, Rules
from torpor.api.eventbridge.schedules import Schedules, same_schedule
from torpor.contracts.eventbridge import limits, rendering
from torpor.contracts.eventbridge.failures import invalid, not_built, too_many
from torpor.contracts.eventbridge.names import check_bus, rule_of
from torpor.contracts.eventbridge.rendering import DISABLED, ENABLED
from torpor.contracts.eventbridge.schedule import check_expression
from torpor.model.clock import Clock

_KEPT = ("ScheduleExpression", "Description", "RoleArn")


class RuleOperations:
    """Rules as wholes."""

    def __init__(self, rules: Rules, schedules: Schedules, clock: Clock) -> None:
        self._rules = rules
        self._schedules = schedules
        self._clock = clock

    def handlers(self) -> dict[str, Handler]:
        """By operation name."""
        return {
            "DeleteRule": self.delete,
            "DescribeRule": self.describe,
            "DisableRule": self.disable,
            "EnableRule": self.enable,
            "ListRules": self.list_all,
            "ListTagsForResource": self.list_tags,
            "PutRule": self.put,
            "TagResource": self.tag,
            "UntagResource": self.untag,
        }

    def put(self, call: Call) -> Mapping[str, Any]:
        """PutRule: what is not given is not kept. Targets stay, and tags, which count at creation only."""
        values, name = call.values, call.values["Name"]
        check_bus(values, call.place)
        state = _check_kind(values)
        check_expression(values["ScheduleExpression"], self._clock.wall())
        before = self._rules.find(name)
        if before is None and len(self._rules.all()) >= limits.RULES_MAX:
            raise too_many()
        tags = _checked_tags(rendering.tags_of(values.get("Tags", ()))) if before is None else before["Tags"]
        after = {
            **{member: values[member] for member in _KEPT if member in values},
            "State": state,
            "Tags": tags,
            "Targets": before["Targets"] if before is not None else {},
            "Region": call.place.region,
        }
        self._replace(name, before, after)
        return {"RuleArn": call.place.rule_arn(name)}

    def delete(self, call: Call) -> Mapping[str, Any]:
        """DeleteRule: a rule that is not there is passed over."""
        name = call.values["Name"]
        check_bus(call.values, call.place)
        before = self._rules.find(name)
        if before is None:
            return {}
        if before["Targets"]:
            raise invalid("Rule can't be deleted since it has targets.")
        self._rules.remove(name)
        self._schedules.follow(name, before, None)
        return {}

    def describe(self, call: Call) -> Mapping[str, Any]:
        """DescribeRule."""
        check_bus(call.values, call.place)
        name = call.values["Name"]
        return {**rendering.rule(name, self._rules.get(name), call.place), "CreatedBy": call.place.account}

    def list_all(self, call: Call) -> Mapping[str, Any]:
        """ListRules, by name."""
        check_bus(call.values, call.place)
        prefix = call.values.get("NamePrefix", "")
        wanted = [
            (name, rendering.rule(name, document, call.place))
            for name, document in self._rules.all()
            if name.startswith(prefix)
        ]
        shown, token = page(wanted, call.values)
        return {"Rules": shown, **token}

    def enable(self, call: Call) -> Mapping[str, Any]:
        """EnableRule: a rate counts from now on, unless the rule was enabled."""
        return self._set_state(call, ENABLED)

    def disable(self, call: Call) -> Mapping[str, Any]:
        """DisableRule."""
        return self._set_state(call, DISABLED)

    def list_tags(self, call: Call) -> Mapping[str, Any]:
        """ListTagsForResource."""
        return {"Tags": rendering.tags(self._tagged(call)[1]["Tags"])}

    def tag(self, call: Call) -> Mapping[str, Any]:
        """TagResource: add tags, replacing those of the same key."""
        name, document = self._tagged(call)
        tags = {**document["Tags"], **rendering.tags_of(call.values["Tags"])}
        self._rules.put(name, {**document, "Tags": _checked_tags(tags)})
        return {}

    def untag(self, call: Call) -> Mapping[str, Any]:
        """UntagResource: keys that are not there are passed over."""
        name, document = self._tagged(call)
        left = {key: value for key, value in document["Tags"].items() if key not in call.values["TagKeys"]}
        self._rules.put(name, {**document, "Tags": left})
        return {}

    def _set_state(self, call: Call, state: str) -> Mapping[str, Any]:
        check_bus(call.values, call.place)
        name = call.values["Name"]
        before = self._rules.get(name)
        self._replace(name, before, {**before, "State": state})
        return {}

    def _replace(self, name: str, before: Document | None, after: dict[str, Any]) -> None:
        unchanged = before is not None and same_schedule(before, after)
        since = before["Since"] if before is not None and unchanged else self._clock.wall()
        self._rules.put(name, {**after, "Since": since})
        self._schedules.follow(name, before, {**after, "Since": since})

    def _tagged(self, call: Call) -> tuple[str, Document]:
        name = rule_of(call.values["ResourceARN"], call.place)
        return name, self._rules.get(name)


def _check_kind(values: Mapping[str, Any]) -> str:
    """The state that a rule is put in. Raises ApiFailure for rules that do not go off by the clock."""
    if values.get("EventPattern"):
        raise not_built("EventPattern of PutRule", "No events are matched: a rule needs a ScheduleExpression only.")
    if not values.get("ScheduleExpression"):
        raise invalid("Parameter(s) EventPattern or ScheduleExpression must be specified.")
    state: str = values.get("State", ENABLED)
    if state not in (ENABLED, DISABLED):
        raise not_built(f"State {state} of PutRule")
    return state


def _checked_tags(tags: dict[str, str]) -> dict[str, str]:
    if len(tags) > limits.TAGS_MAX:
        raise invalid(f"A rule can have at most {limits.TAGS_MAX} tags.")
    return tags
