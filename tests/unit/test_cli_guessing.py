"""Runtime and handler guessed from a package's files."""

import zipfile
from io import BytesIO

import pytest

from torpor.cli.guessing import guess, newest
from torpor.model.errors import InvalidPackage, InvalidRequest

SERVED = ("python3.9", "python3.12", "python3.13", "nodejs18.x", "nodejs20.x", "provided.al2023")


def _package(files: dict[str, str], mode: int = 0o644) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            archive.writestr(entry, text)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("files", "runtime", "handler"),
    [
        ({"app.py": "def handler(event, context): ..."}, "python3.13", "app.handler"),
        ({"lambda_function.py": "def lambda_handler(e, c): ..."}, "python3.13", "lambda_function.lambda_handler"),
        ({"a.py": "def go(e, c): ...", "b.py": "X = 1"}, "python3.13", "a.go"),
        ({"app.py": "handler = object()"}, "python3.13", "app.handler"),
        ({"zebra.py": "def handler(e, c): ...", "main.py": "def handler(e, c): ..."}, "python3.13", "main.handler"),
        ({"index.js": "exports.handler = async () => 1"}, "nodejs20.x", "index.handler"),
        ({"index.mjs": "export const handler = () => 1"}, "nodejs20.x", "index.handler"),
        ({"run.mjs": "export async function go(event) {}"}, "nodejs20.x", "run.go"),
    ],
)
def test_package_with_a_customary_handler_is_recognised(files: dict[str, str], runtime: str, handler: str) -> None:
    found = guess(_package(files), served=SERVED)

    assert (found.runtime, found.handler) == (runtime, handler)
    assert handler.split(".")[1] in found.reason


def test_bootstrap_means_a_runtime_of_its_own() -> None:
    found = guess(_package({"bootstrap": "#!/bin/sh", "app.py": "def handler(e, c): ..."}, 0o755), served=SERVED)

    assert (found.runtime, found.handler) == ("provided.al2023", "bootstrap")


def test_bootstrap_that_is_not_executable_is_refused_with_the_remedy() -> None:
    with pytest.raises(InvalidRequest, match=r"chmod \+x bootstrap"):
        guess(_package({"bootstrap": "#!/bin/sh"}))


def test_given_runtime_decides_the_language() -> None:
    package = _package({"app.py": "def handler(e, c): ...", "index.js": "exports.handler = 1"})

    assert guess(package, "nodejs18.x").handler == "index.handler"
    assert guess(package, "python3.11").runtime == "python3.11"


@pytest.mark.parametrize(
    "files",
    [
        {"readme.txt": "x"},
        {"app.py": "def broken("},
        {"app.py": "X = 1"},
        {"lib/app.py": "def handler(e, c): ..."},
    ],
)
def test_package_without_a_handler_in_sight_is_refused_with_an_example(files: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest, match=r"--handler app\.handler"):
        guess(_package(files))


def test_a_program_that_cannot_be_read_is_told_by_file_and_line() -> None:
    with pytest.raises(InvalidRequest, match=r"app\.py is not valid Python 3\.\d+, line 2: .* --handler app\.handler"):
        guess(_package({"app.py": "import os\ndef broken("}))


@pytest.mark.parametrize(
    ("handler", "runtime"),
    [
        ("jobs.run", "python3.13"),
        ("lib/jobs.run", "python3.13"),
        ("lib.jobs.run", "python3.13"),
        ("web.start", "nodejs20.x"),
    ],
)
def test_given_handler_decides_the_language_by_its_file(handler: str, runtime: str) -> None:
    package = _package({"jobs.py": "X = 1", "lib/jobs.py": "", "web.mjs": "", "index.js": "exports.handler = 1"})

    assert guess(package, served=SERVED, handler=handler).runtime == runtime


def test_handler_whose_file_is_not_there_needs_a_runtime() -> None:
    with pytest.raises(InvalidRequest, match=r"for the handler jobs\.run: .* --runtime python3\.12"):
        guess(_package({"readme.txt": ""}), handler="jobs.run")


def test_runtime_that_does_not_fit_the_package_is_told_with_what_does() -> None:
    package = _package({"app.py": "def handler(e, c): ..."})

    with pytest.raises(InvalidRequest, match=r"No handler for nodejs20\.x .* app\.py defines `handler`"):
        guess(package, "nodejs20.x")


def test_broken_archive_is_an_invalid_package() -> None:
    with pytest.raises(InvalidPackage):
        guess(b"no archive")


def test_newest_compares_versions_as_numbers() -> None:
    assert newest("python", SERVED) == "python3.13"
    assert newest("nodejs", SERVED) == "nodejs20.x"
    assert newest("ruby", SERVED) == ""
