"""`python -m tests.support.demo up|down`: the mock reranker beside a RAGFlow stand-in on the local daemon, to look at before installing anything."""

import hashlib
import json
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import docker
import docker.errors
import pulumi
import requests

from host import labels, observe
from tests.support import baseimage, ragflow
from tests.support.daemon import DaemonError, Done
from tests.support.place import TEST_LABEL, Place

NAME = "ragflow-demo"
FOLDER = str(Path(__file__).resolve().parents[2])
# A demo has no state: it is known by the checkout that made it.
ID = hashlib.sha256(f"{socket.gethostname()}:{FOLDER}".encode()).hexdigest()[:8]
KEPT = {"id": ID, "made": "the demo", "machine": socket.gethostname(), "folder": FOLDER, "heirOf": []}
BESIDE = f"ragflow-{ID[:4]}-demo"
QUERY = "How long is the warranty on the battery?"
DOCUMENTS = (
    "Shipping takes three to five working days.",
    "The battery lasts eight hours between charges.",
    "The warranty on the battery is two years, on everything else one.",
    "Returns are free within thirty days.",
)


class Refused(Exception):
    """The demo cannot run here; the message has the remedy."""


def up(say: Callable[[str], None] = print, *, name: str = NAME) -> None:
    """Bring the demo up, anew where it is up already, and show one rerank from inside the stand-in. All names in it begin with `name`."""
    say("The demo: a mock reranker (real API, no model) and a stand-in for RAGFlow, on this machine's Docker. Nothing else on it is touched.")
    down(lambda _: None, name=name)
    place = Place(baseimage.ensure(lambda line: say(f"  {line}")), token=name)
    place.stack.kept, place.labels = KEPT, {TEST_LABEL: f"{name}/{ID}"}
    try:
        standin = f"{name}-ragflow-cpu-1"
        if any(container.name == standin for container in place.client.containers.list(all=True)):
            raise Refused(f"a container {standin!r} exists and is not the demo's; rename or remove it: docker rm -f {standin}")
        say("  starting; the first health check takes about ten seconds")
        place.standin("ragflow-cpu-1")
        show(place, place.up(), standin, say)
    except BaseException:
        down(lambda _: None, name=name)
        raise
    finally:
        place.client.close()


def show(place: Place, done: Done, standin: str, say: Callable[[str], None]) -> None:
    """Ask from inside the stand-in, and say what came back and what to do next. Raises Refused where the answer is not one."""
    url, model, form = done.exports["internalUrl"], done.exports["modelName"], done.exports["ragflow"]
    body = {"model": model, "query": QUERY, "documents": list(DOCUMENTS)}
    status, answer = ragflow.curl(standin, f"{url}/rerank", body=body)
    if status != 200:
        raise Refused(f"the reranker answered {status} from inside {standin}: {answer}; docker logs {place.container} may say why")
    say(f"""
Up, on the network {place.network}:
  {place.container:<28} the reranker, mock backend, confined as the real one
  {standin:<28} in RAGFlow's place: its compose labels, attached as RAGFlow would be

From inside {standin}:
  curl {url}/rerank -H 'Content-Type: application/json' -d '{json.dumps({**body, "documents": ["..."]})}'

  query: {QUERY}""")
    for result in answer["results"]:
        say(f"  {result['relevance_score']:.3f}  {DOCUMENTS[result['index']]}")
    say(f"""
What RAGFlow's form for a rerank model would take:
  factory {form["factory"]}, model {form["modelName"]}, base URL {form["baseUrl"]}, API key {form["apiKey"]}

Try it yourself:
  {done.exports["verify"][0]}

Next:
  make demo-down           removes the demo
  make up STACK=laptop     brings up the real reranker beside your RAGFlow""")


def free_name() -> str:
    """NAME, or one beside it where another checkout's demo has that."""
    client = docker.from_env()
    try:
        found = [item for item in client.containers.list(all=True) if item.name == f"{NAME}-reranker"]
        return BESIDE if any(labels.identity(item.labels.get(labels.OWNER, "")) != ID for item in found) else NAME
    finally:
        client.close()


def down(say: Callable[[str], None] = print, *, name: str = "") -> None:
    """Remove everything that carries the labels of this checkout's demo (of that name, or any), and its image. Nothing there is fine."""
    names = (name,) if name else (NAME, BESIDE)
    ours = [label for name in names for label in (f"{TEST_LABEL}={name}/{ID}", f"{labels.OWNER}=ragflow-reranker/{name}/{ID}")]
    client = docker.from_env()
    try:
        removed = []
        for label in ours:
            for container in client.containers.list(all=True, filters={"label": label}):
                container.remove(force=True, v=True)
                removed.append(f"container {container.name}")
        for label in ours:
            for network in client.networks.list(filters={"label": label}):
                network.remove()
                removed.append(f"network {network.name}")
            for volume in client.volumes.list(filters={"label": label}):
                volume.remove()
                removed.append(f"volume {volume.name}")
        for image in [f"{name}-reranker:mock" for name in names] if removed else []:
            try:
                client.images.remove(image)
                removed.append(f"image {image}")
            except docker.errors.ImageNotFound:
                pass
        for line in removed:
            say(f"removed {line}")
        say("The demo is gone." if removed else "There was no demo.")
        if client.images.list(name=baseimage.TAG):
            say(f"The base image stays for the next demo and the tests; to remove it too: docker image rm {baseimage.TAG}")
    finally:
        client.close()


def main(argv: Sequence[str]) -> int:
    """Status 0, 1 for a refusal in one sentence, 2 for a wrong call."""
    verbs = {"up": lambda: up(name=free_name()), "down": down}
    if len(argv) != 1 or argv[0] not in verbs:
        print("usage: python -m tests.support.demo up|down", file=sys.stderr)
        return 2
    try:
        verbs[argv[0]]()
    except (Refused, baseimage.NoBaseImage, DaemonError, pulumi.RunError, observe.HostError) as refusal:
        print(f"demo: {refusal}", file=sys.stderr)
        return 1
    except (docker.errors.DockerException, requests.RequestException) as error:
        print(f"demo: Docker on this machine does not do it: {error}; check that 'docker info' works for you", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
