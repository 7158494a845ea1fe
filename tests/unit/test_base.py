"""The image below: which registry is asked when, what a preview may do, what is said where none has it. The machines are made up."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from components._base import DEBIAN, Machines, Published, Unavailable, ensure, own_mirror
from host import registry
from host.docker import DockerError
from host.registry import Answer

DIGEST = "sha256:" + "0123456789ab" + "0" * 52
LOCAL = "ragflow-reranker-base:0123456789ab"
NAMES = [f"docker.io/library/python@{DIGEST}", f"mirror.example/hub/library/python@{DIGEST}", f"third.example/library/python@{DIGEST}"]
NO, YES, UNKNOWN = Answer("no", "no such host"), Answer("yes"), Answer("unknown")


def published(**changed: object) -> Published:
    plain: dict[str, object] = {"reference": f"python:3.12-slim@{DIGEST}", "registries": ("docker.io", "mirror.example/hub", "third.example")}
    return Published(**{**plain, **changed})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Imagined(Machines):
    """A Docker host and this machine, as a test says they are; `did` is what was changed on them."""

    surroundings: dict[str, str] = field(default_factory=dict)
    has: tuple[str, ...] = ()
    answers: Sequence[Answer] = (NO, NO, NO)
    unpullable: tuple[str, ...] = ()
    apt: tuple[str, ...] = ()
    lacks: str = "it is not installed"
    mirror: str = ""
    build: Callable[[Sequence[str]], tuple[int, str]] = lambda _: (0, "")
    did: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def present(self, name: str) -> bool:
        return name in self.has

    def ask(self, reference: str, platform: str) -> Answer:
        self.asked.append(reference)
        return self.answers[NAMES.index(reference)] if reference in NAMES else self.answers[0]

    def with_apt(self) -> list[str]:
        return list(self.apt)

    def lacking(self) -> str:
        return self.lacks

    def reaches(self, mirror: str, proxies: object) -> str:
        return self.mirror

    def run(self, argv: Sequence[str], *, stdin: str = "", **environment: str) -> tuple[int, str]:
        self.did.append(" ".join(argv[:2]))
        return self.build(argv)

    def docker(self, *argv: str) -> None:
        self.did.append(" ".join(argv))
        if argv[-1] in self.unpullable:
            raise DockerError("blob: connection reset by peer")


def had(image: Published, at: Machines, *, dry: bool = False) -> list[str]:
    """What was said."""
    said: list[str] = []
    ensure(image, at, platform="linux/amd64", dry=dry, say=said.append, warn=said.append)
    return said


def refused(image: Published, at: Machines, *, dry: bool = False) -> str:
    with pytest.raises(Unavailable) as reason:
        had(image, at, dry=dry)
    return str(reason.value)


def test_docker_hubs_image_has_a_name_in_every_registry_and_one_here_whichever_answers() -> None:
    assert published().candidates == NAMES
    assert published().local == LOCAL == published(registries=("other.example",)).local == published(from_packages=True).local
    assert published(reference=f"vllm/vllm-openai:v1@{DIGEST}", registries=("docker.io", "m.example")).candidates == [
        f"docker.io/vllm/vllm-openai@{DIGEST}",
        f"m.example/vllm/vllm-openai@{DIGEST}",
    ]


@pytest.mark.parametrize("reference", ["python:3.12-slim", f"quay.example/x/python:1@{DIGEST}", "localhost/mine:1", "127.0.0.1:5000/mine:1"])
def test_an_image_without_a_digest_or_of_another_registry_is_asked_for_by_its_own_name_alone(reference: str) -> None:
    assert published(reference=reference).candidates == [reference]
    assert published(reference=reference).local == reference


def test_what_the_host_has_is_taken_without_asking_anybody() -> None:
    at = Imagined(has=(LOCAL,))
    assert (had(published(), at), at.asked, at.did) == ([], [], [])


def test_what_the_host_has_under_a_mirrors_name_is_named_and_nothing_is_pulled() -> None:
    at = Imagined(has=(NAMES[2],))
    assert (had(published(), at), at.asked, at.did) == ([], [], [f"tag {NAMES[2]} {LOCAL}"])


def test_the_first_in_the_list_that_has_it_is_pulled_and_those_before_it_are_named_with_their_reason() -> None:
    at = Imagined(answers=(NO, YES, YES))
    [said] = had(published(), at)
    assert at.did == [f"pull --quiet {NAMES[1]}", f"tag {NAMES[1]} {LOCAL}"]
    assert said == "baseImage: pulled from mirror.example/hub/library/python, after docker.io/library/python: no such host"


def test_a_registry_whose_files_do_not_come_is_passed_over_too() -> None:
    at = Imagined(answers=(YES, YES, YES), unpullable=(NAMES[0],))
    had(published(), at)
    assert at.did[-2:] == [f"pull --quiet {NAMES[1]}", f"tag {NAMES[1]} {LOCAL}"]


def test_a_daemon_that_cannot_be_asked_is_told_to_pull() -> None:
    at = Imagined(answers=(NO, UNKNOWN, NO))
    assert "would be pulled from mirror.example" in had(published(), at, dry=True)[0]
    had(published(), at)
    assert at.did == [f"pull --quiet {NAMES[1]}", f"tag {NAMES[1]} {LOCAL}"]


@pytest.mark.parametrize("facts", [{"answers": (NO, YES, NO)}, {"has": (NAMES[0],)}, {"apt": ("debian:12",)}, {"lacks": ""}])
def test_a_preview_finds_out_and_changes_nothing(facts: dict[str, object]) -> None:
    at = Imagined(**facts)  # type: ignore[arg-type]
    had(published(from_packages=True), at, dry=True)
    assert at.did == []


@pytest.mark.parametrize("dry", [True, False])
def test_where_nothing_works_the_message_has_all_that_was_tried_and_every_key(dry: bool) -> None:
    at = Imagined()
    said = refused(published(), at, dry=dry)
    assert at.did == []
    for name in (
        "docker.io/library/python: no such host",
        "mirror.example/hub/library/python: no such host",
        "third.example/library/python: no such host",
    ):
        assert f"  - {name}\n" in said
    for remedy in (
        "imageRegistries: ",
        "imageFromPackages: true",
        "baseImage: another image",
        f"docker tag IMAGE {LOCAL}",
        "/etc/docker/daemon.json",
    ):
        assert remedy in said


def test_where_packages_are_allowed_and_cannot_be_had_either_the_message_says_what_each_way_lacks() -> None:
    said = refused(published(from_packages=True), Imagined(lacks="", mirror="http://deb.example/debian: timed out"), dry=True)
    assert "  - an image on the Docker host to make a Debian with: none there (debian, ubuntu, RAGFlow's own)\n" in said
    assert "  - debootstrap on this machine: http://deb.example/debian: timed out\n" in said
    assert "debianMirror: a mirror of Debian's packages" in said
    assert "imageFromPackages: true" not in said


def test_a_debian_is_made_on_the_host_inside_an_image_that_is_there_before_this_machine_makes_one() -> None:
    at = Imagined(apt=("infiniflow/ragflow:v0.27.0",), lacks="")
    said = had(published(from_packages=True), at)
    assert at.did == ["docker build"]
    assert said[-1].endswith("They are signed by Debian, but not pinned; imageFromPackages: false refuses this")
    assert "Debian made inside infiniflow/ragflow:v0.27.0" in said[-1]


def test_a_build_on_the_host_that_fails_is_followed_by_this_machines_debootstrap() -> None:
    def build(argv: Sequence[str]) -> tuple[int, str]:
        return (1, "E: Temporary failure resolving 'archive.example'") if "MAKER=ubuntu:24.04" in argv else (0, "")

    at = Imagined(apt=("ubuntu:24.04",), lacks="", build=build)
    said = had(published(from_packages=True), at)
    assert at.did[0] == "docker build"
    assert at.did[2:] == ["docker import", "docker build", "docker image"]
    assert "Debian made inside ubuntu:24.04: a host's name is not found: E: Temporary failure resolving 'archive.example'" in said[-1]


def test_another_registrys_image_is_never_made_from_packages_of_which_it_says_nothing() -> None:
    at = Imagined(apt=("debian:12",))
    said = refused(published(key="gpuImage", reference="vllm/vllm-openai:v1"), at)
    assert "gpuImage: pin it by digest" in said
    assert "imageFromPackages" not in said


def test_the_mirror_of_this_machines_own_apt_is_used_where_it_is_a_debian(tmp_path: Path) -> None:
    assert own_mirror(tmp_path) == DEBIAN
    (tmp_path / "sources.list").write_text("deb http://archive.example/ubuntu noble main\n")
    assert own_mirror(tmp_path) == DEBIAN
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d/debian.sources").write_text("Types: deb\nURIs: http://deb.example/debian\nSuites: bookworm\n")
    assert own_mirror(tmp_path) == "http://deb.example/debian"


# -- what the daemon is asked -----------------------------------------------------------------------------------------

AMD = '{"Descriptor": {}, "Platforms": [{"architecture": "amd64", "os": "linux"}]}'


@pytest.mark.parametrize(
    ("status", "body", "login", "answer"),
    [
        (200, AMD, False, YES),
        (200, '{"Descriptor": {}, "Platforms": null}', False, YES),
        (200, AMD.replace("amd64", "arm64"), False, Answer("no", "it has the image for linux/arm64, and this host is linux/amd64")),
        (500, '{"message": "Get https://x/v2/: no such host"}', False, Answer("no", "Get https://x/v2/: no such host")),
        (404, '{"message": "manifest unknown"}', False, Answer("no", "manifest unknown")),
        (404, '{"message": "page not found"}', False, UNKNOWN),
        (404, "Not Found: page not found", False, UNKNOWN),
        (403, '{"message": "denied"}', False, Answer("no", "denied")),
        (401, '{"message": "unauthorized"}', True, UNKNOWN),
        (500, "", False, Answer("no", "status 500")),
    ],
)
def test_the_daemons_answer_is_read_as_it_speaks(status: int, body: str, login: bool, answer: Answer) -> None:
    asked: list[str] = []

    def get(path: str) -> tuple[int, str]:
        asked.append(path)
        return status, body

    assert registry.has("m.example/python@sha256:1", "linux/amd64", get, login=login) == answer
    assert asked == ["/distribution/m.example/python@sha256:1/json"]


def test_a_registry_that_never_answers_does_not_have_it_and_a_docker_that_cannot_be_asked_leaves_it_open() -> None:
    def silent(_: str) -> tuple[int, str]:
        raise TimeoutError

    def without(_: str) -> tuple[int, str]:
        raise OSError("docker: 'dial-stdio' is not a docker command")

    assert registry.has("x", "linux/amd64", silent).has == "no"
    assert registry.has("x", "linux/amd64", without) == UNKNOWN


def test_a_login_of_dockers_client_is_known_by_its_registry(tmp_path: Path) -> None:
    assert not registry.logged_in("docker.io", tmp_path)
    (tmp_path / "config.json").write_text('{"auths": {"https://index.docker.io/v1/": {}}, "credHelpers": {"gcr.example": "x"}}')
    assert [registry.logged_in(name, tmp_path) for name in ("docker.io", "gcr.example", "quay.example")] == [True, True, False]
    (tmp_path / "config.json").write_text('{"credsStore": "desktop"}')
    assert registry.logged_in("quay.example", tmp_path)
