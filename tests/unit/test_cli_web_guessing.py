"""Start and build commands guessed from a service's files."""

import json
import zipfile
from io import BytesIO
from typing import Any

import pytest

from torpor.cli.web_guessing import Build, Source, Start, guess_build, guess_start
from torpor.model.errors import InvalidPackage, InvalidRequest


def source(files: dict[str, str]) -> Source:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return Source(buffer.getvalue())


def start(files: dict[str, str]) -> Start:
    return guess_start(source(files))


def build(files: dict[str, str]) -> Build:
    return guess_build(source(files))


def package(**values: Any) -> str:
    return json.dumps(values)


FASTAPI = "from fastapi import FastAPI\n\napp = FastAPI(title='x')\n"
FLASK = "import flask\napi: flask.Flask = flask.Flask(__name__)\n"
MANAGE = "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'mysite.settings')\n"


@pytest.mark.parametrize(
    ("files", "kind", "command", "because"),
    [
        ({"Procfile": "worker: x\nweb: ./serve --port $PORT\n"}, "Procfile", "./serve --port $PORT", "`web:`"),
        (
            {"main.py": FASTAPI},
            "FastAPI", "uvicorn main:app --host 0.0.0.0 --port $PORT", "main.py makes `app = FastAPI(...)`",
        ),
        ({"app/main.py": FASTAPI}, "FastAPI", "uvicorn app.main:app --host 0.0.0.0 --port $PORT", "app/main.py"),
        ({"app/__init__.py": FASTAPI}, "FastAPI", "uvicorn app:app --host 0.0.0.0 --port $PORT", "__init__"),
        (
            {"web.py": "from starlette.applications import Starlette\nsite = Starlette()"},
            "Starlette", "uvicorn web:site --host 0.0.0.0 --port $PORT", "`site = Starlette(...)`",
        ),
        (
            {"app.py": FLASK, "requirements.txt": "Flask==3.0\nGunicorn>=22\n"},
            "Flask", "gunicorn -b :$PORT app:api", "`api = Flask(...)`",
        ),
        (
            {"app.py": FLASK, "requirements.txt": "flask\n"},
            "Flask", "flask --app app:api run --host 0.0.0.0 --port $PORT", "`api = Flask(...)`",
        ),
        (
            {"manage.py": MANAGE, "mysite/wsgi.py": "", "requirements.txt": "django\ngunicorn\n"},
            "Django", "gunicorn -b :$PORT mysite.wsgi", "mysite.settings",
        ),
        ({"manage.py": MANAGE}, "Django", "python manage.py runserver --noreload 0.0.0.0:$PORT", "manage.py"),
        (
            {"package.json": package(scripts={"start": "next start"}, dependencies={"express": "4"})},
            "Express", "npm start", "package.json has a start script",
        ),
        (
            {"package.json": package(scripts={"start": "node --inspect=0 src/x.js"})},
            "Node.js", "node --inspect=0 src/x.js", "that is the start script",
        ),
        (
            {"package.json": package(scripts={"start": "node x", "prestart": "tsc"})},
            "Node.js", "npm start", "package.json has a start script",
        ),
        ({"package.json": package(main="./lib/go.js"), "lib/go.js": ""}, "Node.js", "node lib/go.js", "main file"),
        ({"server.js": "http.createServer(f).listen(process.env.PORT)"}, "Node.js", "node server.js", "listens"),
        ({"server.py": "HTTPServer(('', 1), H).serve_forever()"}, "Python", "python server.py", "server.py starts"),
        ({"index.html": "<p>"}, "Static files", "python -m http.server $PORT", "index.html is there"),
        ({"out/index.html": "<p>"}, "Static files", "python -m http.server $PORT --directory out", "out/index.html"),
        ({"dist/index.html": "<p>"}, "Static files", "python -m http.server $PORT --directory dist", "dist/index.html"),
    ],
)  # fmt: skip
def test_start_command_is_guessed_with_its_reason(files: dict[str, str], kind: str, command: str, because: str) -> None:
    found = start(files)

    assert (found.kind, found.command) == (kind, command)
    assert because in found.reason


def test_a_procfile_goes_before_everything_else() -> None:
    assert start({"Procfile": "web: ./x", "main.py": FASTAPI, "index.html": ""}).command == "./x"


def test_a_procfile_without_a_web_line_says_nothing() -> None:
    assert start({"Procfile": "worker: ./x", "main.py": FASTAPI}).kind == "FastAPI"


def test_a_python_framework_goes_before_the_files_of_its_front_end() -> None:
    assert start({"main.py": FASTAPI, "package.json": package(scripts={"start": "vite"})}).kind == "FastAPI"


def test_customary_modules_go_before_others() -> None:
    assert start({"a.py": FASTAPI, "main.py": FASTAPI}).command.startswith("uvicorn main:app")


def test_a_class_that_a_module_only_uses_is_no_application() -> None:
    found = start({"main.py": "def make():\n    app = FastAPI()\n    return app\n", "index.html": ""})

    assert found.kind == "Static files"


@pytest.mark.parametrize("files", [{"a.txt": ""}, {"broken.py": "def ("}, {"package.json": "[]"}, {"lib.py": "x = 1"}])
def test_what_looks_like_no_server_is_not_guessed(files: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest, match="--start"):
        start(files)


def test_a_broken_archive_is_refused() -> None:
    with pytest.raises(InvalidPackage):
        Source(b"no zip")


@pytest.mark.parametrize(
    ("files", "command", "because"),
    [
        ({"main.py": FASTAPI}, "", ""),
        ({"requirements.txt": "\n"}, "", ""),
        (
            {"requirements.txt": "flask"},
            "pip install -r requirements.txt --target .python", "requirements.txt is there",
        ),
        ({"package.json": package(dependencies={"a": "1"})}, "npm install", "package.json has dependencies"),
        (
            {"package.json": package(dependencies={"a": "1"}), "package-lock.json": "{}"},
            "npm ci", "package-lock.json is there",
        ),
        (
            {"package.json": package(devDependencies={"vite": "1"}, scripts={"build": "vite build"})},
            "npm install && npm run build", "package.json has dependencies and package.json has a build script",
        ),
        ({"package.json": package(scripts={"start": "node x"})}, "", ""),
        (
            {"requirements.txt": "flask", "package.json": package(dependencies={"a": "1"})},
            "pip install -r requirements.txt --target .python && npm install",
            "requirements.txt is there and package.json has dependencies",
        ),
    ],
)  # fmt: skip
def test_build_command_is_guessed_with_its_reason(files: dict[str, str], command: str, because: str) -> None:
    found = build(files)

    assert (found.command, found.reason) == (command, because)
