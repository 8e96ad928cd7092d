"""Boots an event function: the program of Function Compute's built-in Python runtimes."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any


def main() -> None:
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    clone: Any = importlib.import_module("torpor_event.clone")
    clone.run()


if __name__ == "__main__":
    main()
