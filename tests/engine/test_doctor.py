"""`rerank doctor` as a user runs it, over ssh: a real sshd on the loopback of this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.engine.test_ssh import server
from tests.support.recording import ROOT

__all__ = ["server"]


def test_a_host_over_ssh_is_looked_at_from_there(server: tuple[str, Path], base_image: str) -> None:
    address, programs = server
    told = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    argv = [sys.executable, "-m", "rerank", "doctor", "--stack", "laptop", "--docker-host", address, "--json"]
    done = subprocess.run(argv, cwd=ROOT, env=told, capture_output=True, text=True, timeout=180)
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout)
    assert (report["stack"], report["dockerHost"], report["right"]) == ("laptop", address, done.returncode == 0)
    found = {row["name"]: row for row in report["rows"]}
    assert (found["daemon"]["level"], address in found["daemon"]["text"]) == ("ok", True)
    # base_image is on the host, so that there is something to look from
    assert "(seen in a container of " in found["cpu"]["text"]
    assert found["disk"]["level"] != "not seen"
    assert "on the Docker host)" in found["huggingface.co"]["text"]
    assert [row for row in report["rows"] if "itself broke" in row["text"]] == []
    assert [row["name"] for row in report["rows"] if row["level"] == "fail" and not row["remedy"]] == []
