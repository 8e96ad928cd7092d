"""Boots a Python function: sets up imports, then hands over to the runtime client.

The one argument is the folder of the layers.
"""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from torpor_guest import paths  # noqa: E402


def main() -> None:
    sys.path[:] = paths.search_path(*sys.argv[1:2])
    del sys.argv[1:]
    paths.finish_start()
    from awslambdaric.__main__ import main as serve

    serve([sys.argv[0], os.environ.get("_HANDLER", "")])


if __name__ == "__main__":
    main()
