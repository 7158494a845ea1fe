"""The population step against a hub on this machine that speaks the real protocols, faults included."""

import argparse
import contextlib
import dataclasses
import datetime
import email.message
import email.utils
import errno
import hashlib
import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from serving.model import MANIFEST, weight_files
from serving.populate import fetch, files, progress
from serving.populate import hub as hubs
from serving.populate import run as populate
from tests.support.hub import Faults, Hub, Reply, serving

ROOT = Path(__file__).parents[2]
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1192135096\n"
SET_TOKEN = "pulumi config set --secret modelToken"
REPO, REVISION, TOKEN = "Qwen/Qwen3-Reranker-0.6B", "6e9e69830b95c52b5fd889b7690dda3329508de3", "hf_verySecretToken123"
WEIGHTS = 3 << 20
Usage = namedtuple("Usage", "total used free")
Run = Callable[..., tuple[int, str, str]]


def safetensors(size: int) -> bytes:
    header = json.dumps({"weight": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(range(256)) * (size // 256)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A repository as publishers leave it: what is needed, and copies of the weights that are not."""
    directory = tmp_path / "repository"
    (directory / "onnx").mkdir(parents=True)
    (directory / "1_Pooling").mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "1_Pooling/config.json"):
        (directory / name).write_text(json.dumps({"name": name}))
    (directory / "merges.txt").write_text("")
    (directory / "chat template.jinja").write_text("{{ messages }}")
    (directory / "model.safetensors").write_bytes(safetensors(WEIGHTS))
    for unwanted in ("README.md", "pytorch_model.bin", "model.gguf", "onnx/config.json", ".gitattributes"):
        (directory / unwanted).write_text("not needed")
    return directory


@pytest.fixture
def hub(model: Path) -> Iterator[Hub]:
    with serving(model, REPO, REVISION) as hub:
        yield hub


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


@pytest.fixture
def run(target: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in this process: (exit status, stdout, stderr), without the pauses between two attempts."""
    for module in (fetch, hubs):
        monkeypatch.setattr(module, "PAUSE", 0.0)

    def command(
        *mirrors: str, source: str = "hub", revision: str = REVISION, stdin: bytes = b"", repo: str = REPO, hosts: Sequence[str] | None = None
    ) -> tuple[int, str, str]:
        """`hosts`: to which the token may go; by default every mirror."""
        where = [item for mirror in mirrors for item in ("--mirror" if source == "hub" else "--endpoint", mirror)]
        if source in ("hub", "modelscope"):
            where.append("--token-stdin")
            where += [item for host in (mirrors if hosts is None else hosts) for item in ("--token-host", host)]
        monkeypatch.setattr(sys, "stdin", argparse.Namespace(buffer=io.BytesIO(stdin)))
        status = populate.main(["--source", source, "--repo", repo, "--revision", revision, "--target", str(target), *where])
        out, err = capsys.readouterr()
        assert TOKEN not in out + err
        assert "\r" not in out
        return status, out, err

    return command


def needed(model: Path) -> dict[str, bytes]:
    unwanted = {"README.md", "pytorch_model.bin", "model.gguf", "onnx/config.json", ".gitattributes"}
    paths = {path.relative_to(model).as_posix(): path for path in model.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in paths.items() if name not in unwanted}


def assert_complete(target: Path, model: Path, source: str = "hub") -> None:
    expected = needed(model)
    manifest = json.loads((target / MANIFEST).read_text())
    assert (manifest["repo"], manifest["revision"], manifest["source"]) == (REPO, REVISION, source)
    assert {entry["path"]: (entry["size"], entry["sha256"]) for entry in manifest["files"]} == {
        name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in expected.items()
    }
    files = {path.relative_to(target).as_posix(): path for path in target.rglob("*") if path.is_file()}
    assert {name: path.read_bytes() for name, path in files.items() if name != MANIFEST} == expected
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.values()} == {0o644}
    assert {stat.S_IMODE(path.stat().st_mode) for path in target.rglob("*") if path.is_dir()} == {0o755}


def refused(result: tuple[int, str, str], target: Path) -> str:
    """The one sentence of a failure; no manifest may lie there."""
    status, _, err = result
    assert (status, err.count("\n"), err.startswith("populate: ")) == (1, 1, True), err
    assert not (target / MANIFEST).exists()
    return err


# -- the hub ------------------------------------------------------------------------------------------------------------------------------------


def test_the_real_huggingface_client_gets_the_same_files_from_the_stand_in(hub: Hub, model: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from huggingface_hub import HfApi, snapshot_download\n"
        "api = HfApi(endpoint=sys.argv[1], token=False)\n"
        "assert api.model_info(sys.argv[2], revision=sys.argv[3]).sha == sys.argv[3]\n"
        "snapshot_download(sys.argv[2], revision=sys.argv[3], local_dir=sys.argv[4], endpoint=sys.argv[1], token=False)\n"
    )
    environment = {**os.environ, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HOME": str(tmp_path / "home")}
    environment |= {"NO_PROXY": "127.0.0.1"}
    there = tmp_path / "by-huggingface"
    subprocess.run([sys.executable, "-c", script, hub.url, REPO, REVISION, str(there)], check=True, env=environment, timeout=120)
    expected = {path.relative_to(model): path.read_bytes() for path in model.rglob("*") if path.is_file()}
    assert {path: (there / path).read_bytes() for path in expected} == expected
    assert any(seen.path.startswith("/lfs/") for seen in hub.settled())


def test_only_the_needed_files_arrive_readable_with_their_checksums(hub: Hub, model: Path, target: Path, run: Run) -> None:
    old = os.umask(0o077)
    try:
        status, out, err = run(hub.url)
    finally:
        os.umask(old)
    assert (status, err) == (0, "")
    assert "8 files, 3 MiB, all checksums right" in out
    assert_complete(target, model)


def test_a_complete_directory_is_left_alone_without_a_request(hub: Hub, model: Path, target: Path, run: Run) -> None:
    run(hub.url)
    hub.settled()
    hub.requests.clear()
    status, out, _ = run(hub.url)
    assert (status, hub.settled()) == (0, [])
    assert "already here" in out


def test_a_file_that_lost_bytes_is_fetched_again_and_the_others_are_not(hub: Hub, model: Path, target: Path, run: Run) -> None:
    run(hub.url)
    (target / "tokenizer.json").write_text("{}")
    hub.settled()
    hub.requests.clear()
    assert run(hub.url)[0] == 0
    assert_complete(target, model)
    assert [name for name in needed(model) if hub.sent(name)] == ["tokenizer.json"]


def test_another_revision_takes_the_place_of_the_old_and_its_files_go(hub: Hub, model: Path, target: Path, run: Run) -> None:
    target.mkdir()
    (target / "model-00001-of-00002.safetensors").write_bytes(b"old")
    entry = {"path": "model-00001-of-00002.safetensors", "size": 3, "sha256": "0"}
    (target / MANIFEST).write_text(json.dumps({"repo": REPO, "revision": "old", "source": "hub", "files": [entry]}))
    assert run(hub.url)[0] == 0
    assert_complete(target, model)


def process(target: Path, *arguments: str) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "serving", "populate", "--repo", REPO, "--revision", REVISION, "--target", str(target), *arguments]
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    return subprocess.Popen(argv, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.parametrize("source", ["hub", "modelscope"])
def test_a_killed_download_goes_on_where_it_was(hub: Hub, model: Path, target: Path, run: Run, source: str) -> None:
    hub.faults.bytes_per_second = 1 << 20
    arguments = ["--mirror", hub.url] if source == "hub" else ["--endpoint", hub.url]
    first = process(target, "--source", source, *arguments)
    partial = target / files.INCOMPLETE / hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    until = time.monotonic() + 30
    while not (partial.exists() and partial.stat().st_size > 1 << 19):
        assert time.monotonic() < until
        assert first.poll() is None
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=10)
    have = partial.stat().st_size
    assert not (target / MANIFEST).exists()
    hub.faults.bytes_per_second = 0
    hub.settled()
    hub.requests.clear()
    assert run(hub.url, source=source)[0] == 0
    assert_complete(target, model, source)
    requests = [seen for seen in hub.settled() if seen.range]
    assert {seen.range for seen in requests} == {f"bytes={have}-"}
    assert sum(seen.sent for seen in requests) == (model / "model.safetensors").stat().st_size - have
    assert sum(seen.sent for seen in hub.settled()) == sum(seen.sent for seen in requests)


def test_a_dead_first_mirror_is_named_and_the_second_serves(hub: Hub, model: Path, target: Path, run: Run) -> None:
    with serving(model, REPO, REVISION, faults=Faults(dead=True)) as dead:
        status, out, _ = run(dead.url, hub.url)
    assert status == 0
    assert f"mirror given up: {dead.url} does not answer" in out
    assert_complete(target, model)


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        (Faults(status=500), "answered 500"),
        (Faults(truncated=-1, only="model.safetensors"), "gave model.safetensors only up to byte"),
        (Faults(truncated=-1, no_range=True, only="model.safetensors"), "gave model.safetensors only up to byte"),
        (Faults(wrong=-1, only="model.safetensors"), "gave model.safetensors twice with another checksum"),
        (Faults(wrong=-1, only="config.json"), "gave config.json twice with another checksum"),
    ],
)
def test_a_broken_mirror_is_given_up_for_the_next(hub: Hub, model: Path, target: Path, run: Run, faults: Faults, words: str) -> None:
    with serving(model, REPO, REVISION, faults=faults) as broken:
        status, out, _ = run(broken.url, hub.url)
    assert status == 0
    assert f"mirror given up: {broken.url} {words}" in out
    assert_complete(target, model)


def test_a_file_truncated_once_is_continued_at_the_same_mirror(hub: Hub, model: Path, target: Path, run: Run) -> None:
    hub.faults.truncated, hub.faults.only = 1, "model.safetensors"
    status, out, _ = run(hub.url)
    size = (model / "model.safetensors").stat().st_size
    assert (status, "mirror given up" in out) == (0, False)
    assert hub.ranges("model.safetensors") == ["", f"bytes={size // 2}-"]
    assert_complete(target, model)


def test_wrong_bytes_once_are_thrown_away_and_fetched_again(hub: Hub, model: Path, target: Path, run: Run) -> None:
    hub.faults.wrong, hub.faults.only = 1, "model.safetensors"
    status, out, _ = run(hub.url)
    assert (status, "fetching it once more" in out) == (0, True)
    assert hub.ranges("model.safetensors") == ["", ""]
    assert_complete(target, model)


def test_when_every_mirror_fails_the_sentence_names_each_and_the_next_run_goes_on(hub: Hub, model: Path, target: Path, run: Run) -> None:
    hub.faults.truncated, hub.faults.only = -1, "model.safetensors"
    with serving(model, REPO, REVISION, faults=Faults(dead=True)) as dead:
        sentence = refused(run(dead.url, hub.url), target)
    assert all(words in sentence for words in (dead.url, hub.url, "modelMirrors", "run pulumi up again"))
    hub.faults.truncated = 0
    hub.settled()
    hub.requests.clear()
    assert run(hub.url)[0] == 0
    assert hub.ranges("model.safetensors") == [f"bytes={(model / 'model.safetensors').stat().st_size // 2}-"]
    assert_complete(target, model)


@pytest.mark.parametrize(
    ("faults", "token", "change", "words"),
    [
        (Faults(token="right"), TOKEN, {}, ["it is refused", "answered 401", "the token in modelToken is wrong or expired", SET_TOKEN]),
        (Faults(token="right"), "", {}, ["it is not there", "answered 401", "it is private and needs a token", SET_TOKEN]),
        (Faults(gated=True), "", {}, ["it is gated", "answered 401", "ask for access on", SET_TOKEN]),
        (Faults(gated=True, token=TOKEN), TOKEN, {}, ["it is gated", "answered 403", "the account of modelToken has no access to it"]),
        (Faults(), "", {"revision": "f" * 40}, ["it is not there at this revision", "it has no revision " + "f" * 40, "set modelRevision"]),
        (Faults(), "", {"repo": "Qwen/Qwen3-Rerunker"}, ["it is not there", "Qwen/Qwen3-Rerunker does not exist", "check the name in model"]),
        (Faults(status=403), "", {}, ["it is blocked", "answered 403", "httpsProxy", "modelMirrors"]),
        (Faults(status=410), "", {}, ["it is not there", "answered 410", "check the name in model"]),
        (Faults(status=451), "", {}, ["it is blocked", "answered 451", "modelMirrors"]),
        (Faults(dead=True), "", {}, ["it is not to be had", "does not answer", "modelMirrors"]),
    ],
)
def test_when_all_mirrors_have_spoken_one_sentence_says_what_it_is_and_the_remedy(
    model: Path, target: Path, run: Run, faults: Faults, token: str, change: dict[str, str], words: list[str]
) -> None:
    with serving(model, REPO, REVISION, faults=faults) as hub, serving(model, REPO, REVISION, faults=faults) as second:
        sentence = refused(run(hub.url, second.url, stdin=token.encode() + b"\n", **change), target)
        assert [word for word in [*words, hub.url, second.url, "run pulumi up again"] if word not in sentence] == []
        assert second.settled()


def test_a_token_that_no_header_can_carry_is_refused_before_anybody_is_asked(hub: Hub, target: Path, run: Run) -> None:
    sentence = refused(run(hub.url, stdin=b"two words\n"), target)
    assert "the token in modelToken has a blank" in sentence
    assert SET_TOKEN in sentence
    assert "two words" not in sentence
    assert hub.settled() == []


REFUSALS = [
    Reply(401, {"X-Error-Code": "GatedRepo"}), Reply(403, {"X-Error-Code": "GatedRepo"}), Reply(401, {"X-Error-Code": "RepoNotFound"}), Reply(401), Reply(403),
    Reply(404, {"X-Error-Code": "RepoNotFound"}), Reply(404, {"X-Error-Code": "RevisionNotFound"}), Reply(404, {"X-Error-Code": "EntryNotFound"}), Reply(404),
    Reply(400), Reply(410), Reply(418), Reply(451), Reply(429), Reply(429, {"Retry-After": "86400"}), Reply(500), Reply(502), Reply(503, {"Retry-After": "soon"}),
    Reply(200, {"Content-Type": "text/html"}, b"<html>Log in</html>"), Reply(200, {}, b"<!DOCTYPE html><p>Verify you are human"), Reply(200, {}, b""), Reply(200, {}, b"[{"),
    Reply(200, {"Content-Type": "application/json"}, b'{"Code": 10010205001, "Message": "no"}'), Reply(204), Reply(200, {"Content-Encoding": "br"}, b"[]"),
    Reply(200, {"Content-Encoding": "gzip"}, b"no gzip"), Reply(302, {"Location": "/api/models/round"}), Reply(302), Reply(307, {"Location": "ftp://127.0.0.1/x"}),
    Reply(302, {"Location": "file:///etc/passwd"}), Reply(301, {"Location": "http://[/"}), Reply(200, {}, b"[]"), Reply(200, {}, b"null"), Reply(200, {}, b"5", length=50),
    Reply(302, {"Location": "http://127.0.0.1:9/x"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("reply", "of"),
    [*((reply, of) for reply in REFUSALS for of in ("/tree/", "/lfs/")), *((reply, "/config.json") for reply in REFUSALS[::3])],
    ids=lambda given: given if isinstance(given, str) else f"{given.status} {given.headers} {given.body!r}",
)
def test_whatever_one_mirror_answers_the_next_is_asked(hub: Hub, model: Path, target: Path, run: Run, reply: Reply, of: str) -> None:
    always = dataclasses.replace(reply, times=-1)
    with serving(model, REPO, REVISION, faults=Faults(replies=[dataclasses.replace(always, of=of), dataclasses.replace(always, of="/round")])) as odd:
        status, out, err = run(odd.url, hub.url)
        assert (status, err) == (0, "")
        assert f"mirror given up: {odd.url} " in out
        assert len(odd.settled()) < 40
    assert_complete(target, model)


@pytest.mark.parametrize(
    ("replies", "kind"),
    [
        ([Reply(401, {"X-Error-Code": "GatedRepo"}), Reply(404)], "gated"),
        ([Reply(404), Reply(403, {"X-Error-Code": "GatedRepo"})], "gated"),
        ([Reply(404, {"X-Error-Code": "RevisionNotFound"}), Reply(404)], "not there at this revision"),
        ([Reply(404), Reply(403)], "not there where it could be asked"),
        ([Reply(403), Reply(200, {"Content-Type": "text/html"}, b"<p>")], "blocked"),
        ([Reply(500), Reply(403)], "blocked"),
        ([Reply(500), Reply(502)], "not to be had"),
    ],
)
def test_what_mirrors_say_together(model: Path, target: Path, run: Run, replies: list[Reply], kind: str) -> None:
    with contextlib.ExitStack() as stack:
        mirrors = [
            stack.enter_context(serving(model, REPO, REVISION, faults=Faults(replies=[dataclasses.replace(reply, times=-1)]))) for reply in replies
        ]
        sentence = refused(run(*(mirror.url for mirror in mirrors)), target)
    assert f"could not be downloaded, it is {kind} (" in sentence
    assert all(mirror.url in sentence for mirror in mirrors)


def half(target: Path, model: Path) -> int:
    """Puts the first half of the weights there, as an interrupted download left it."""
    content = (model / "model.safetensors").read_bytes()
    partial = target / files.INCOMPLETE / hashlib.sha256(content).hexdigest()
    partial.parent.mkdir(parents=True)
    partial.write_bytes(content[: len(content) // 2])
    return len(content) // 2


PAGES = [
    Reply(200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>Log in</html>"), Reply(200, {"Content-Type": "text/html"}, b"x" * (2 << 20)),
    Reply(200, {}, b"<!doctype HTML><p>Verify you are human"), Reply(206, {"Content-Range": "bytes 0-9/10"}, b"0123456789"), Reply(206, {}, b"0123456789"),
    Reply(200, {}, b"x" * (4 << 20)), Reply(200, {}, b"x" * 100, length=-1), Reply(403), Reply(416), Reply(503), Reply(206, {"Content-Encoding": "gzip"}, b"x"),
    Reply(200, {"Content-Encoding": "zstd"}, b"x" * 9), Reply(206, {"Content-Range": f"bytes {1 << 21}-{1 << 22}/{1 << 22}"}, b"x" * 99),
]  # fmt: skip


@pytest.mark.parametrize("reply", PAGES, ids=lambda reply: f"{reply.status} {reply.headers} {reply.body[:20]!r}")
def test_what_is_sent_in_place_of_a_file_costs_no_byte_of_what_is_there(hub: Hub, model: Path, target: Path, run: Run, reply: Reply) -> None:
    have = half(target, model)
    hub.faults.replies = [dataclasses.replace(reply, of="/lfs/", times=-1)]
    refused(run(hub.url), target)
    [partial] = [path for path in (target / files.INCOMPLETE).iterdir() if path.stat().st_size > 1000]
    assert partial.read_bytes() == (model / "model.safetensors").read_bytes()[:have]
    hub.faults.replies.clear()
    hub.settled()
    hub.requests.clear()
    assert run(hub.url)[0] == 0
    assert hub.ranges("model.safetensors") == [f"bytes={have}-"]
    assert_complete(target, model)


@pytest.mark.parametrize("reply", PAGES, ids=lambda reply: f"{reply.status} {reply.headers} {reply.body[:20]!r}")
def test_the_same_mirror_is_asked_once_more_and_the_file_goes_on(hub: Hub, model: Path, target: Path, run: Run, reply: Reply) -> None:
    half(target, model)
    hub.faults.replies = [dataclasses.replace(reply, of="/lfs/")]
    status, out, _ = run(hub.url)
    assert (status, "mirror given up" in out) == (0, False)
    assert_complete(target, model)


def test_an_address_that_a_cdn_refuses_is_resolved_again_at_the_mirror(hub: Hub, model: Path, target: Path, run: Run) -> None:
    """As one whose signature expired while the disk was slow."""
    hub.faults.replies = [Reply(403, of="/lfs/", times=2)]
    assert run(hub.url)[0] == 0
    address_and_cdn = ("/model.safetensors", f"/lfs/{hashlib.sha256((model / 'model.safetensors').read_bytes()).hexdigest()}")
    assert [sum(seen.path.endswith(name) for seen in hub.settled()) for name in address_and_cdn] == [3, 3]
    assert_complete(target, model)


def test_a_server_without_ranges_sends_all_again_and_what_was_there_stays(hub: Hub, model: Path, target: Path, run: Run) -> None:
    half(target, model)
    hub.faults.no_range = True
    assert run(hub.url)[0] == 0
    assert_complete(target, model)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw deflate"])
@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("source", ["hub", "modelscope"])
def test_compression_that_nobody_asked_for_is_undone(
    hub: Hub, model: Path, target: Path, run: Run, encoding: str, started: bool, source: str
) -> None:
    if started:
        half(target, model)
    hub.faults.encoding = encoding
    assert run(hub.url, source=source)[0] == 0
    assert_complete(target, model, source)


def test_a_body_in_chunks_is_taken_and_one_that_breaks_off_goes_on(hub: Hub, model: Path, target: Path, run: Run) -> None:
    hub.faults.chunked, hub.faults.truncated, hub.faults.only = True, 1, "model.safetensors"
    assert run(hub.url)[0] == 0
    size = (model / "model.safetensors").stat().st_size
    assert hub.ranges("model.safetensors") == ["", f"bytes={size // 2}-"]
    assert_complete(target, model)


@pytest.mark.parametrize(
    "link",
    [
        '<{next}>; rel="next"', "<{next}>; rel=next", '<{first}>; rel="first", <{next}>; rel="next"', '<{next}>; rel="next", <{first}>; rel="first"',
        '<{first}>; rel="first"; title="a, b; rel=\\"next\\"", <{next}>; title="x"; rel="last next"', "<{first}>;rel=first,<{next}>;rel=NEXT",
        '<?recursive=true&cursor={cursor}>; rel="next"', '</api/models/Qwen/Qwen3-Reranker-0.6B/tree/' + REVISION + '?cursor={cursor}>; rel="next"',
    ],
)  # fmt: skip
def test_the_next_page_of_a_list_is_found_in_every_form_of_the_header(hub: Hub, model: Path, target: Path, run: Run, link: str) -> None:
    hub.faults.link = link
    assert run(hub.url)[0] == 0
    assert sum("/tree/" in seen.path for seen in hub.settled()) == -(-len(hub.files()) // 4)
    assert_complete(target, model)


def test_pages_that_lead_in_a_circle_give_up_the_mirror(hub: Hub, target: Path, run: Run) -> None:
    hub.faults.link = '<{first}>; rel="next"'
    assert "whose pages lead in a circle" in refused(run(hub.url), target)
    assert len(hub.settled()) == 2


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("of", ["/tree/", "/lfs/", "/config.json"])
@pytest.mark.parametrize(("after", "least", "most"), [("7", 7, 7), ("0", 0, 0), ("date", 18, 21), ("Thu, 01 Jan 1970 00:00:00 GMT", 0, 0)])
def test_a_mirror_that_asks_to_wait_is_waited_for(
    hub: Hub, model: Path, target: Path, run: Run, monkeypatch: pytest.MonkeyPatch, status: int, of: str, after: str, least: float, most: float
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    if after == "date":
        after = email.utils.format_datetime(datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=20), usegmt=True)
    hub.faults.replies = [Reply(status, {"Retry-After": after}, of=of)]
    assert run(hub.url)[0] == 0
    assert len(slept) == 1
    assert least <= slept[0] <= most
    assert_complete(target, model)


@pytest.mark.parametrize("after", ["121", "86400", "date"])
def test_a_mirror_that_asks_for_more_patience_than_there_is_is_given_up_at_once(
    hub: Hub, model: Path, target: Path, run: Run, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"slept for {seconds} s"))
    if after == "date":
        after = email.utils.format_datetime(datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1), usegmt=True)
    with serving(model, REPO, REVISION, faults=Faults(replies=[Reply(429, {"Retry-After": after}, times=-1)])) as busy:
        status, out, _ = run(busy.url, hub.url)
        assert len(busy.settled()) == 1
    assert (status, "answered 429 and asks to wait for" in out) == (0, True)


@pytest.mark.parametrize("source", ["hub", "modelscope"])
def test_without_checksums_the_message_says_sizes_only(hub: Hub, model: Path, target: Path, run: Run, source: str) -> None:
    hub.faults.no_checksums = True
    status, out, _ = run(hub.url, source=source)
    assert status == 0
    assert "8 files, 3 MiB, sizes only, the source states no checksum for any of them" in out
    assert "checksums right" not in out
    assert_complete(target, model, source)


def test_without_checksums_a_file_that_changed_between_two_parts_begins_again_and_one_that_did_not_goes_on(
    hub: Hub, model: Path, target: Path, run: Run
) -> None:
    hub.faults = Faults(no_checksums=True, truncated=-1, only="model.safetensors", etag='"old"')
    refused(run(hub.url), target)
    size = (model / "model.safetensors").stat().st_size
    hub.settled()
    hub.requests.clear()
    hub.faults.truncated, hub.faults.etag = 2, '"new"'  # the answer that goes on with the old file is one of them
    content = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(content[:-9] + b"different")
    assert run(hub.url)[0] == 0
    # The part of the old file is not gone on with: the new one begins again, breaks off and goes on.
    assert hub.ranges("model.safetensors") == ["", f"bytes={size // 2}-"]
    assert_complete(target, model)


def test_without_checksums_no_file_of_another_revision_is_taken_for_this_one(hub: Hub, model: Path, target: Path, run: Run) -> None:
    hub.faults.no_checksums = True
    target.mkdir()
    (target / "config.json").write_bytes(b"x" * (model / "config.json").stat().st_size)
    assert run(hub.url)[0] == 0
    assert_complete(target, model)


def test_a_checksum_that_is_none_names_no_file(target: Path) -> None:
    file = files.RemoteFile("config.json", 2, "http://127.0.0.1:9/x", sha256="../../escaped", git_blob="A" * 40)
    assert (file.sha256, file.checksum) == ("", "a" * 40)
    assert fetch.partial_path(target, file).parent == target / files.INCOMPLETE


def test_a_mirror_without_the_weights_is_given_up_before_a_byte_is_fetched(hub: Hub, model: Path, target: Path, run: Run, tmp_path: Path) -> None:
    part = tmp_path / "part"
    shutil.copytree(model, part)
    (part / "model.safetensors").unlink()
    with serving(part, REPO, REVISION) as poor:
        status, out, _ = run(poor.url, hub.url)
        assert not [seen for seen in poor.settled() if seen.sent]
    assert (status, f"mirror given up: {poor.url} lists no *.safetensors" in out) == (0, True)
    assert_complete(target, model)


def test_the_wrong_kind_of_model_is_refused_before_its_weights_are_fetched(hub: Hub, model: Path, target: Path, run: Run) -> None:
    (model / "config.json").write_text('{"architectures": ["BertModel"]}')
    sentence = refused(run(hub.url), target)
    assert "it is a BertModel and not a Qwen3-Reranker" in sentence
    assert "choose another model" in sentence
    assert hub.sent("model.safetensors") == 0


def test_a_right_token_is_sent_to_the_mirror_and_not_to_the_host_that_it_redirects_to(hub: Hub, model: Path, target: Path, run: Run) -> None:
    hub.faults.token = TOKEN
    hub.cdn = hub.url.replace("127.0.0.1", "localhost")
    assert run(hub.url, stdin=f"{TOKEN}\n".encode())[0] == 0
    assert_complete(target, model)
    assert {seen.authorization for seen in hub.settled() if seen.path.startswith("/lfs/")} == {""}
    assert {seen.authorization for seen in hub.settled() if not seen.path.startswith("/lfs/")} == {f"Bearer {TOKEN}"}


def test_a_disk_that_cannot_hold_what_is_missing_is_refused_before_a_byte_is_fetched(
    hub: Hub, target: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10 << 20, 8 << 20, 2 << 20))
    sentence = refused(run(hub.url), target)
    assert all(words in sentence for words in ("4 MiB are still to come but 2 MiB are free", "docker system df", "run pulumi up again"))
    assert hub.sent("model.safetensors") == 0


def test_a_disk_that_fills_up_on_the_way_ends_in_the_same_remedy(hub: Hub, model: Path, target: Path, run: Run) -> None:
    partial = target / files.INCOMPLETE / hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    partial.parent.mkdir(parents=True)
    partial.symlink_to("/dev/full")
    sentence = refused(run(hub.url), target)
    assert all(words in sentence for words in (f"the disk under {target} is full", os.strerror(errno.ENOSPC), "docker system df"))


@pytest.mark.parametrize("path", ["../config.json", "/etc/config.json", "a/../../config.json"])
def test_a_mirror_that_names_files_outside_the_directory_is_given_up(target: Path, run: Run, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(populate, "hub_files", lambda *args: [files.RemoteFile(path, 2, "http://127.0.0.1:9/x")])
    assert "leads out of the directory" in refused(run("http://127.0.0.1:9"), target)


def test_progress_is_a_line_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    shown = progress.Progress(100 << 20, 20 << 20, clock=lambda: now)
    for now in (1.0, 2.0, 4.0, 5.0):  # noqa: B007 the clock reads it
        shown.add("model.safetensors", 8 << 20)
    assert capsys.readouterr().out == "model.safetensors: 44 MiB of 100 MiB, 6.0 MiB/s\n"


def test_two_populations_of_one_directory_take_turns(hub: Hub, model: Path, target: Path, run: Run) -> None:
    hub.faults.bytes_per_second = 4 << 20
    both = [process(target, "--source", "hub", "--mirror", hub.url) for _ in range(2)]
    outputs = [each.communicate(timeout=60)[0].decode() for each in both]
    assert [each.returncode for each in both] == [0, 0]
    assert sum("already here, 8 files" in output for output in outputs) == 1
    assert hub.ranges("model.safetensors") == [""]
    assert_complete(target, model)


# -- the token ----------------------------------------------------------------------------------------------------------------------------------


def bearers(hub: Hub) -> set[str]:
    """What the hub was told in Authorization headers, files behind its redirects apart."""
    return {seen.authorization for seen in hub.settled() if not seen.path.startswith("/lfs/")}


def test_the_token_goes_to_the_hub_that_it_is_for_and_not_to_a_third_partys_mirror_before_it(hub: Hub, model: Path, target: Path, run: Run) -> None:
    hub.faults.token = TOKEN
    with serving(model, REPO, REVISION, faults=Faults(truncated=-1, only="model.safetensors")) as mirror:
        status, out, _ = run(mirror.url, hub.url, stdin=f"{TOKEN}\n".encode(), hosts=[hub.url])
    assert (status, f"mirror given up: {mirror.url}" in out) == (0, True)
    assert_complete(target, model)
    assert len(mirror.settled()) > 3
    assert {seen.authorization for seen in mirror.settled()} == {""}
    assert bearers(hub) == {f"Bearer {TOKEN}"}


def test_a_mirror_that_has_a_public_model_serves_it_without_the_token(hub: Hub, model: Path, target: Path, run: Run) -> None:
    with serving(model, REPO, REVISION) as mirror:
        assert run(mirror.url, hub.url, stdin=f"{TOKEN}\n".encode(), hosts=[hub.url])[0] == 0
    assert_complete(target, model)
    assert {seen.authorization for seen in mirror.settled()} == {""}
    assert hub.settled() == []


@pytest.mark.parametrize(
    ("faults", "code"),
    [
        (Faults(status=401), 401),
        (Faults(status=403), 403),
        (Faults(token="of its own"), 401),  # RepoNotFound
        (Faults(gated=True), 401),  # GatedRepo
    ],
)
def test_a_mirror_that_refuses_what_it_got_no_token_for_does_not_end_the_search(
    hub: Hub, model: Path, target: Path, run: Run, faults: Faults, code: int
) -> None:
    hub.faults.token = TOKEN
    with serving(model, REPO, REVISION, faults=faults) as mirror:
        status, out, _ = run(mirror.url, hub.url, stdin=f"{TOKEN}\n".encode(), hosts=[hub.url])
    assert status == 0
    assert f"mirror given up: {mirror.url} answered {code} without modelToken" in out
    assert_complete(target, model)
    assert {seen.authorization for seen in mirror.settled()} == {""}


def test_when_no_mirror_got_the_token_the_sentence_says_which_key_would_give_it(hub: Hub, target: Path, run: Run) -> None:
    hub.faults.token = TOKEN
    sentence = refused(run(hub.url, stdin=f"{TOKEN}\n".encode(), hosts=["https://huggingface.co"]), target)
    assert "modelTokenHosts" in sentence
    assert bearers(hub) == {""}


def test_modelscope_gets_the_token_where_it_is_named(hub: Hub, model: Path, target: Path, run: Run) -> None:
    hub.faults.token = TOKEN
    assert run(hub.url, source="modelscope", stdin=f"{TOKEN}\n".encode(), hosts=["https://modelscope.cn"])[0] == 0
    assert bearers(hub) == {""}
    shutil.rmtree(target)
    hub.requests.clear()
    assert run(hub.url, source="modelscope", stdin=f"{TOKEN}\n".encode())[0] == 0
    assert bearers(hub) == {f"Bearer {TOKEN}"}
    assert_complete(target, model, "modelscope")


@pytest.mark.parametrize(
    ("host", "url", "goes"),
    [
        ("https://hub.example", "https://hub.example/api/models/x?y=z", True),
        ("https://hub.example/", "https://hub.example/a", True),
        ("https://Hub.Example", "https://hub.example/a", True),
        ("https://hub.example", "https://HUB.example/a", True),
        ("http://hub.example:8080", "http://hub.example:8080/a", True),
        ("http://hub.example", "https://hub.example/a", False),
        ("https://hub.example", "http://hub.example/a", False),
        ("https://hub.example", "https://hub.example:8443/a", False),
        ("https://hub.example", "https://cdn.hub.example/a", False),
        ("https://hub.example", "https://hub.example.evil/a", False),
        ("https://hub.example", "https://evil/hub.example", False),
        ("https://hub.example", "https://hub.example@evil/a", False),
        ("https://hub.example", "https://evil/?https://hub.example", False),
        ("https://hub.example", "https://evil#@hub.example/a", False),
    ],
)
def test_the_token_is_for_an_address_with_its_scheme_and_its_port(host: str, url: str, goes: bool) -> None:
    token = fetch.Token(TOKEN, (host,))
    assert token.goes_to(url) is goes
    assert token.withheld_from(url) is not goes
    assert not fetch.Token("", (host,)).goes_to(url)
    assert not fetch.Token("", (host,)).withheld_from(url)


def test_without_a_host_the_token_goes_nowhere_and_its_text_is_shown_nowhere() -> None:
    token = fetch.Token(TOKEN)
    assert not token.goes_to("https://huggingface.co/api")
    assert TOKEN not in f"{token!r} {token}"


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("to", "carried"),
    [
        ("http://hub.example/elsewhere", True),
        ("https://hub.example/a", False),
        ("http://hub.example:8080/a", False),
        ("http://cdn.example/a", False),
    ],
)
def test_a_redirect_carries_the_token_no_further_than_its_own_address(code: int, to: str, carried: bool) -> None:
    request = urllib.request.Request("http://hub.example/a", headers={"Authorization": f"Bearer {TOKEN}", "Range": "bytes=1-"})
    followed = fetch._Redirects().redirect_request(request, None, code, "", email.message.Message(), to)
    assert followed is not None
    assert followed.full_url == to
    assert followed.has_header("Authorization") is carried
    assert followed.get_header("Range") == "bytes=1-"


# -- modelscope ---------------------------------------------------------------------------------------------------------------------------------


def test_modelscope_serves_the_same_model(hub: Hub, model: Path, target: Path, run: Run) -> None:
    assert run(hub.url, source="modelscope")[0] == 0
    assert_complete(target, model, "modelscope")


def test_modelscope_with_wrong_bytes_ends_in_a_sentence(hub: Hub, target: Path, run: Run) -> None:
    hub.faults.wrong, hub.faults.only = -1, "model.safetensors"
    sentence = refused(run(hub.url, source="modelscope"), target)
    assert all(words in sentence for words in ("gave model.safetensors twice with another checksum", "modelscopeEndpoint"))


@pytest.mark.parametrize(
    "body",
    [
        {"Code": 10010205001, "Success": False, "Message": "the model\ndoes not exist"},
        {"Code": 200, "Success": False, "Message": "the model does not exist", "Data": {}},
        {"Code": 200, "Success": True, "Data": {"Files": None}, "Message": "the model does not exist"},
        {"Code": 404, "Message": "the model does not exist", "Data": None},
    ],
)
def test_modelscope_refuses_with_200_and_is_understood(hub: Hub, target: Path, run: Run, body: dict[str, object]) -> None:
    hub.faults.replies = [Reply(200, {"Content-Type": "application/json"}, json.dumps(body).encode(), times=-1)]
    sentence = refused(run(hub.url, source="modelscope"), target)
    assert "it is not there at this revision" in sentence
    assert "the model does not exist)" in sentence
    assert "check model and modelRevision" in sentence


def test_modelscopes_own_checksums_are_used(hub: Hub, model: Path, target: Path, run: Run) -> None:
    status, out, _ = run(hub.url, source="modelscope")
    assert (status, "all checksums right" in out) == (0, True)


def test_modelscope_without_the_revision_names_the_key(hub: Hub, target: Path, run: Run) -> None:
    assert "check model and modelRevision" in refused(run(hub.url, source="modelscope", revision="v9"), target)


# -- archive ------------------------------------------------------------------------------------------------------------------------------------


def tar(model: Path, *, mode: str = "w:gz", folder: str = "", evil: tarfile.TarInfo | None = None) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        archive.add(model, arcname=folder or ".")
        if evil:
            archive.addfile(evil)
    return stream.getvalue()


@pytest.mark.parametrize(("mode", "folder"), [("w:gz", ""), ("w", ""), ("w:gz", "Qwen3-Reranker-0.6B")])
def test_an_archive_is_unpacked_from_its_top_or_from_under_one_folder(model: Path, target: Path, run: Run, mode: str, folder: str) -> None:
    status, _, err = run(source="archive", stdin=tar(model, mode=mode, folder=folder))
    assert (status, err) == (0, "")
    assert_complete(target, model, "archive")


def evil(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


@pytest.mark.parametrize(
    "member",
    [
        evil("../escaped.json"),
        evil("/tmp/escaped.json"),
        evil("a/../../escaped.json"),
        evil("/etc/passwd"),
        evil("link.json", tarfile.SYMTYPE, "/etc/passwd"),
        evil("hard.json", tarfile.LNKTYPE, "config.json"),
        evil("device.json", tarfile.CHRTYPE),
    ],
    ids=lambda member: member.name,
)
def test_an_archive_with_an_evil_member_is_refused_whole(model: Path, target: Path, run: Run, tmp_path: Path, member: tarfile.TarInfo) -> None:
    sentence = refused(run(source="archive", stdin=tar(model, evil=member)), target)
    assert repr(member.name) in sentence
    assert not list(tmp_path.rglob("escaped.json"))
    assert not (target / "config.json").exists()


LITTER = ("._config.json", "._model.safetensors", ".DS_Store", "Thumbs.db", "desktop.ini", ".git/config.json", "__MACOSX/._model.safetensors")


def litter(directory: Path) -> None:
    """What other systems leave beside the files."""
    for name in LITTER:
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(b"\0\5\26\7")


@pytest.mark.parametrize("folder", ["", "Qwen3-Reranker-0.6B"])
def test_what_other_systems_leave_in_an_archive_is_passed_over(model: Path, target: Path, run: Run, tmp_path: Path, folder: str) -> None:
    littered = tmp_path / "littered"
    shutil.copytree(model, littered)
    litter(littered)
    (littered / "README.md").unlink()
    (littered / "README.md").symlink_to("../blobs/readme")
    status, _, err = run(source="archive", stdin=tar(littered, folder=folder))
    assert (status, err) == (0, "")
    assert_complete(target, model, "archive")


def test_an_archive_with_two_models_is_refused_with_their_names(model: Path, target: Path, run: Run, tmp_path: Path) -> None:
    both = tmp_path / "both"
    for name in ("first", "second"):
        shutil.copytree(model, both / name)
    assert "holds several models (first, second)" in refused(run(source="archive", stdin=tar(both)), target)


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz", "w"])
def test_an_archive_with_wrong_bytes_in_it_ends_in_a_sentence(model: Path, target: Path, run: Run, mode: str) -> None:
    whole = bytearray(tar(model, mode=mode))
    whole[len(whole) // 3 : len(whole) // 3 + 64] = bytes(64)
    status, _, err = run(source="archive", stdin=bytes(whole))
    assert (status, err.count("\n")) in ((0, 0), (1, 1))  # a plain tar has no checksum of its files
    assert mode == "w" or "archive of modelPath is" in err


@pytest.mark.parametrize("stdin", [b"", b"no tar at all" * 100, b"PK\3\4" * 200])
def test_what_is_no_tar_is_refused(target: Path, run: Run, stdin: bytes) -> None:
    assert "is cut off or no tar" in refused(run(source="archive", stdin=stdin), target)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive_that_was_cut_off_is_refused_and_the_whole_one_taken_next(model: Path, target: Path, run: Run, mode: str) -> None:
    whole = tar(model, mode=mode)
    refused(run(source="archive", stdin=whole[: len(whole) // 2]), target)
    assert run(source="archive", stdin=whole)[0] == 0
    assert_complete(target, model, "archive")


# -- directory ----------------------------------------------------------------------------------------------------------------------------------


def test_a_whole_directory_is_only_looked_at(model: Path, target: Path, run: Run) -> None:
    shutil.copytree(model, target)
    before = sorted(path.stat().st_mtime_ns for path in target.rglob("*"))
    status, out, _ = run(source="directory")
    assert (status, "holds a whole model" in out) == (0, True)
    assert sorted(path.stat().st_mtime_ns for path in target.rglob("*")) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda directory: (directory / "model-00002-of-00002.safetensors").unlink(), "model-00002-of-00002.safetensors is missing"),
        (lambda directory: os.truncate(directory / "model-00001-of-00002.safetensors", 5000), "model-00001-of-00002.safetensors is cut off"),
        (lambda directory: (directory / "config.json").unlink(), "config.json is missing"),
        (lambda directory: [(directory / name).unlink() for name in ("tokenizer.json",)], "tokenizer.json is missing"),
        (lambda directory: (directory / "model.safetensors.index.json").write_text("[]"), "is not an index of shards"),
        (lambda directory: (directory / "model.safetensors.index.json").write_text(""), "model.safetensors.index.json is empty"),
        (lambda directory: (directory / "model.safetensors.index.json").write_text('{"weight_map": {"a"'), "index.json is cut off or no JSON"),
        (lambda directory: (directory / "model.safetensors.index.json").unlink(), ""),
        (
            lambda directory: [(directory / name).unlink() for name in ("model.safetensors.index.json", "model-00001-of-00002.safetensors")],
            "model.safetensors.index.json is missing, and 1 of 2 shards are there",
        ),
        (lambda directory: os.truncate(directory / "model-00001-of-00002.safetensors", 0), "model-00001-of-00002.safetensors is empty"),
        (lambda directory: (directory / "config.json").write_text(""), "config.json is empty"),
        (lambda directory: (directory / "config.json").write_text("[]"), "config.json is no object"),
        (lambda directory: (directory / "tokenizer.json").write_text('{"model": {"vocab"'), "tokenizer.json is cut off or no JSON"),
        (lambda directory: (directory / "tokenizer_config.json").write_bytes(b"\xff\xfe{\0}"), "tokenizer_config.json is cut off or no JSON"),
        (lambda directory: (directory / "generation_config.json").write_text("<html>"), "generation_config.json is cut off or no JSON"),
        (lambda directory: (directory / "tokenizer.json").write_text(POINTER), "tokenizer.json: only the pointer of Git LFS is there (run git lfs"),
        (
            lambda directory: [path.write_text(POINTER) for path in (directory / "tokenizer.json", *directory.glob("*.safetensors"))],
            "model-00001-of-00002.safetensors, model-00002-of-00002.safetensors, tokenizer.json: only the pointer of Git LFS is there",
        ),
        (lambda directory: (directory / "config.json").write_text('{"architectures": ["BertModel"]}'), "it is a BertModel and not a Qwen3-Reranker"),
    ],
)
def test_a_directory_that_is_not_whole_is_refused_with_what_it_lacks(
    model: Path, target: Path, run: Run, change: Callable[[Path], object], words: str
) -> None:
    shutil.copytree(model, target)
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for shard in shards:
        shutil.copy(target / "model.safetensors", target / shard)
    (target / "model.safetensors").unlink()
    (target / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict(zip("ab", shards, strict=True))}))
    assert run(source="directory")[0] == 0
    change(target)
    if words:
        assert words in refused(run(source="directory"), target)
    else:
        assert run(source="directory")[0] == 0  # all shards are there, and vLLM reads them without the index
    stream = tar(target)
    shutil.rmtree(target)
    if words:
        assert words in refused(run(source="archive", stdin=stream), target)


def test_a_snapshot_of_hugging_faces_cache_is_served_where_its_links_lead_somewhere_and_told_apart_where_not(
    model: Path, target: Path, run: Run, tmp_path: Path
) -> None:
    blobs, snapshot = tmp_path / "blobs", target
    blobs.mkdir()
    snapshot.mkdir()
    for place, path in enumerate(sorted(path for path in model.iterdir() if path.is_file())):
        shutil.copy(path, blobs / str(place))
        (snapshot / path.name).symlink_to(f"../blobs/{place}")
    assert run(source="directory")[0] == 0
    shutil.rmtree(blobs)  # as the container sees it, which has the snapshot alone
    sentence = refused(run(source="directory"), target)
    assert "is a link to ../blobs/" in sentence
    assert "cp -rL <snapshot> <directory>" in sentence


def test_what_other_systems_leave_in_a_directory_is_passed_over(model: Path, target: Path, run: Run) -> None:
    shutil.copytree(model, target)
    litter(target)
    for path in target.rglob("._*"):
        path.chmod(0)
    assert run(source="directory")[0] == 0
    assert [path.name for path in weight_files(target)] == ["model.safetensors"]


def test_a_file_that_the_user_cannot_read_is_named_with_mode_and_remedy(model: Path) -> None:
    """As another user where this one is root, whom no mode keeps out."""
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place, "model")
        shutil.copytree(model, directory)
        os.chmod(place, 0o755)
        (directory / "model.safetensors").chmod(0o000)
        script = "import os, sys; from serving.populate import run; os.getuid() or os.setuid(65534); sys.exit(run.main(sys.argv[1:]))"
        argv = [sys.executable, "-c", script, "--source", "directory", "--repo", REPO, "--revision", REVISION, "--target", str(directory)]
        result = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert result.returncode == 1
    assert f"{directory / 'model.safetensors'} (mode 0000) cannot be read by the container's user" in result.stderr
    assert "chmod -R a+rX" in result.stderr
