"""The settings table: where a value comes from, what is refused, and that its reference page is up to date."""

from pathlib import Path
from typing import Any

import pytest

from torpor.cli.reference import page
from torpor.model.errors import InvalidRequest
from torpor.settings import BillingRule, Settings, is_loopback, require_safe_listening, resolve, table

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "torpor.toml"
    path.write_text(text)
    return path


def test_nothing_given_the_defaults_are_in_force() -> None:
    assert resolve({}, {}) == Settings()


def test_flag_variable_and_file_given_the_flag_wins(tmp_path: Path) -> None:
    file = _file(tmp_path, "port = 1")

    assert resolve({"port": "3"}, {"TORPOR_PORT": "2"}, file).port == 3
    assert resolve({"port": None}, {"TORPOR_PORT": "2"}, file).port == 2
    assert resolve({}, {}, file).port == 1


def test_file_in_the_current_folder_is_read_unless_another_is_named(tmp_path: Path) -> None:
    _file(tmp_path, "port = 1")
    other = tmp_path / "other.toml"
    other.write_text("port = 2")

    assert resolve({}, {}).port == 1
    assert resolve({}, {"TORPOR_CONFIG": str(other)}).port == 2


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("host", "::1", "::1"),
        ("idle_timeout", "0.5", 0.5),
        ("single_use", "yes", True),
        ("clone", "0", False),
        ("billing", "samples", BillingRule.SAMPLES),
        ("data", "/srv/torpor", Path("/srv/torpor")),
        ("host_ports", "5432, 6379", (5432, 6379)),
        ("access_keys", "a:b,c:d:e", {"a": "b", "c": "d:e"}),
    ],
)
def test_text_of_each_kind_becomes_its_value(name: str, text: str, value: Any) -> None:
    assert getattr(resolve({}, {f"TORPOR_{name.upper()}": text}), name) == value


def test_file_values_keep_their_own_types(tmp_path: Path) -> None:
    file = _file(tmp_path, 'clone = false\nhost_ports = [80]\nmax_age = 60\naccess_keys = ["id:secret"]')

    settings = resolve({}, {}, file)

    assert (settings.clone, settings.host_ports, settings.max_age) == (False, (80,), 60.0)
    assert settings.access_keys == {"id": "secret"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("port", "70000"),
        ("port", "http"),
        ("idle_timeout", "nan"),
        ("idle_timeout", "-1"),
        ("clone", "perhaps"),
        ("billing", "free"),
        ("account", "12"),
        ("region", "Mars"),
        ("host_ports", "80,0"),
        ("access_keys", "justanid"),
        ("data", ""),
    ],
)
def test_value_malformed_or_out_of_range_is_one_error_that_names_its_source(name: str, text: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^TORPOR_{name.upper()}: ") as caught:
        resolve({}, {f"TORPOR_{name.upper()}": text})

    assert "\n" not in str(caught.value)


def test_malformed_access_keys_are_not_repeated_in_the_error() -> None:
    with pytest.raises(InvalidRequest) as caught:
        resolve({"access_keys": "hunter2"}, {})

    assert "hunter2" not in str(caught.value)


def test_secrets_are_not_shown_with_the_settings() -> None:
    assert "hunter2" not in repr(resolve({"access_keys": "id:hunter2"}, {}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 1", "unknown setting prot"),
        ('port = "1" x', "not valid TOML"),
        ("port = true", "port: True is not a whole number"),
        ("account = 12", "account: 12 is not text"),
        ('account = "12"', "account: '12' is not 12 digits"),
        ('code_store = "b"', "code_store: 'b' is not s3://bucket/prefix"),
    ],
)
def test_file_with_a_mistake_is_one_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        resolve({}, {}, _file(tmp_path, text))


def test_file_that_is_named_but_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read: No such file"):
        resolve({}, {}, tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("host", "inside"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("box", False)]
)
def test_host_is_loopback_only_if_no_other_machine_reaches_it(host: str, inside: bool) -> None:
    assert is_loopback(host) is inside


def test_listening_beyond_loopback_without_keys_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="set access keys"):
        require_safe_listening(resolve({"host": "0.0.0.0"}, {}))

    require_safe_listening(resolve({"host": "0.0.0.0", "access_keys": "id:secret"}, {}))


def test_each_setting_has_a_default_within_its_own_bounds_and_a_help_text() -> None:
    for row in table():
        assert row.help.endswith("."), row.name
        if row.minimum is not None and isinstance(row.default, int | float):
            assert row.read(str(row.default), row.name) == row.default


def test_reference_page_matches_the_table() -> None:
    assert PAGE.read_text() == page(), "run `make reference`"
