"""The composition root: builds a server out of its parts and runs it until it is told to stop."""

from torpor.app.process import serve
from torpor.app.sandboxes import diagnose
from torpor.app.server import Server, SystemClock

__all__ = ["Server", "SystemClock", "diagnose", "serve"]
