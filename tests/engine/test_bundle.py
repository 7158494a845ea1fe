"""A bundle, made here and used on a machine that no network reaches: one command from a fresh clone, with an empty home and without Pulumi.

vLLM and its model are stand-ins (tests/support/fakevllm), the machine is a network namespace with a Docker of its own (tests/support/cutoff.py).
"""

import os
import re
import secrets
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
import yaml

from tests.support import cutoff, fakevllm, hub, sshd
from tests.support.engine import COPIED, ROOT, docker, free_port

TOKEN = f"rrt{secrets.token_hex(4)}"
UNCHANGED = re.compile(r"Resources:\n +\d+ unchanged\n")


@dataclass(frozen=True)
class Made:
    """A bundle, the repository that it was made from, and what make said."""

    file: Path
    repository: Path
    said: str


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory: pytest.TempPathFactory) -> Iterator[cutoff.Machine]:
    try:
        with cutoff.machine(tmp_path_factory.mktemp("cutoff")) as found:
            yield found
    except cutoff.NotPossible as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def made(cut_off: cutoff.Machine, tmp_path_factory: pytest.TempPathFactory, base_image: str) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("made")
    with (
        fakevllm.clone(folder / "vllm", base_image) as clone,
        hub.serving(fakevllm.model(folder / "model"), fakevllm.REPO, fakevllm.REVISION) as mirror,
    ):
        dials = {
            **{key: value for key, value in clone.dials.items() if value is not None},
            "containerName": f"{TOKEN}-reranker", "networkName": f"{TOKEN}-net", "hostPort": free_port(), "ragflowMode": "none",
            "modelNetwork": "host", "modelMirrors": [mirror.url], "healthTimeoutSeconds": 120,
        }  # fmt: skip
        repository = committed(folder / "repository", dials)
        stand_in_for_an_environment(repository)
        environment = {**os.environ, "HOME": str(folder), "PYTHONS": f"{sys.version_info[0]}.{sys.version_info[1]}", "BUNDLE": str(folder / "b.tar")}
        done = subprocess.run(
            ["make", "bundle", "STACK=boxed", f"PYTHON={sys.executable}"],
            cwd=repository, env=environment, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        # It took nothing of this machine but the image under it.
        assert not docker("volume", "ls", "-q", "--filter", f"name={TOKEN}")
        assert not docker("image", "ls", "-q", "--filter", f"reference={TOKEN}*")
        yield Made(folder / "b.tar", repository, done.stdout)


def committed(folder: Path, dials: dict[str, object]) -> Path:
    """A git repository of this working tree, with a stack file of these dials."""
    for pattern in (*COPIED, "setup", "Makefile", "requirements*.lock", ".gitignore", "state/.gitignore"):
        for source in ROOT.glob(pattern):
            target = folder / source.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, target)
    content = {"config": {f"ragflow-reranker:{key}": value for key, value in dials.items()}}
    (folder / "stacks/Pulumi.boxed.yaml").write_text(yaml.safe_dump(content))
    git = ["git", "-C", str(folder), "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "all"]):
        subprocess.run([*git, *words], check=True, timeout=60)
    return folder


def stand_in_for_an_environment(repository: Path) -> None:
    """A .venv that has what the one of these tests has: the maker's own is not what is tested here."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", repository / ".venv"], check=True, timeout=120)
    [packages] = repository.glob(".venv/lib/python*/site-packages")
    (packages / "tests.pth").write_text(sysconfig.get_path("purelib"))
    lock = sha256((repository / "requirements.lock").read_bytes()).hexdigest()
    (repository / ".venv/.locks.json").write_text(f'{{"requirements.lock": "{lock}"}}')


def cloned(made: Made, folder: Path, **dials: object) -> Path:
    """A fresh clone, with dials of its own."""
    subprocess.run(["git", "clone", "--quiet", made.repository, folder], check=True, timeout=60)
    path = folder / "stacks/Pulumi.boxed.yaml"
    content = yaml.safe_load(path.read_text())
    content["config"] |= {f"ragflow-reranker:{key}": value for key, value in dials.items()}
    path.write_text(yaml.safe_dump(content))
    return folder


def test_one_command_brings_a_stack_up_where_no_network_is_and_nothing_needs_the_bundle_afterwards(
    cut_off: cutoff.Machine, made: Made, tmp_path: Path
) -> None:
    checkout = cloned(made, tmp_path / "clone")
    before = (checkout / "stacks/Pulumi.boxed.yaml").read_text()
    up = cut_off.make(checkout, "up", "STACK=boxed", "YES=1", f"BUNDLE={made.file}")
    assert up.returncode == 0, up.stdout
    assert "all checksums right" in up.stdout
    assert "right  the Docker host" in up.stdout
    assert "WRONG" not in up.stdout
    # Pulumi itself adds the salt of the stack's secrets, and nothing else came into the file.
    after = yaml.safe_load((checkout / "stacks/Pulumi.boxed.yaml").read_text())
    assert after["config"].keys() == yaml.safe_load(before)["config"].keys()
    assert not list((checkout / "state").glob("bundle*"))
    again = cut_off.make(checkout, "preview", "STACK=boxed")
    assert UNCHANGED.search(again.stdout), again.stdout
    assert "the image stands on what a bundle brought" in again.stdout
    down = cut_off.make(checkout, "down", "STACK=boxed", "YES=1")
    assert down.returncode == 0, down.stdout
    assert not cut_off.docker("ps", "-aq", "--filter", f"name={TOKEN}")
    # What it brought is on the host: the next up needs neither network nor bundle.
    once_more = cut_off.make(checkout, "up", "STACK=boxed", "YES=1")
    assert once_more.returncode == 0, once_more.stdout
    assert "is already here" in once_more.stdout


@pytest.mark.skipif(not sshd.PROGRAM, reason="no sshd on this machine (Debian, Ubuntu: apt-get install openssh-server)")
def test_a_host_without_a_network_is_served_from_a_bundle_over_ssh(cut_off: cutoff.Machine, made: Made, tmp_path: Path) -> None:
    keys = tmp_path / "ssh"
    keys.mkdir()
    with sshd.serving(keys, inside=cut_off.inside) as server:
        checkout = cloned(made, tmp_path / "clone", dockerHost=server.address, containerName=f"{TOKEN}-far", networkName=f"{TOKEN}-far", hostPort=0)
        path = f"{server.programs}{os.pathsep}{cut_off.path()}"
        up = cut_off.make(checkout, "up", "STACK=boxed", "YES=1", f"BUNDLE={made.file}", PATH=path)
        assert up.returncode == 0, up.stdout
        assert "Loading the image" in up.stdout
        assert cut_off.docker("ps", "--format", "{{.Names}} {{.Status}}", "--filter", f"name={TOKEN}-far").endswith("(healthy)\n")
        assert UNCHANGED.search(cut_off.make(checkout, "preview", "STACK=boxed", PATH=path).stdout)
        down = cut_off.make(checkout, "down", "STACK=boxed", "YES=1", PATH=path)
        assert down.returncode == 0, down.stdout
        assert server.entered
