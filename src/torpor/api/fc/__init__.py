"""The Function Compute API: its three generations, HTTP triggers and custom domains."""

from torpor.api.fc.face import FcFace, FcParts, FcSettings
from torpor.api.fc.invocations import Dispatcher
from torpor.api.fc.mount import body_limit, error_face, mount

__all__ = ["Dispatcher", "FcFace", "FcParts", "FcSettings", "body_limit", "error_face", "mount"]
