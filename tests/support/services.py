"""Web services for tests: versions as values, and folders with small servers."""

from pathlib import Path
from typing import Any
from zipfile import ZipFile

from torpor.model.function import LATEST, CodeRef, FunctionVersion
from torpor.model.server import ServerSettings


def service_version(command: str = "python server.py", *, port: int = 8080, **fields: Any) -> FunctionVersion:
    """A version of the service `shop`."""
    given: dict[str, Any] = {
        "function": "web/shop",
        "version": LATEST,
        "resource": "shop",
        "revision": "1",
        "contract": "web",
        "runtime": "server",
        "handler": "",
        "code": CodeRef(digest="0" * 64, packed_bytes=1, unpacked_bytes=1),
        "memory_mb": 512,
        "timeout_s": 900.0,
        "concurrency": 80,
        "server": ServerSettings(command=("/bin/bash", "-c", command), port=port),
    }
    return FunctionVersion(**(given | fields))


def write_wheel(path: Path) -> None:
    """A package with one module and one command."""
    files = {
        "demo.py": "def main():\n    print('installed')\n",
        "demo-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n",
        "demo-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "demo-1.0.dist-info/entry_points.txt": "[console_scripts]\ndemo-tool = demo:main\n",
    }
    record = "".join(f"{name},,\n" for name in files) + "demo-1.0.dist-info/RECORD,,\n"
    with ZipFile(path, "w") as archive:
        for name, text in {**files, "demo-1.0.dist-info/RECORD": record}.items():
            archive.writestr(name, text)
