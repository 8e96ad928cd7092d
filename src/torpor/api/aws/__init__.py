"""The AWS Lambda API."""

from torpor.api.aws.face import AwsFace, AwsSettings
from torpor.api.aws.invocations import Dispatcher
from torpor.api.aws.mount import body_limit, error_face, mount
from torpor.api.aws.objects import ObjectSource

__all__ = ["AwsFace", "AwsSettings", "Dispatcher", "ObjectSource", "body_limit", "error_face", "mount"]
