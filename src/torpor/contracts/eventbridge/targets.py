"""What PutTargets refuses of the targets it is given."""

import json
from collections.abc import Mapping
from typing import Any

from torpor.contracts.api_failure import ApiFailure
from torpor.contracts.eventbridge import json_path, transformer
from torpor.contracts.eventbridge.failures import invalid

INPUTS = ("Input", "InputPath", "InputTransformer")
_OF_OTHER_KINDS = (
    "AppSyncParameters",
    "BatchParameters",
    "EcsParameters",
    "HttpParameters",
    "KinesisParameters",
    "RedshiftDataParameters",
    "RunCommandParameters",
    "SageMakerPipelineParameters",
)
"""Members that targets which are no functions have."""


def check_target(target: Mapping[str, Any]) -> None:
    """Check what a target is to be handed, wherever it is. Raises ApiFailure."""
    identity = target["Id"]
    for member in _OF_OTHER_KINDS:
        if member in target:
            raise invalid(f"Parameter(s) {member} not supported for target: {identity}.")
    if sum(member in target for member in INPUTS) > 1:
        raise invalid(f"Only one of {INPUTS[0]}, {INPUTS[1]}, or {INPUTS[2]} must be provided for target {identity}.")
    if "Input" in target and not _is_json(target["Input"]):
        raise invalid(f"JSON syntax error in input for target {identity}.")
    if "InputPath" in target:
        _check_path(target["InputPath"], identity)
    if "InputTransformer" in target:
        _check_transformer(target["InputTransformer"], identity)


def _check_path(path: str, identity: str) -> None:
    try:
        json_path.steps(path)
    except ApiFailure as error:
        raise invalid(f"InputPath for target {identity} is invalid. {error}") from error


def _check_transformer(given: Mapping[str, Any], identity: str) -> None:
    paths, template = given.get("InputPathsMap", {}), given["InputTemplate"]
    for path in paths.values():
        _check_path(path, identity)
    for name in transformer.placeholders(template):
        if name not in paths and name not in transformer.RESERVED:
            raise invalid(f"InputTemplate for target {identity} contains invalid placeholder {name}.")
        if name in transformer.WHOLE_EVENTS and not transformer.is_object(template):
            raise invalid(
                f"InputTemplate for target {identity} contains placeholder {name} valid only for JSON template."
            )
    # Where a text would make a broken document, any value would: as a key, or beside another one.
    if not _is_json(transformer.filled(template, lambda name: None)):
        raise invalid(f"Invalid InputTemplate for target {identity}: it does not make a JSON text.")


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(name: str) -> None:
    raise ValueError(name)
