"""What the README tells people to do, done by a user who is not root and is in Docker's group, in a fresh copy of the repository."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.support.engine import ROOT, Project, docker, free_port

SOCKET = Path("/var/run/docker.sock")
UID = 23456


@pytest.fixture
def user(tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs a command as a user of its own in the folder clone/. It may read what root may (its Python and Pulumi are root's on a machine of tests), but writes,
    and asks Docker, by its own rights alone.
    """
    if os.geteuid() or not shutil.which("setpriv") or not SOCKET.exists():
        pytest.skip("to become another user takes root, setpriv and Docker's socket")
    clone, home = tmp_path / "clone", tmp_path / "home"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name)
    (home / ".pulumi").mkdir(parents=True)
    plugins = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi") / "plugins"
    if plugins.is_dir():
        (home / ".pulumi/plugins").symlink_to(plugins)
    # As `make setup` leaves it, without another download: a virtual environment of the user's own, whose packages are ours.
    packages = Path(sys.prefix)
    (clone / ".venv/bin").mkdir(parents=True)
    (clone / ".venv/bin/python").symlink_to(Path(sys.executable).resolve())
    (clone / ".venv/lib").symlink_to(packages / "lib")
    shutil.copy2(packages / "pyvenv.cfg", clone / ".venv")
    digest = hashlib.sha256((clone / "requirements.lock").read_bytes()).hexdigest()
    (clone / ".venv/.locks.json").write_text(json.dumps({"requirements.lock": digest}))
    subprocess.run(["chown", "-R", "-h", f"{UID}:{UID}", clone, home], check=True, timeout=60)
    become = ["setpriv", f"--reuid={UID}", f"--regid={UID}", f"--groups={SOCKET.stat().st_gid}"]
    become += ["--bounding-set=-all,+dac_read_search", "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PULUMI_", "DOCKER_", "XDG_"))}

    def run(*argv: str, **env: str) -> "subprocess.CompletedProcess[str]":
        given = {**kept, "HOME": str(home), "USER": "somebody", "PULUMI_SKIP_UPDATE_CHECK": "true", "YES": "1", **env}
        return subprocess.run([*become, *argv], cwd=clone, env=given, capture_output=True, text=True, timeout=300, check=False)

    return run


def test_everything_in_the_readme_works_for_a_user_in_dockers_group(
    user: Callable[..., "subprocess.CompletedProcess[str]"], project: Callable[..., Project], base_image: str, tmp_path: Path
) -> None:
    names = project()  # for its names, and to find that nothing of them is left
    stack = names.token
    file = tmp_path / "clone/stacks" / f"Pulumi.{stack}.yaml"
    file.write_text(yaml.safe_dump({"config": {
        "ragflow-reranker:backend": "mock", "ragflow-reranker:baseImage": base_image, "ragflow-reranker:containerName": names.container,
        "ragflow-reranker:networkName": names.network, "ragflow-reranker:hostPort": str(free_port()), "ragflow-reranker:ragflowMode": "none",
        "ragflow-reranker:cpus": "1", "ragflow-reranker:memoryGiB": "1",
    }}))  # fmt: skip
    os.chown(file, UID, UID)
    for verb, said in (
        ("setup", "Ready. Plain pulumi works too"),
        ("preview", "create"),
        ("up", "the document about Paris scored"),
        ("verify", "right"),
    ):
        done = user("make", verb, f"STACK={stack}")
        assert done.returncode == 0, done.stdout + done.stderr
        assert said in done.stdout, verb
    assert docker("inspect", "--format", "{{.State.Health.Status}}", names.container).strip() == "healthy"
    passphrase = tmp_path / "home/.config/ragflow-reranker/passphrase"
    assert (passphrase.stat().st_uid, passphrase.stat().st_mode & 0o777) == (UID, 0o600)

    kept = passphrase.rename(passphrase.with_name("backup"))
    done = user("make", "preview", f"STACK={stack}")
    assert done.returncode != 0
    assert f"{passphrase} is gone, and the secrets of the stack {stack} were made with the passphrase in it" in done.stderr
    passphrase.write_text("another")
    done = user("make", "preview", f"STACK={stack}")
    assert done.returncode != 0
    assert f"the passphrase in {passphrase} is not the one" in done.stderr.strip().splitlines()[-2]  # before make's own last line
    kept.rename(passphrase)

    done = user("make", "down", f"STACK={stack}")
    assert done.returncode == 0, done.stdout + done.stderr
    strangers = [path for path in (tmp_path / "clone").rglob("*") if path.lstat().st_uid != UID and "__pycache__" not in path.parts]
    assert strangers == []
    assert names.remains().keys() <= {"image"}
