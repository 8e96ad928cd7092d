"""A small service in Flask: notes kept in a folder that the variable NOTES names."""

import os
from pathlib import Path

from flask import Flask, Response, request

app = Flask(__name__)
NOTES = Path(os.environ.get("NOTES", "/tmp/notes"))


@app.get("/")
def index() -> dict[str, object]:
    """The names of all notes."""
    names = sorted(path.name for path in NOTES.iterdir()) if NOTES.exists() else []
    return {"framework": "flask", "notes": names}


@app.put("/<name>")
def write(name: str) -> tuple[str, int]:
    """Keep a note; its name has no slash in it, so it stays in the folder."""
    NOTES.mkdir(parents=True, exist_ok=True)
    (NOTES / name).write_bytes(request.get_data())
    return "", 204


@app.get("/<name>")
def read(name: str) -> Response:
    """A note."""
    path = NOTES / name
    return Response(path.read_bytes() if path.is_file() else b"", status=200 if path.is_file() else 404)
