"""Boots a Python function: sets up imports, then hands over to the runtime client.

The one argument is the folder of the layers.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any


def main() -> None:
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    paths: Any = importlib.import_module("torpor_guest.paths")
    sys.path[:] = paths.search_path(*sys.argv[1:2])
    del sys.argv[1:]
    paths.finish_start()
    client: Any = importlib.import_module("awslambdaric.__main__")
    restoring: Any = importlib.import_module("torpor_guest.restoring")
    restoring.prepare()
    client.main([sys.argv[0], os.environ.get("_HANDLER", "")])


if __name__ == "__main__":
    main()
