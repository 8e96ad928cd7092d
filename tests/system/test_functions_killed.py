"""A server killed at any moment has kept every change it confirmed, and whole packages only."""

import asyncio
import os
import random
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from tests.support.functions_bench import Bench

from torpor.model.function import CodeRef
from torpor.service.functions import Functions
from torpor.store.code import DiskCodeStore
from torpor.store.metadata import SqlMetadataStore

ROUNDS = 15
REPOSITORY = Path(__file__).parents[2]

PROGRAM = """
import asyncio, io, random, sys, zipfile
from pathlib import Path
from tests.support.functions_bench import Bench, new
from torpor.store.metadata import SqlMetadataStore

folder, seed = Path(sys.argv[1]), sys.argv[2]
choose = random.Random(seed)

def package(mark):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for number in range(40):
            made.writestr(f"lib/part{number % 5}/module{number}.py", f"# {mark}\\n" * 50)
    return buffer.getvalue()

async def change(functions, action, name, mark):
    if action == "delete":
        functions.delete(name)
    elif action == "configure":
        functions.update_configuration(name, {"description": mark})
    elif action == "code":
        await functions.update_code(name, package(mark), changes={"description": mark})
    else:
        created = new(name, description=mark)
        await functions.create(created, package(mark))

async def main():
    bench = Bench(folder=folder / "code", metadata=SqlMetadataStore(str(folder / "torpor.db")))
    functions = bench.service(unpacked=1_000_000)
    for number in range(100_000):
        name, mark = choose.choice("abcdef"), f"{seed}.{number}"
        known = ("code", "configure", "configure", "delete", "sweep")
        action = choose.choice(known) if name in functions.names() else "create"
        print("begin", action, name, mark, flush=True)
        if action == "sweep":
            await functions.sweep_code()
        else:
            await change(functions, action, name, mark)
        print("done", action, name, mark, flush=True)

asyncio.run(main())
"""


def run_and_kill(folder: Path, seed: int) -> list[list[str]]:
    """The lines the program got out before its death."""
    command = [sys.executable, "-c", PROGRAM, str(folder), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(random.Random(seed).uniform(0, 0.15))
        process.kill()
        lines = [first, *process.stdout.readlines()]
    assert process.returncode == -9
    return [line.split() for line in lines if line.endswith("\n")]


def apply(state: dict[str, str], action: str, name: str, mark: str) -> dict[str, str]:
    if action == "sweep":
        return state
    rest = {other: kept for other, kept in state.items() if other != name}
    return rest if action == "delete" else {**rest, name: mark}


def replay(state: dict[str, str], lines: list[list[str]]) -> list[dict[str, str]]:
    """What may be there: all that was confirmed, without or with the change under way at the end."""
    for stage, action, name, mark in lines:
        if stage == "done":
            state = apply(state, action, name, mark)
    stage, action, name, mark = lines[-1]
    return [state, apply(state, action, name, mark)] if stage == "begin" else [state]


def descriptions(functions: Functions) -> dict[str, str]:
    return {name: functions.get(name).latest.description for name in functions.names()}


async def check_packages(functions: Functions, store: DiskCodeStore) -> None:
    """Every tree has exactly what its archive holds."""
    for name in functions.names():
        code: CodeRef = functions.get(name).latest.version.code
        tree = Path(store.folder(code))
        found = {str(path.relative_to(tree)): path.read_bytes() for path in tree.rglob("*") if path.is_file()}
        with zipfile.ZipFile(f"{tree}.zip") as package:
            assert found == {info.filename: package.read(info) for info in package.infolist()}
        assert code.unpacked_bytes == sum(len(content) for content in found.values())


@pytest.mark.timeout(240)
def test_killed_at_random_moments_every_confirmed_change_is_there(tmp_path: Path) -> None:
    state: dict[str, str] = {}
    midway = 0
    for seed in range(ROUNDS):
        lines = run_and_kill(tmp_path, seed)
        metadata = SqlMetadataStore(str(tmp_path / "torpor.db"))
        functions = Bench(folder=tmp_path / "code", metadata=metadata).service()
        found = descriptions(functions)
        possible: list[Any] = replay(state, lines)
        assert found in possible
        midway += len(possible) - 1
        state = found
        asyncio.run(check(functions, tmp_path / "code"))
        metadata.close()
    assert midway, "no kill fell into a change: nothing was shown"


async def check(functions: Functions, folder: Path) -> None:
    store = DiskCodeStore(str(folder))
    await check_packages(functions, store)
    await functions.sweep_code()
    await check_packages(functions, store)
    used = {functions.get(name).latest.version.code.digest for name in functions.names()}
    assert set(os.listdir(folder)) == used | {f"{digest}.zip" for digest in used}
