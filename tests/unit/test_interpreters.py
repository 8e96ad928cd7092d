"""Finding interpreters: what is believed, what is never run."""

import os
import sys
from pathlib import Path

import pytest

from torpor.sandbox import interpreters
from torpor.sandbox.interpreters import Interpreter, Language, choose, discover


def interpreter(*version: int, language: Language = Language.PYTHON, prefix: str = "/p") -> Interpreter:
    return Interpreter(language=language, version=version[:3], executable=f"{prefix}/bin/x", prefix=prefix)  # type: ignore[arg-type]


def only(folder: Path, monkeypatch: pytest.MonkeyPatch, **environment: str) -> tuple[Interpreter, ...]:
    """What is found with nothing but this folder on PATH."""
    monkeypatch.setattr(interpreters, "_SYSTEM_FOLDERS", ())
    monkeypatch.setattr(interpreters, "_PYTHON_FOLDERS", ("{home}/.pyenv/versions/*/bin",))
    monkeypatch.setattr(interpreters, "_NODE_FOLDERS", ())
    return discover({"PATH": str(folder), "HOME": str(folder / "home"), **environment})


def this_python() -> tuple[str, str]:
    """The running interpreter's real binary and the name it goes by."""
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return os.path.realpath(f"{sys.base_prefix}/bin/{name}"), name


def test_interpreter_this_runs_on_is_found_with_version_and_prefix() -> None:
    real, _ = this_python()
    found = {one.executable: one for one in discover({"PATH": os.path.dirname(real)})}
    assert found[real].version == tuple(sys.version_info[:3])
    assert found[real].prefix == os.path.realpath(sys.base_prefix)
    assert found[real].version_text == ".".join(map(str, sys.version_info[:3]))


def test_script_in_the_place_of_an_interpreter_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    witness = tmp_path / "ran"
    for name in ("python3.12", "node"):
        shim = tmp_path / name
        shim.write_text(f"#!/bin/sh\ntouch {witness}\n")
        shim.chmod(0o755)
    assert only(tmp_path, monkeypatch) == ()
    assert not witness.exists()


def test_other_program_under_an_interpreters_name_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "python3.12").write_bytes(Path("/bin/true").read_bytes())
    (tmp_path / "python3.12").chmod(0o755)
    (tmp_path / "node").symlink_to("/bin/true")
    assert only(tmp_path, monkeypatch) == ()


def test_link_in_a_virtual_environment_leads_to_the_base_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, name = this_python()
    (tmp_path / name).symlink_to(real)
    (tmp_path / "pyvenv.cfg").write_text(f"home = {os.path.dirname(real)}\n")
    assert [one.executable for one in only(tmp_path, monkeypatch)] == [real]


def test_unreadable_and_missing_folders_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    path = os.pathsep.join([str(tmp_path / "absent"), str(tmp_path / "file"), "relative", ""])
    assert only(tmp_path, monkeypatch, PATH=path) == ()


def test_version_manager_folder_is_searched_below_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, name = this_python()
    folder = tmp_path / "home" / ".pyenv" / "versions" / "x" / "bin"
    folder.mkdir(parents=True)
    (folder / name).symlink_to(real)
    assert [one.executable for one in only(tmp_path, monkeypatch)] == [real]


def test_second_search_asks_no_unchanged_file_again(monkeypatch: pytest.MonkeyPatch) -> None:
    real, _ = this_python()
    path = {"PATH": os.path.dirname(real)}
    first = discover(path)
    monkeypatch.setattr(interpreters, "_ask", lambda argv: pytest.fail("asked again"))
    assert discover(path) == first


def test_choice_is_the_newest_of_the_wanted_version() -> None:
    old, new, other = interpreter(3, 12, 1), interpreter(3, 12, 4), interpreter(3, 13, 0)
    node = interpreter(20, 1, 0, language=Language.NODE)
    assert choose([old, new, other, node], Language.PYTHON, 3, 12) is new
    assert choose([old, new, other, node], Language.NODE) is node
    assert choose([old], Language.PYTHON, 3, 11) is None
