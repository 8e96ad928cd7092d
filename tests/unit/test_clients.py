"""Installing runtime clients, without a network."""

import threading
from pathlib import Path

import pytest

from torpor.model.errors import RuntimeMissing
from torpor.sandbox import clients
from torpor.sandbox.clients import install_clients
from torpor.sandbox.images import ImageCatalog
from torpor.sandbox.interpreters import Interpreter, Language

PYTHON = Interpreter(language=Language.PYTHON, version=(3, 12, 4), executable="/py/bin/python3.12", prefix="/py")
NODE = Interpreter(language=Language.NODE, version=(20, 9, 0), executable="/usr/bin/node", prefix="/usr")


@pytest.fixture(autouse=True)
def no_npm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients.shutil, "which", lambda name: None)


def names(root: Path) -> set[str]:
    return {entry.name for entry in root.iterdir()} - {".lock"}


def test_node_without_npm_is_installed_without_the_sdk_and_says_so(tmp_path: Path) -> None:
    told: list[str] = []
    assert install_clients(str(tmp_path), [NODE], told.append) == ("nodejs",)
    assert told == ["nodejs: without the cloud's SDK, as there is no npm here", "nodejs: installed"]
    assert ImageCatalog(str(tmp_path), [NODE]).resolve("nodejs20.x").runtime_dir == str(tmp_path / "nodejs")
    assert (tmp_path / "nodejs" / "index.mjs").exists()
    assert (tmp_path / "nodejs").stat().st_mode & 0o777 == 0o755


def test_second_run_has_nothing_to_do_and_clears_what_a_first_left(tmp_path: Path) -> None:
    install_clients(str(tmp_path), [NODE], lambda line: None)
    (tmp_path / ".python3.12-broken").mkdir()
    told: list[str] = []
    assert install_clients(str(tmp_path), [NODE], told.append) == ("nodejs",)
    assert told == ["nodejs: present"]
    assert names(tmp_path) == {"nodejs"}


def test_changed_stamp_replaces_the_folder_but_keeps_the_old_until_the_next_run(tmp_path: Path) -> None:
    install_clients(str(tmp_path), [NODE], lambda line: None)
    (tmp_path / "nodejs" / "client.json").write_text('{"layout": 0}')
    (tmp_path / "nodejs" / "stale").write_text("")
    told: list[str] = []
    install_clients(str(tmp_path), [NODE], told.append)
    assert told[-1] == "nodejs: installed"
    assert not (tmp_path / "nodejs" / "stale").exists()
    assert len(names(tmp_path)) == 2


def test_client_that_cannot_be_had_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = ["/bin/sh", "-c", "echo noise >&2; echo 'ERROR: no wheel' >&2; echo more >&2; exit 1"]
    monkeypatch.setattr(clients, "_pip", lambda python, folder: failing)
    told: list[str] = []
    assert install_clients(str(tmp_path), [PYTHON, NODE], told.append) == ("nodejs",)
    assert told[0] == "python3.12: not installed: ERROR: no wheel"
    assert names(tmp_path) == {"nodejs"}


def test_two_runs_at_once_install_once(tmp_path: Path) -> None:
    told: list[str] = []
    runs = [threading.Thread(target=install_clients, args=(str(tmp_path), [NODE], told.append)) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert sorted(line for line in told if "without" not in line) == ["nodejs: installed", "nodejs: present"]


def test_root_that_cannot_be_written_is_told_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RuntimeMissing, match="cannot be installed in"):
        install_clients(str(tmp_path / "file" / "below"), [NODE], lambda line: None)
