"""Runtime identifiers to what stands inside a sandbox."""

import subprocess
from pathlib import Path

import pytest

from torpor.model.errors import RuntimeMissing
from torpor.sandbox.images import STAMP, ImageCatalog
from torpor.sandbox.interpreters import Interpreter, Language

PYTHON = Interpreter(
    language=Language.PYTHON, version=(3, 12, 4), executable="/host/py/bin/python3.12", prefix="/host/py"
)
NODE = Interpreter(language=Language.NODE, version=(20, 9, 0), executable="/usr/bin/node", prefix="/usr")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "python3.12").mkdir()
    (tmp_path / "python3.12" / STAMP).write_text("{}")
    return tmp_path


def test_python_image_boots_the_interpreter_under_its_inside_name(root: Path) -> None:
    image = ImageCatalog(str(root), [PYTHON]).resolve("python3.12")
    assert image.lang == "/host/py"
    assert image.executable == "/var/lang/bin/python3.12"
    assert image.host_executable == "/host/py/bin/python3.12"
    assert image.argv == ("/var/lang/bin/python3.12", "-S", "/var/runtime/bootstrap.py", "/opt")
    assert image.runtime_dir == str(root / "python3.12")
    assert image.clone_module == "torpor_guest.clone"
    assert image.version == "3.12.4"
    assert image.environment["PYTHONPATH"] == "/var/runtime"
    assert image.environment["LC_CTYPE"] == "C.UTF-8"


def test_node_image_searches_the_folder_of_its_major_version(root: Path) -> None:
    image = ImageCatalog(str(root), [NODE]).resolve("nodejs20.x")
    assert image.argv == ("/var/lang/bin/node", "/var/runtime/index.mjs")
    assert image.clone_module is None
    assert image.environment["NODE_PATH"] == (
        "/opt/nodejs/node20/node_modules:/opt/nodejs/node_modules:/var/runtime/node_modules:/var/runtime:/var/task"
    )


def test_node_image_without_an_installed_sdk_uses_the_bootstrap_as_shipped(root: Path) -> None:
    catalog = ImageCatalog(str(root), [NODE])
    assert (Path(catalog.resolve("nodejs20.x").runtime_dir or "") / "index.mjs").exists()
    (root / "nodejs").mkdir()
    (root / "nodejs" / STAMP).write_text("{}")
    assert catalog.resolve("nodejs20.x").runtime_dir == str(root / "nodejs")


@pytest.mark.parametrize("runtime", ["provided", "provided.al2", "provided.al2023"])
def test_provided_runtime_is_always_there_and_has_no_program(runtime: str) -> None:
    catalog = ImageCatalog("/absent", [])
    image = catalog.resolve(runtime)
    assert (image.argv, image.lang, image.executable, image.host_executable) == ((), None, None, None)
    assert image.environment["TZ"] == ":UTC"
    assert catalog.installed(runtime)
    assert runtime in catalog.present()


def test_missing_interpreter_is_named_with_what_is_present(root: Path) -> None:
    catalog = ImageCatalog(str(root), [PYTHON, NODE])
    with pytest.raises(RuntimeMissing, match=r"needs Python 3\.13, .* one of: python3\.12, nodejs20\.x, provided,"):
        catalog.resolve("python3.13")
    with pytest.raises(RuntimeMissing, match=r"needs Node\.js 22"):
        catalog.resolve("nodejs22.x")
    assert not catalog.installed("python3.13")


@pytest.mark.parametrize("runtime", ["java21", "python2.7", "python3.12x", "nodejs19.x", ""])
def test_unknown_runtime_is_not_served(root: Path, runtime: str) -> None:
    with pytest.raises(RuntimeMissing, match="is not served"):
        ImageCatalog(str(root), [PYTHON, NODE]).resolve(runtime)


def test_python_without_its_client_says_how_to_install_it(tmp_path: Path) -> None:
    catalog = ImageCatalog(str(tmp_path), [PYTHON])
    assert "python3.12" in catalog.present()
    assert not catalog.installed("python3.12")
    with pytest.raises(RuntimeMissing, match=r"torpor\.sandbox\.clients"):
        catalog.resolve("python3.12")


def test_any_node_serves_another_major_version_only_if_allowed(root: Path) -> None:
    image = ImageCatalog(str(root), [NODE], any_node=True).resolve("nodejs22.x")
    assert (image.runtime, image.version) == ("nodejs22.x", "20.9.0")


def test_placed_image_has_host_paths_in_program_and_variables(root: Path) -> None:
    image = ImageCatalog(str(root), [PYTHON]).resolve("python3.12")
    placed = image.placed({"lang": "/host/py", "runtime": "/r", "task": "/t", "opt": "/o", "tmp": "/x"})
    assert placed.argv == ("/host/py/bin/python3.12", "-S", "/r/bootstrap.py", "/o")
    assert placed.environment["PATH"] == "/host/py/bin:/usr/local/bin:/usr/bin/:/bin:/o/bin"
    assert placed.environment["PYTHONPATH"] == "/r"


@pytest.mark.parametrize(("mode", "status"), [(None, 127), (0o644, 126), (0o755, 5)])
def test_wrapper_program_runs_the_command_or_exits_as_a_shell_would(
    tmp_path: Path, mode: int | None, status: int
) -> None:
    wrapper = tmp_path / "wrapper"
    if mode is not None:
        wrapper.write_text('#!/bin/sh\n[ "$1" = /var/lang/bin/node ] && exit 5\n')
        wrapper.chmod(mode)
    image = ImageCatalog("/absent", [NODE]).resolve("nodejs20.x")
    assert subprocess.run(image.wrapped(str(wrapper)), capture_output=True, check=False).returncode == status


def host_python(tmp_path: Path, minor: int, *, shared: bool = False) -> Interpreter:
    prefix = tmp_path / f"py{minor}"
    (prefix / f"lib/python3.{minor}/site-packages/pip").mkdir(parents=True)
    if shared:
        (prefix / f"lib/libpython3.{minor}.so.1.0").touch()
    executable = f"{prefix}/bin/python3.{minor}"
    return Interpreter(language=Language.PYTHON, version=(3, minor, 1), executable=executable, prefix=str(prefix))


def test_server_image_shows_every_interpreter_and_the_newest_first_on_path(tmp_path: Path) -> None:
    old, new = host_python(tmp_path, 9, shared=True), host_python(tmp_path, 12)
    image = ImageCatalog("/absent", [new, old, NODE]).resolve("server")
    assert image.languages == {"python3.9": old.prefix, "python3.12": new.prefix, "nodejs20": "/usr"}
    assert image.commands["python"] == image.commands["python3"] == "/var/lang/python3.12/bin/python3.12"
    assert image.commands["python3.9"] == "/var/lang/python3.9/bin/python3.9"
    assert image.commands["node"] == "/usr/bin/node"
    assert image.commands["pip"] == '#!/bin/sh\nexec /var/lang/python3.12/bin/python3.12 -m pip "$@"\n'
    assert image.environment["PATH"].startswith("/var/lang/bin:/var/lang/python3.12/bin:/usr/local/sbin:")
    assert image.environment["LD_LIBRARY_PATH"] == "/var/lang/python3.9/lib"
    assert (image.environment["TZ"], image.environment["LANG"]) == ("UTC", "C.UTF-8")
    assert (image.argv, image.clone_module, image.lang) == ((), None, None)


def test_server_image_without_any_interpreter_is_the_host_as_it_is() -> None:
    image = ImageCatalog("/absent", []).resolve("server")
    assert (image.languages, image.commands) == ({}, {})
    assert "LD_LIBRARY_PATH" not in image.environment


def test_event_images_have_the_interpreters_of_the_others_and_clients_of_their_own(root: Path) -> None:
    catalog = ImageCatalog(str(root), [PYTHON, NODE], any_node=True)
    python = catalog.resolve("event-python3.12")
    assert python.argv == ("/var/lang/bin/python3.12", "-S", "/var/runtime/server.py")
    assert (python.lang, python.clone_module) == ("/host/py", "torpor_event.clone")
    assert (python.runtime_dir or "").endswith("guest/event_python")
    node = catalog.resolve("event-nodejs14")
    assert node.argv == ("/var/lang/bin/node", "/var/runtime/server.mjs")
    assert (node.clone_module, node.version) == (None, "20.9.0")
    assert (node.runtime_dir or "").endswith("guest/event_nodejs")


def test_what_is_served_is_more_than_what_is_present(root: Path) -> None:
    catalog = ImageCatalog(str(root), [PYTHON, NODE])
    assert {"server", "event-python3.12", "event-nodejs20"} == set(catalog.served()) - set(catalog.present())
    with pytest.raises(
        RuntimeMissing, match=r"^Runtime python3\.9 needs Python 3\.9, .* one of: python3\.12, nodejs20\.$"
    ):
        catalog.resolve("event-python3.9")
