"""What `torpor doctor` says of this host."""

import json
import os
import subprocess
import sys

from tests.support.server import ISOLATION, TorporServer


def _doctor(*arguments: str) -> str:
    command = [sys.executable, "-m", "torpor", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_doctor_names_the_rung_in_use_a_reason_for_each_missing_one_and_the_runtimes(server: TorporServer) -> None:
    found = json.loads(_doctor("--json"))["capabilities"]

    assert all(item["name"] and item["detail"] for item in found)
    (in_use,) = [item["name"] for item in found if item["detail"] == "in use"]
    assert in_use == server.isolation or os.environ.get(ISOLATION), "another rung than a server's without settings"
    runtimes = {item["name"] for item in found if item["available"]}
    assert set(server.runtimes) <= runtimes


def test_doctor_prints_a_line_for_each_finding_that_says_yes_or_no() -> None:
    lines = _doctor().splitlines()
    assert {line[:3].strip() for line in lines} <= {"yes", "no", ""}
    assert any(line.startswith("yes") and "provided.al2023" in line for line in lines)
