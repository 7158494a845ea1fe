"""The laptop stack for real: vLLM's image built from wheels, a small Qwen3 reranker downloaded from a hub on this machine, served and called from a RAGFlow stand-in.

About ten minutes on two cores where nothing is cached: three for the image (10 GB of disk while it builds), half a minute for each start of vLLM. An interrupted
run leaves containers, volumes and a network whose names begin with 'rrt'; the image vllm-cpu:<version> stays for the next run.
"""

import json
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import baseimage
from tests.support.engine import ROOT, Project, docker
from tests.support.hub import Hub, serving

REPO = "example/Tiny-Qwen3-Reranker"
SLUG = "tiny-qwen3-reranker"
REVISIONS = ("1" * 40, "2" * 40)
API_KEY = "sk-rrt-vllm-81c0ffee55"
MODEL_TOKEN = "hf_rrtvllm5d1c2b"
BUILD_SECONDS = 1800
MODELS = Path("/models-made-here")


@dataclass(frozen=True)
class Laptop:
    """A stack that is up, the RAGFlow stand-in on its network, and the hubs of its model: one for each revision."""

    stack: Project
    ragflow: str
    hubs: Sequence[Hub]
    models: Path
    image: str


def trusted(project: Path) -> str:
    """Name in certs/ of all that this machine trusts: its way to the package index may lead through a proxy with a CA of its own."""
    found = ssl.get_default_verify_paths()
    bundle = Path(found.cafile or "/etc/ssl/certs/ca-certificates.crt")
    shutil.copyfile(bundle, project / "certs" / "host.crt")
    return "host.crt"


def pip_index() -> str:
    """The package index that pip is set to here; '' is its own."""
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True, timeout=60, check=False
    )
    return asked.stdout.strip()


def inside(image: str, models: Path, *arguments: str, stdin: str = "") -> str:
    """Output of the image's python3 with tests/support at hand and the models at MODELS."""
    mounts = ["-v", f"{ROOT / 'tests/support'}:/support:ro", "-v", f"{models}:{MODELS}"]
    hush = ["-e", "TQDM_DISABLE=1", "-e", "PYTHONWARNINGS=ignore"]
    return docker(
        "run",
        "--rm",
        "-i",
        "--user",
        "0:0",
        "--network",
        "none",
        *hush,
        *mounts,
        "-w",
        "/support",
        "--entrypoint",
        "python3",
        image,
        *arguments,
        stdin=stdin,
        timeout=300,
    )


def reference(laptop: Laptop, revision: int, prompts: Sequence[str]) -> list[float]:
    """Scores of finished prompts by the model card's method, by transformers in float32, computed now."""
    program = "import json, sys; from pathlib import Path; from tiny_model import reference_scores; " \
              f"print(json.dumps(reference_scores(Path('{MODELS}/{revision}'), json.load(sys.stdin))))"  # fmt: skip
    return json.loads(inside(laptop.image, laptop.models, "-c", program, stdin=json.dumps(prompts)).splitlines()[-1])


@pytest.fixture(scope="session")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    base = baseimage.ensure()
    models = tmp_path_factory.mktemp("models")
    stack = Project(tmp_path_factory.mktemp("laptop") / "project", like="laptop")
    ragflow = f"{stack.token}-ragflow-cpu-1"
    try:
        docker("run", "-d", "--init", "--name", ragflow, "--label", "com.docker.compose.service=ragflow-cpu", "--label", "com.docker.compose.project=docker",
               base, "sleep", "7200")  # fmt: skip
        stack.set(
            baseImage=base, packageIndex=pip_index(), caBundle=trusted(stack.root), buildNetwork="host", ragflowMode="attach", ragflowContainers=[ragflow],
            # float32 so that scores can be compared with the reference to five digits; a tiny model needs less than the laptop's 8 GiB.
            dtype="float32", memoryGiB=6, model=REPO, modelRevision=REVISIONS[0], modelNetwork="host",
        )  # fmt: skip
        stack.run(
            "up",
            "--yes",
            "--skip-preview",
            "--non-interactive",
            "--target",
            "**::deployment",
            "--target",
            "**deployment-identity",
            "--target",
            "**::image",
            "--target",
            "**image-base",
            "--target",
            "**image-serving",
            timeout=BUILD_SECONDS,
        )
        image = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference={stack.container}").strip()
        for seed in range(len(REVISIONS)):
            inside(image, models, "/support/tiny_model.py", f"{MODELS}/{seed}", "--seed", str(seed))
        with serving(models / "0", REPO, REVISIONS[0]) as first, serving(models / "1", REPO, REVISIONS[1]) as second:
            yield Laptop(stack=stack, ragflow=ragflow, hubs=(first, second), models=models, image=image)
    finally:
        stack.close()
        docker("rm", "-f", ragflow, check=False)
    assert stack.remains() == {}
