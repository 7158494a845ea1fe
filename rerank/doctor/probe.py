"""What is asked where the stack's own steps will run: in a container, on the Docker host, or here. Sent along with serving/ (sent.py); the answers are JSON.

Its Python has the standard library, and torch where it is vLLM's image.
"""

import dataclasses
import http.client
import json
import os
import ssl
import statistics
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

ASK_SECONDS = 8.0
# The matrix product of bench/serving/matmul.py: a layer of the 0.6B model.
ROWS, HIDDEN, INTERMEDIATE = 2048, 1024, 3072
PRODUCTS = 9


def main(job: str) -> None:
    """`job` (JSON): `questions`, each with `what` and what it takes; `environment`: its proxy variables; `ca`: certificates to trust beside the usual; `seconds` in all.

    Prints one line of JSON: the answers in their order, null for one that did not come in time.
    """
    given = json.loads(job)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    os.environ.update(given.get("environment") or {})
    if given.get("ca"):
        _trust(given["ca"])
    answers: list[Any] = [None] * len(given["questions"])

    def ask(number: int, question: dict[str, Any]) -> None:
        what = question.pop("what")
        try:
            answers[number] = ASKED[what](**question)
        except Exception as error:
            answers[number] = {"failure": f"{type(error).__name__}: {error}"}

    threads = [threading.Thread(target=ask, args=pair, daemon=True) for pair in enumerate(given["questions"])]
    for thread in threads:
        thread.start()
    end = time.monotonic() + given["seconds"]
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    print(json.dumps(answers), flush=True)
    os._exit(0)  # whoever is still waiting for an answer is not waited for


def _trust(pem: str) -> None:
    usual = ssl.get_default_verify_paths()
    with tempfile.NamedTemporaryFile("w", suffix=".pem", delete=False) as out:
        if usual.cafile:
            out.write(Path(usual.cafile).read_text(encoding="utf-8", errors="replace") + "\n")
        out.write(pem)
    os.environ["SSL_CERT_FILE"] = out.name


def machine(disk: str) -> dict[str, Any]:
    """What serving/launch/machine.py reads here, and the bytes that are free under the folder `disk`."""
    from serving.launch.machine import read_machine

    found = read_machine()
    room = os.statvfs(disk)
    return {**dataclasses.asdict(found), "cpu_flags": sorted(found.cpu_flags), "free": room.f_bavail * room.f_frsize}


def product(dtype: str) -> dict[str, Any]:
    """GFLOP/s of a matrix product as vLLM's layers do it, in the format and with the threads that the launcher would choose.

    One core is measured by its own clock, which stands still while others have it, so that a busy machine shows nearly what an idle one does.
    """
    import torch  # type: ignore[import-not-found, unused-ignore]

    from serving.launch.decide import cpu_dtype
    from serving.launch.machine import read_machine

    found = read_machine()
    decided, _ = cpu_dtype(found, dtype)
    cores = len({cpu.core for cpu in found.cpus})
    threads = max(1, min(cores, int(found.quota or cores)))
    torch.set_num_threads(1)
    kind = getattr(torch, decided)
    left, right = torch.randn(ROWS, HIDDEN, dtype=kind), torch.randn(HIDDEN, INTERMEDIATE, dtype=kind)
    packed = torch.ops.mkldnn._reorder_linear_weight(right.t().contiguous(), ROWS)

    def once() -> float:
        began = time.thread_time()
        torch.ops.mkldnn._linear_pointwise(left, packed, None, "none", [], "")
        return time.thread_time() - began

    once()
    took = [once() for _ in range(PRODUCTS)]
    return {"gflops": 2 * ROWS * HIDDEN * INTERMEDIATE / statistics.median(took) / 1e9 * threads, "dtype": decided}


def mirror(source: str, endpoint: str, repo: str, revision: str) -> dict[str, Any]:
    """A model's mirror as the download asks it: the list of the revision's files (control), then the first bytes of the largest one, wherever that leads (data)."""
    from serving.populate import hub
    from serving.populate.fetch import Token, open_url
    from serving.populate.files import MirrorError

    # A look waits for nobody as a download does.
    vars(hub).update(METADATA_TIMEOUT=ASK_SECONDS, ATTEMPTS=1)
    seen: dict[str, Any] = {"control": "", "data": None, "kind": "", "through": "", "bytes": 0}
    nobody = Token()
    try:
        list_files = hub.modelscope_files if source == "modelscope" else hub.hub_files
        try:
            files = hub.listing(list_files, endpoint, repo, revision, nobody)
        except urllib.error.HTTPError as error:
            raise hub.refusal(error, where=endpoint, repo=repo, revision=revision, token=nobody) from error
    except MirrorError as error:
        return {**seen, "control": str(error), "kind": error.kind}
    seen["bytes"] = sum(file.size for file in files)
    file = max(files, key=lambda file: file.size)
    try:
        with open_url(file.url, nobody, timeout=ASK_SECONDS, headers={"Range": "bytes=0-1023"}) as response:
            seen["through"] = urllib.parse.urlsplit(response.url).netloc.rpartition("@")[2]
            first = response.read1(1024)
        seen["data"] = "" if first else f"sends {file.path} without a byte"
    except urllib.error.HTTPError as error:
        seen["data"] = f"answered {error.code} for {file.path}"
    except (MirrorError, OSError, http.client.HTTPException) as error:
        seen["data"] = str(error) or type(error).__name__
    return seen


def address(url: str) -> dict[str, Any]:
    """Whether something answers there by HTTP: its status, and its clock before ours in seconds. Where its certificate is not believed its clock is asked all the same."""
    request = urllib.request.Request(url, headers={"User-Agent": "ragflow-reranker", "Accept-Encoding": "identity"})

    def ask(context: ssl.SSLContext | None) -> dict[str, Any]:
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context)) if context else urllib.request.build_opener()
        try:
            with opener.open(request, timeout=ASK_SECONDS) as response:
                return {"status": response.status, "kind": response.headers.get_content_type(), "ahead": _ahead(response.headers.get("Date"))}
        except urllib.error.HTTPError as error:
            with error:
                return {"status": error.code, "kind": error.headers.get_content_type(), "ahead": _ahead(error.headers.get("Date"))}

    try:
        return {"failure": "", **ask(None)}
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        told: dict[str, Any] = {
            "failure": f"{type(reason).__name__}: {reason}" if isinstance(reason, Exception) else str(reason),
            "status": 0,
            "ahead": None,
        }
        if isinstance(reason, ssl.SSLCertVerificationError):
            blind = ssl.create_default_context()
            blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
            try:
                told["ahead"] = ask(blind)["ahead"]
            except (OSError, http.client.HTTPException, ValueError):
                pass
        return told


def _ahead(date: str | None) -> float | None:
    try:
        return parsedate_to_datetime(date or "").timestamp() - time.time()
    except (TypeError, ValueError, IndexError):
        return None


def learned(url: str) -> dict[str, Any]:
    """The speed that a running reranker has learned, by its metrics; 0 where it has not, or wants a key."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url}/metrics", timeout=ASK_SECONDS) as response:
        for line in response.read(1 << 20).decode("utf-8", "replace").splitlines():
            name, _, value = line.partition(" ")
            if name == "reranker_tokens_per_second":
                return {"tokens_per_second": float(value)}
    return {"tokens_per_second": 0.0}


ASKED: dict[str, Callable[..., dict[str, Any]]] = {
    "machine": machine,
    "product": product,
    "mirror": mirror,
    "address": address,
    "learned": learned,
}
