"""The population step against a hub on this machine that speaks the real protocols, faults included."""

import argparse
import email.message
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

from serving.model import MANIFEST
from serving.populate import fetch, files, progress
from serving.populate import hub as hubs
from serving.populate import run as populate
from tests.support.hub import Faults, Hub, serving

ROOT = Path(__file__).parents[2]
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
        (Faults(token="right"), TOKEN, {}, ["answered 401", "the token in modelToken is wrong or expired", "pulumi config set --secret modelToken"]),
        (Faults(token="right"), "", {}, ["answered 401", "is private and needs a token", "pulumi config set --secret modelToken"]),
        (Faults(gated=True), "", {}, ["answered 401", "is gated", "ask for access on", "pulumi config set --secret modelToken"]),
        (Faults(gated=True, token=TOKEN), TOKEN, {}, ["answered 403", "is gated", "the account of modelToken has no access to it"]),
        (Faults(), "", {"revision": "f" * 40}, ["has no revision " + "f" * 40, "modelRevision"]),
        (Faults(), "", {"repo": "Qwen/Qwen3-Rerunker"}, ["Qwen/Qwen3-Rerunker does not exist", "check the name in model"]),
        (Faults(), "two words", {}, ["the token in modelToken has a blank", "pulumi config set --secret modelToken"]),
    ],
)
def test_what_no_mirror_can_mend_ends_in_one_sentence_that_names_the_remedy(
    model: Path, target: Path, run: Run, faults: Faults, token: str, change: dict[str, str], words: list[str]
) -> None:
    with serving(model, REPO, REVISION, faults=faults) as hub, serving(model, REPO, REVISION) as second:
        sentence = refused(run(hub.url, second.url, stdin=token.encode() + b"\n", **change), target)
        assert [word for word in words if word not in sentence] == []
        assert "two words" not in sentence
        assert second.settled() == []


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


@pytest.mark.parametrize("stdin", [b"", b"no tar at all" * 100])
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
    assert words in refused(run(source="directory"), target)


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
