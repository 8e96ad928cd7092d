"""Builds in real sandboxes: root inside, what they leave, and what is left of those that fail."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.functions import archive
from tests.support.sandboxes import RungUnavailable, Workplace, open_provider, write_code

from torpor.engine.building import SandboxBuilder
from torpor.model.build import BuildOrder
from torpor.model.errors import BuildFailed, InvalidPackage, TooLarge
from torpor.sandbox.images import SERVER, ImageCatalog
from torpor.sandbox.interpreters import discover
from torpor.store.ports import Tree

RUNGS = [pytest.param(name, marks=pytest.mark.privileged) for name in ("root", "rootless")]


class Bench:
    """A builder and what its builds have written."""

    def __init__(self, builder: SandboxBuilder, folder: Path) -> None:
        self.builder = builder
        self.folder = folder
        self.output = b""

    async def build(self, command: str, source: dict[str, str] | None = None, **changes: Any) -> Path:
        """The tree that a command makes."""
        order: dict[str, Any] = {
            "archive": archive(source or {"server.py": "serve()\n"}),
            "program": ("/bin/bash", "-c", command),
            "shown": command,
            "variables": lambda image, folder: {**image, "MINE": "1", "PWD": folder},
            "image": SERVER,
            "code_at": "/app",
            "system_at": ".changed",
            "source_limit": 1000,
            "disk_mb": 64,
            "memory_mb": 256,
            "processes": 64,
            "files": 256,
            "time_limit": 30.0,
        }
        tree = await self.builder.build(BuildOrder(**(order | changes)), self._write)
        return Path(tree.folder)

    def _write(self, data: bytes) -> None:
        self.output += data

    @property
    def left(self) -> list[str]:
        return os.listdir(self.folder)


@pytest.fixture(params=[*RUNGS, "plain"])
async def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="torpor-build-") as base:
        root = Path(base)
        root.chmod(0o755)
        place = Workplace(state=root / "state", code_root=root / "code", code=root / "code" / "suite")
        write_code(place.code)
        try:
            provider = await open_provider(request.param, place, discover())
        except RungUnavailable as unavailable:
            pytest.skip(str(unavailable))
        builds = root / "code" / "builds"
        try:
            yield Bench(SandboxBuilder(provider, ImageCatalog("", discover()), str(builds)), builds)
        finally:
            await provider.close()


async def test_a_build_starts_in_its_source_and_leaves_what_it_made(bench: Bench) -> None:
    tree = await bench.build('echo "$MINE" > made && mkdir -p sub && cp server.py sub/ && chmod 600 made && echo said')

    assert (tree / "made").read_text() == "1\n"
    assert (tree / "made").stat().st_mode & 0o777 == 0o600
    assert (tree / "sub" / "server.py").read_text() == "serve()\n"
    assert tree.stat().st_mode & 0o755 == 0o755
    assert bench.output == b"said\n"
    await bench.builder.discard(Tree(folder=str(tree)))
    assert bench.left == []


async def test_interpreters_of_the_host_are_there(bench: Bench) -> None:
    tree = await bench.build("python -c 'import sys; print(sys.version_info[0])' > made")

    assert (tree / "made").read_text() == "3\n"


@pytest.mark.parametrize(
    ("command", "changes", "reason", "code"),
    [
        ("echo no; exit 3", {}, "ended with exit status 3", 3),
        ("kill -KILL $$", {}, "was ended by signal SIGKILL", None),
        ("sleep 60", {"time_limit": 1.0}, "was ended after 1 s", None),
        ("x", {"program": ("/nowhere/program",)}, "could not be started", None),
    ],
)
async def test_a_failed_build_says_why_and_leaves_nothing(
    bench: Bench, command: str, changes: dict[str, Any], reason: str, code: int | None
) -> None:
    with pytest.raises(BuildFailed, match=reason) as failed:
        await bench.build(command, **changes)

    assert failed.value.code == code
    assert f"`{command}`" in str(failed.value)
    assert bench.left == []


async def test_a_source_that_cannot_be_unpacked_is_refused_and_leaves_nothing(bench: Bench) -> None:
    with pytest.raises(TooLarge):
        await bench.build("true", {"a": "x" * 1001})
    with pytest.raises(InvalidPackage):
        await bench.build("true", {"../a": "x"})

    assert bench.left == []


@pytest.mark.parametrize("bench", RUNGS, indirect=True)
async def test_a_build_is_root_and_its_changes_to_the_system_are_kept_beside(bench: Bench) -> None:
    tree = await bench.build(
        "id -u > who && echo 1 > /usr/local/share/made && mkdir -p .changed && echo no > .changed/a"
    )

    assert (tree / "who").read_text() == "0\n"
    assert (tree / ".changed" / "usr" / "local" / "share" / "made").read_text() == "1\n"
    assert not (tree / ".changed" / "a").exists()
    assert not Path("/usr/local/share/made").exists()


@pytest.mark.parametrize("bench", ["plain"], indirect=True)
async def test_without_isolation_scripts_look_their_interpreter_up(bench: Bench) -> None:
    write = "import os, sys; os.makedirs('bin'); open('bin/tool', 'w').write(f'#!{sys.executable} -s\\nprint(1)\\n')"
    tree = await bench.build(f'python -c "{write}"')

    first = (tree / "bin" / "tool").read_text().splitlines()[0]
    assert first.startswith("#!/usr/bin/env python") and first.endswith(" -s")


async def test_a_new_builder_clears_what_an_earlier_life_has_left(bench: Bench, tmp_path: Path) -> None:
    (bench.folder / "build-old" / "source").mkdir(parents=True)

    SandboxBuilder(bench.builder._provider, bench.builder._images, str(bench.folder))

    assert bench.left == []
