"""One container of the serving image as the stack starts it, by hand: for what the stack would not do itself (a template changed by hand, an engine killed)."""

import json
import secrets
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plan
from tests.support import confined, contract
from tests.support.engine import docker, free_port, inspect
from tests.unit.builders import a_settings

HEALTHY_SECONDS = 300


@dataclass(frozen=True)
class Served:
    """A running container; `url` is published on loopback."""

    name: str
    url: str
    service: contract.Service

    def health(self) -> tuple[int, dict[str, Any]]:
        """Status and body of /health; (0, {}) where nothing answers."""
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=10) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())
        except (OSError, ValueError):
            return 0, {}

    def settled(self, seconds: float = HEALTHY_SECONDS) -> tuple[int, dict[str, Any]]:
        """What /health says once the golden set was scored; (0, {}) where the container ended before."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            status, body = self.health()
            if status == 200 or (status == 503 and body["status"] == "unhealthy"):
                return status, body
            if status == 0 and inspect(self.name)["State"]["Status"] == "exited":
                return 0, {}
            time.sleep(1)
        raise AssertionError(f"never settled:\n{self.log()[-3000:]}")

    def log(self) -> str:
        """Both streams, in the order in which they came."""
        done = subprocess.run(["docker", "logs", self.name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=True)
        return done.stdout

    def http(self, timeout: float = contract.TIMEOUT_SECONDS) -> contract.Http:
        return contract.Http(self.url, timeout)


@contextmanager
def served(image: str, model: Path, *, slug: str, over: Mapping[Path, str] | None = None, restart: str = "no", **dials: Any) -> Iterator[Served]:
    """`over`: files put over those of the image; `dials`: keys of Pulumi.yaml. Gone afterwards."""
    settings = a_settings(modelSource="directory", modelPath=str(model), model=f"example/{slug}", **dials)
    name = f"rrt-{secrets.token_hex(4)}-served"
    mounts = ["-v", f"{model}:/models/{slug}:ro", "-v", "/var/lib/reranker"]
    for path, target in (over or {}).items():
        mounts += ["-v", f"{path}:{target}:ro"]
    port = free_port()  # one that Docker chooses is another after a restart
    url = f"http://127.0.0.1:{port}"
    ask = contract.Http(url)
    try:
        docker(
            "run", "-d", "--name", name, "--label", f"io.ragflow-reranker.test={name}", "--restart", restart, *confined.options(settings),
            "-p", f"127.0.0.1:{port}:8000", *mounts, image, *plan.arguments(settings),
        )  # fmt: skip
        yield Served(
            name=name,
            url=url,
            service=contract.Service(
                ask=ask,
                names=(slug,),
                max_model_len=settings.max_model_len,
                max_documents=settings.max_documents,
                max_query_tokens=settings.max_query_tokens,
                max_body_bytes=settings.max_body_mib << 20,
            ),
        )
    finally:
        ask.close()
        docker("rm", "-f", "-v", name, check=False)
