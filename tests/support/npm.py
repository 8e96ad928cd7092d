"""Packages of the npm registry for tests that use others' Node.js code unchanged: fetched once, kept in the cache."""

import shutil
import subprocess
from pathlib import Path

import pytest

_WITHIN = 100.0


def node_modules(cache: pytest.Cache, *packages: str) -> Path:
    """A `node_modules` folder with these packages (`name@version`); skips the test, with the reason, if that fails."""
    folder = cache.mkdir("npm-" + "-".join(package.strip("@").replace("/", "-") for package in packages))
    done = folder / "complete"
    if not done.exists():
        _install(folder, packages)
        done.touch()
    return folder / "node_modules"


def packed(modules: Path) -> dict[str, str | bytes]:
    """The folder's files as a deployment package has them."""
    files = (path for path in modules.rglob("*") if path.is_file() and ".bin" not in path.parts)
    return {f"node_modules/{path.relative_to(modules)}": path.read_bytes() for path in files}


def _install(folder: Path, packages: tuple[str, ...]) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("this host has no npm")
    (folder / "package.json").write_text('{"private": true}')
    quiet = ("--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
    command = [npm, "install", *quiet, f"--cache={folder / 'cache'}", *packages]  # a home folder need not be there
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_WITHIN, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not fetch {' '.join(packages)} within {_WITHIN:g} s")
    if done.returncode:
        pytest.skip(f"npm cannot fetch {' '.join(packages)}: {done.stderr.strip()[:200]}")
