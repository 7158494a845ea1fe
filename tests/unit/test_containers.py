"""What our containers are told: argv compared whole, and the shell scripts run against a docker that answers from a table."""

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from components import _containers
from components.image import archive_script, source_script
from components.ragflow import CONNECT, DISCONNECT
from host import labels


class Shell:
    """Runs a script with /bin/sh, where docker, date and sleep are stand-ins that log what they were asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        # Each call of date is a second later.
        self.stand_in("date", f'n=$(cat {folder}/clock 2>/dev/null || echo 1000); echo $((n + 1)) > {folder}/clock; echo "$n"')
        self.stand_in("sleep", f'printf "sleep %s\\n" "$*" >> {self.log}')
        self.docker({})

    def stand_in(self, name: str, body: str) -> None:
        program = self.folder / name
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)

    def docker(self, answers: dict[str, Any]) -> None:
        """`answers`: beginning of the arguments -> stdout, or (stdout, status), or a list of them, one a call, the last for good."""
        cases = []
        for number, (start, answer) in enumerate(answers.items()):
            steps = answer if isinstance(answer, list) else [answer]
            for at, step in enumerate(steps):
                stdout, status = step if isinstance(step, tuple) else (step, 0)
                (self.folder / f"answer-{number}-{at}").write_text(stdout)
                (self.folder / f"status-{number}-{at}").write_text(str(status))
            last = len(steps) - 1
            cases.append(
                f"{shlex.quote(start)}*) at=$(cat {self.folder}/at-{number} 2>/dev/null || echo 0); next=$((at < {last} ? at + 1 : {last})); "
                f"echo $next > {self.folder}/at-{number}; cat {self.folder}/answer-{number}-$at; exit $(cat {self.folder}/status-{number}-$at);;"
            )
        self.stand_in(
            "docker",
            f'{{ printf "docker"; printf " <%s>" "$@"; echo; }} >> {self.log}\ncase "$*" in\n' + "\n".join(cases) + "\n*) cat >/dev/null;;\nesac",
        )

    def run(self, script: str, *, stdin: str = "", **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["/bin/sh", "-c", script], input=stdin, capture_output=True, text=True, timeout=30, check=False,
            env={"PATH": f"{self.folder}:{os.environ['PATH']}", **environment},
        )  # fmt: skip

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def called(*argv: str) -> str:
    return "docker " + " ".join(f"<{item}>" for item in argv)


OWNER = "io.ragflow-reranker.owner=ragflow-reranker/test"


def test_a_one_off_container_is_confined_as_the_reranker_is() -> None:
    argv = _containers.run_argv(
        name="ragflow-vllm-reranker-populate",
        image="ragflow-vllm-reranker:0.32.0",
        owner_label=OWNER,
        network="bridge",
        mounts=["type=volume,source=v,target=/srv/model"],
        environment={"https_proxy": "http://proxy:3128", "HTTPS_PROXY": "http://proxy:3128"},
        arguments=["populate", "--source", "hub"],
    )
    assert argv == [
        "docker", "run", "--rm", "--interactive", "--init", "--name", "ragflow-vllm-reranker-populate", "--label", OWNER, "--network", "bridge",
        "--user", "2000:2000", "--read-only", "--tmpfs", "/tmp:rw,nosuid,nodev,size=256m",
        "--tmpfs", "/var/lib/reranker:rw,nosuid,nodev,mode=1777,size=256m", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
        "--memory", "2g", "--memory-swap", "2g", "--pids-limit", "256", "--mount", "type=volume,source=v,target=/srv/model",
        "--env", "HTTPS_PROXY=http://proxy:3128", "--env", "https_proxy=http://proxy:3128",
        "ragflow-vllm-reranker:0.32.0", "populate", "--source", "hub",
    ]  # fmt: skip


POPULATE: list[tuple[str, list[str]]] = [
    ("hub", ["--mirror", "https://one", "--mirror", "https://two", "--token-stdin", "--token-host", "https://hub"]),
    ("modelscope", ["--endpoint", "https://modelscope.cn", "--token-stdin", "--token-host", "https://hub"]),
    ("archive", []),
    ("directory", []),
]


@pytest.mark.parametrize(("source", "more"), POPULATE)
def test_each_source_of_the_model_has_its_own_arguments(source: str, more: list[str]) -> None:
    assert _containers.populate_arguments(
        source=source,
        repo="Qwen/Qwen3-Reranker-0.6B",
        revision="abc",
        mirrors=["https://one", "https://two"],
        endpoint="https://modelscope.cn",
        token_hosts=["https://hub"],
        target="/srv/model",
    ) == ["populate", "--source", source, "--repo", "Qwen/Qwen3-Reranker-0.6B", "--revision", "abc", "--target", "/srv/model", *more]


# -- one_off ------------------------------------------------------------------------------------------------------------

LOOK_FOR_STALE = called("ps", "-aq", "--filter", "name=^/c$", "--filter", f"label={OWNER}")


def test_a_one_off_runs_at_once_where_nothing_was_left(shell: Shell) -> None:
    done = shell.run(_containers.one_off(["docker", "run", "a b", "it's"], name="c", owner_label=OWNER))
    assert (done.returncode, shell.calls) == (0, [LOOK_FOR_STALE, called("run", "a b", "it's")])


def test_a_one_off_removes_what_an_interrupted_run_left(shell: Shell) -> None:
    shell.docker({"ps": "0123abcd\n", "rm": "0123abcd\n"})
    done = shell.run(_containers.one_off(["docker", "run", "image"], name="c", owner_label=OWNER))
    assert (done.returncode, done.stdout) == (0, "")
    assert shell.calls == [LOOK_FOR_STALE, called("rm", "-f", "0123abcd"), called("run", "image")]


def test_a_one_off_hands_its_own_stdin_to_the_container_and_its_exit_status_back(shell: Shell) -> None:
    shell.stand_in("docker", '[ "$1" = ps ] && exit 0; cat; exit 7')
    done = shell.run(_containers.one_off(["docker", "run", "image"], name="c", owner_label=OWNER), stdin="hf_token\n")
    assert (done.returncode, done.stdout) == (7, "hf_token\n")


@pytest.mark.parametrize(
    ("code", "said"), [(125, "bind source path does not exist\nset it's path\n"), (1, "bind source path does not exist\n"), (0, "")]
)
def test_a_one_off_that_docker_cannot_start_ends_with_the_remedy(shell: Shell, code: int, said: str) -> None:
    shell.stand_in("docker", f'[ "$1" = ps ] && exit 0; [ {code} = 0 ] || echo bind source path does not exist >&2; exit {code}')
    done = shell.run(_containers.one_off(["docker", "run", "image"], name="c", owner_label=OWNER, not_started="set it's path"))
    assert (done.returncode, done.stderr) == (code, said)


def test_a_one_off_reads_a_file_with_any_name_where_it_is_told_to(shell: Shell, tmp_path: Path) -> None:
    archive = tmp_path / "my model's $HOME.tar"
    archive.write_text("the tar")
    shell.stand_in("docker", '[ "$1" = ps ] && exit 0; cat')
    done = shell.run(_containers.one_off(["docker", "run", "image"], name="c", owner_label=OWNER, stdin=str(archive)), stdin="not this")
    assert done.stdout == "the tar"


def test_a_one_off_reads_the_model_out_of_a_bundle_in_a_run_that_has_one_and_is_itself_otherwise(shell: Shell, tmp_path: Path) -> None:
    bundle = tmp_path / "it's a bundle.tar"
    bundle.write_bytes(b"before" + b"the model" + b"after")
    shell.stand_in("docker", '[ "$1" = ps ] && exit 0; echo "$@"; cat; exit 7')
    script = _containers.one_off(["docker", "from hub"], name="c", owner_label=OWNER, bundled=["docker", "from tar"])
    with_it = shell.run(script, stdin="hf_token\n", RERANKER_BUNDLE_MODEL=f"6 9 {bundle}")
    assert (with_it.returncode, with_it.stdout) == (7, "from tar\nthe model")
    without = shell.run(script, stdin="hf_token\n")
    assert (without.returncode, without.stdout) == (7, "from hub\nhf_token\n")


@pytest.mark.parametrize("brought", [False, True])
def test_a_one_off_that_docker_cannot_start_says_why_with_a_bundle_and_without(shell: Shell, tmp_path: Path, *, brought: bool) -> None:
    bundle = tmp_path / "bundle.tar"
    bundle.write_bytes(b"the model")
    shell.stand_in("docker", '[ "$1" = ps ] && exit 0; cat >/dev/null; echo "$@"; exit 125')
    script = _containers.one_off(["docker", "own"], name="c", owner_label=OWNER, not_started="it's not there", bundled=["docker", "from tar"])
    done = shell.run(script, stdin="hf_token\n", **({"RERANKER_BUNDLE_MODEL": f"0 9 {bundle}"} if brought else {}))
    assert (done.returncode, done.stdout, done.stderr) == (125, "from tar\n" if brought else "own\n", "it's not there\n")


# -- wait_script --------------------------------------------------------------------------------------------------------

INSPECT = called(
    "inspect",
    "--format",
    "{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}} {{.RestartCount}}"
    "{{if .State.Health}}{{range .State.Health.Log}} {{.Output}}{{end}}{{end}}",
    "c",
)
LOGS = called("logs", "--tail", "40", "c")
LAST_LINES = "torch: out of luck\n"


def waited(shell: Shell, *states: Any, seconds: int = 900) -> "subprocess.CompletedProcess[str]":
    shell.docker({"inspect": list(states), "logs": LAST_LINES})
    return shell.run(_containers.wait_script("c", seconds=seconds))


def test_waiting_ends_when_the_container_is_healthy(shell: Shell) -> None:
    done = waited(shell, "created starting 0\n", "running starting 0\n", "running unhealthy 0\n", "running healthy 0\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert shell.calls == [INSPECT, "sleep 2", INSPECT, "sleep 2", INSPECT, "sleep 2", INSPECT]


def test_one_restart_is_forgiven(shell: Shell) -> None:
    assert waited(shell, "running starting 1\n", "running healthy 1\n").returncode == 0


FAILURES: list[tuple[str, str, str]] = [
    ("stopped", "exited unhealthy 0\n", "c: stopped before it was healthy; the log above says why, pulumi up tries again"),
    ("stopped before the first check", "exited starting 0\n", "c: stopped before it was healthy; the log above says why, pulumi up tries again"),
    ("dead", "dead none 0\n", "c: stopped before it was healthy; the log above says why, pulumi up tries again"),
    ("restarting", "restarting unhealthy 2\n", "c: keeps stopping (restarted 2 times); the log above says why, pulumi up tries again"),
    ("between two restarts", "running starting 17\n", "c: keeps stopping (restarted 17 times); the log above says why, pulumi up tries again"),
]


@pytest.mark.parametrize(("what", "state", "sentence"), FAILURES, ids=[what for what, *_ in FAILURES])
def test_waiting_for_what_cannot_become_healthy_ends_at_once_with_the_log(shell: Shell, what: str, state: str, sentence: str) -> None:
    done = waited(shell, "running starting 0\n", state)
    assert done.returncode == 1
    assert done.stderr == f"--- last log lines of c:\n{LAST_LINES}{sentence}\n"
    assert shell.calls == [INSPECT, "sleep 2", INSPECT, LOGS]


def test_a_service_that_says_it_is_ill_is_not_waited_for(shell: Shell) -> None:
    ill = '{"status": "unhealthy", "reason": "The golden pair * scored 0.8, swapped."}'
    done = waited(shell, "running starting 0 cannot be reached\n", f'running starting 0 cannot be reached\n {{"status": "starting"}}\n {ill}\n')
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(ill)
    assert shell.calls == [INSPECT, "sleep 2", INSPECT, LOGS]


def test_a_service_that_was_ill_and_is_not_is_waited_for(shell: Shell) -> None:
    states = 'running starting 0 {"status": "unhealthy"}\n {"status": "starting"}\n', 'running healthy 0 {"status": "unhealthy"}\n healthy\n'
    assert waited(shell, *states).returncode == 0


def test_waiting_ends_at_its_deadline_with_the_last_state_and_the_log(shell: Shell) -> None:
    # The stand-in of date moves a second at each look: at the start, then once a round.
    done = waited(shell, "running starting 0\n", seconds=3)
    assert done.returncode == 1
    assert done.stderr == (
        f"--- last log lines of c:\n{LAST_LINES}c: not healthy within 3 s (last: running, starting); raise healthTimeoutSeconds if "
        f"the log above shows it still loading\n"
    )
    assert shell.calls == [INSPECT, "sleep 2", INSPECT, "sleep 2", INSPECT, LOGS]


def test_a_container_that_was_removed_while_it_started_is_said_to_be_gone(shell: Shell) -> None:
    done = waited(shell, "running starting 0\n", ("", 1))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "c: is gone: something removed it while it started; run pulumi up again"


# -- CONNECT and DISCONNECT ---------------------------------------------------------------------------------------------

ON_THE_NETWORK = {
    "ATTACHMENT": "attachment-1-2",
    "CONTAINER": "0123",
    "NAME": "docker-ragflow-cpu-1",
    "NETWORK": "docker-ragflow",
    "OWNER": "p/laptop/1a2b",
}
NETWORKS = called("inspect", "--format", "{{json .NetworkSettings.Networks}}", "0123")
ALIASES = called(
    "inspect", "--format", "{{range $name, $end := .NetworkSettings.Networks}}{{range $end.Aliases}}{{println $name .}}{{end}}{{end}}", "0123"
)
JOIN = called("network", "connect", "--alias", "attachment-1-2", "docker-ragflow", "0123")
OTHERS = called(
    "ps", "--all", "--filter", "network=docker-ragflow", "--filter", f"label={labels.OWNER}", "--format", f'{{{{.Label "{labels.OWNER}"}}}} {{{{.Names}}}}',
)  # fmt: skip
LEAVE = called("network", "disconnect", "--force", "docker-ragflow", "0123")


@pytest.mark.parametrize("networks", ["{}", "null", '{"docker_ragflow":{"Aliases":null}}', '{"docker-ragflow-2":{}}', '{"my-docker-ragflow":{}}'])
def test_a_container_that_is_elsewhere_joins(shell: Shell, networks: str) -> None:
    shell.docker({"inspect": networks})
    done = shell.run(CONNECT, **ON_THE_NETWORK)
    assert (done.returncode, done.stdout, shell.calls) == (0, "docker-ragflow-cpu-1 joined docker-ragflow\n", [NETWORKS, JOIN])


def test_a_container_that_is_there_is_left_as_it_is(shell: Shell) -> None:
    shell.docker({"inspect": '{"docker-ragflow":{"Aliases":null},"docker_ragflow":{}}'})
    done = shell.run(CONNECT, **ON_THE_NETWORK)
    assert (done.returncode, done.stdout, shell.calls) == (0, "docker-ragflow-cpu-1 is on docker-ragflow already\n", [NETWORKS])


def test_a_join_that_fails_fails_the_step(shell: Shell) -> None:
    shell.docker({"inspect": "{}", "network connect": ("", 1)})
    done = shell.run(CONNECT, **ON_THE_NETWORK)
    assert done.returncode != 0
    assert "joined" not in done.stdout


def test_an_attachment_of_ours_is_taken_back(shell: Shell) -> None:
    shell.docker({"inspect": "docker_ragflow ragflow-cpu\ndocker-ragflow 0123\ndocker-ragflow attachment-1-2\n"})
    done = shell.run(DISCONNECT, **ON_THE_NETWORK)
    assert (done.returncode, shell.calls) == (0, [ALIASES, OTHERS, LEAVE])


@pytest.mark.parametrize(
    ("there", "stays"),
    [("p/laptop/1a2b ours\n", ""), ("p/laptop/1a2b ours\np/laptop/1a2 theirs\n", "theirs"), ("p/laptop theirs\nq/nas/77 others\n", "theirs others")],
)
def test_an_attachment_by_which_another_deployments_reranker_is_called_stays(shell: Shell, there: str, stays: str) -> None:
    shell.docker({"inspect": "docker-ragflow attachment-1-2\n", "ps": there})
    done = shell.run(DISCONNECT, **ON_THE_NETWORK)
    said = f"docker-ragflow-cpu-1 stays on docker-ragflow, where it calls another deployment's reranker: {stays}\n" if stays else ""
    assert (done.returncode, done.stdout, LEAVE in shell.calls) == (0, said, not stays)


@pytest.mark.parametrize(
    "aliases",
    ["", "docker-ragflow ragflow-cpu\n", "docker-ragflow attachment-1-22\n", "docker_ragflow attachment-1-2\n", "docker-ragflow by others\n"],
)
def test_an_attachment_of_others_stays(shell: Shell, aliases: str) -> None:
    shell.docker({"inspect": aliases})
    done = shell.run(DISCONNECT, **ON_THE_NETWORK)
    assert (done.returncode, shell.calls) == (0, [ALIASES])


def test_a_container_that_is_gone_needs_no_disconnecting(shell: Shell) -> None:
    shell.docker({"inspect": ("", 1)})
    assert (shell.run(DISCONNECT, **ON_THE_NETWORK).returncode, shell.calls) == (0, [ALIASES])


def test_a_leave_that_fails_fails_the_step(shell: Shell) -> None:
    shell.docker({"inspect": "docker-ragflow attachment-1-2\n", "network disconnect": ("", 1)})
    assert shell.run(DISCONNECT, **ON_THE_NETWORK).returncode == 1


# -- images -------------------------------------------------------------------------------------------------------------

SOURCE = source_script(
    "vllm-cpu:0.32.0",
    "https://github.com/vllm-project/vllm.git#v0.32.0",
    "linux/amd64",
    "default",
    {"https_proxy": "http://p:1", "HTTPS_PROXY": "http://p:1"},
)
BUILD = called(
    "build", "--file", "docker/Dockerfile.cpu", "--tag", "vllm-cpu:0.32.0", "--platform", "linux/amd64", "--network", "default",
    "--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", "--build-arg", "HTTPS_PROXY=http://p:1", "--build-arg", "https_proxy=http://p:1", "https://github.com/vllm-project/vllm.git#v0.32.0",
)  # fmt: skip
IMAGE_ID = called("image", "inspect", "--format", "{{.Id}}", "vllm-cpu:0.32.0")


def test_a_source_build_prints_the_images_id_alone(shell: Shell) -> None:
    shell.docker({"build": "Step 1/9\n", "image inspect": "sha256:1\n"})
    done = shell.run(SOURCE)
    assert (done.returncode, done.stdout, done.stderr, shell.calls) == (0, "sha256:1\n", "Step 1/9\n", [BUILD, IMAGE_ID])


def test_a_source_build_uses_buildkit(shell: Shell) -> None:
    shell.stand_in("docker", 'echo "buildkit: $DOCKER_BUILDKIT" >&2; exit 0')
    assert shell.run(SOURCE).stderr.splitlines()[0] == "buildkit: 1"


def test_a_source_build_that_fails_is_not_taken_for_the_image_of_last_week(shell: Shell) -> None:
    shell.docker({"build": ("", 1), "image inspect": "sha256:of-last-week\n"})
    assert shell.run(SOURCE).returncode != 0


def test_an_archive_is_loaded_whatever_its_name_and_prints_the_images_id_alone(shell: Shell) -> None:
    shell.docker({"load": "Loaded image: vllm-cpu:0.32.0\n", "image inspect": "sha256:1\n"})
    done = shell.run(archive_script("/srv/it's here.tar", "vllm-cpu:0.32.0"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "sha256:1\n", "Loaded image: vllm-cpu:0.32.0\n")
    assert shell.calls == [called("load", "--input", "/srv/it's here.tar"), IMAGE_ID]


def test_an_archive_in_the_home_folder_is_found(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    shell.run(archive_script("~/vllm.tar", "vllm-cpu:0.32.0"))
    assert shell.calls[0] == called("load", "--input", "/home/me/vllm.tar")


def test_an_archive_without_the_image_ends_in_a_sentence_with_the_remedy(shell: Shell) -> None:
    shell.docker({"load": "Loaded image: other:1\n", "image inspect": ("", 1)})
    done = shell.run(archive_script("/srv/vllm.tar", "vllm-cpu:0.32.0"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "imageStrategy archive: /srv/vllm.tar holds no image vllm-cpu:0.32.0; set archiveImage to the name:tag that docker load printed above"
    )


def test_an_archive_that_cannot_be_loaded_is_not_taken_for_the_image_of_last_week(shell: Shell) -> None:
    shell.docker({"load": ("", 1), "image inspect": "sha256:of-last-week\n"})
    assert shell.run(archive_script("/srv/vllm.tar", "vllm-cpu:0.32.0")).returncode != 0
