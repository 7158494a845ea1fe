"""What our containers are told and how they are confined: argv and scripts, computed without pulumi."""

import shlex
from collections.abc import Mapping, Sequence

from host.bundled import MODEL

PORT = 8000
USER = "2000:2000"
KEY_DIRECTORY = "/run/reranker"
KEY_FILE = f"{KEY_DIRECTORY}/api_keys"
HOME = "/var/lib/reranker"
POPULATE_TARGET = "/srv/model"


def run_argv(
    *, name: str, image: str, owner_label: str, network: str, mounts: Sequence[str], environment: Mapping[str, str], arguments: Sequence[str]
) -> list[str]:
    """argv of a one-off container of the image, confined as the reranker is. `network` 'none' cuts it off."""
    return [
        "docker", "run", "--rm", "--interactive", "--init", "--name", name, "--label", owner_label, "--network", network, "--user", USER,
        "--read-only", "--tmpfs", "/tmp:rw,nosuid,nodev,size=256m", "--tmpfs", f"{HOME}:rw,nosuid,nodev,mode=1777,size=256m",
        "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--memory", "2g", "--memory-swap", "2g", "--pids-limit", "256",
        *(item for mount in mounts for item in ("--mount", mount)),
        *(item for key, value in sorted(environment.items()) for item in ("--env", f"{key}={value}")),
        image, *arguments,
    ]  # fmt: skip


def one_off(argv: Sequence[str], *, name: str, owner_label: str, stdin: str = "", not_started: str = "", bundled: Sequence[str] = ()) -> str:
    """Shell: run `argv` after removing what an interrupted run of the same stack left. `stdin`: a file to read from, else the command's own.

    `not_started`: what is said, last, where Docker could not start the container. `bundled` runs in place of `argv` where this run of pulumi has a bundle,
    and reads the model's tar out of it.
    """
    stale = shlex.join(["docker", "ps", "-aq", "--filter", f"name=^/{name}$", "--filter", f"label={owner_label}"])
    lines = ["set -e", f"stale=$({stale})", '[ -z "$stale" ] || docker rm -f "$stale" >/dev/null']
    if not_started:
        said = f"[ $? -ne 125 ] || echo {shlex.quote(not_started)} >&2"
        lines.append(f"trap {shlex.quote(said)} EXIT")
    if bundled:  # The environment alone says so: the script, and with it the state, is the same with a bundle and without.
        lines += [
            f'if [ -n "${{{MODEL}:-}}" ]; then',
            f"  from=${{{MODEL}%% *}}; rest=${{{MODEL}#* }}",
            f'  tail -c "+$((from + 1))" "${{rest#* }}" | head -c "${{rest%% *}}" | {shlex.join(bundled)}',
            "  exit",
            "fi",
        ]
    redirect = f" < {shlex.quote(stdin)}" if stdin else ""
    # The trap needs a shell that is still there.
    return "\n".join([*lines, f"{'' if not_started else 'exec '}{shlex.join(argv)}{redirect}"])


def populate_arguments(
    *, source: str, repo: str, revision: str, mirrors: Sequence[str], endpoint: str, token_hosts: Sequence[str], target: str
) -> list[str]:
    """argv of serving.populate for a source: hub | modelscope | directory | archive."""
    token = ["--token-stdin", *(item for host in token_hosts for item in ("--token-host", host))]
    where = {
        "hub": [*(item for mirror in mirrors for item in ("--mirror", mirror)), *token],
        "modelscope": ["--endpoint", endpoint, *token],
    }.get(source, [])
    return ["populate", "--source", source, "--repo", repo, "--revision", revision, "--target", target, *where]


# A failing step shows what it ran. The script itself is in the environment, so that its own sentence stays the last thing to read.
RUN_SCRIPT = 'sh -c "$SCRIPT"'


def wait_script(container: str, *, seconds: int, lines: int = 40) -> str:
    """Shell: wait until the container is healthy; give up at once when it stopped, keeps restarting or says that it is ill, with its last log lines in the error."""
    name = shlex.quote(container)
    return f"""
look() {{ docker inspect --format '{{{{.State.Status}}}} {{{{if .State.Health}}}}{{{{.State.Health.Status}}}}{{{{else}}}}none{{{{end}}}} {{{{.RestartCount}}}}{{{{if .State.Health}}}}{{{{range .State.Health.Log}}}} {{{{.Output}}}}{{{{end}}}}{{{{end}}}}' {name}; }}
fail() {{
  echo "--- last log lines of {container}:" >&2
  docker logs --tail {lines} {name} >&2 2>&1
  echo "{container}: $1" >&2
  exit 1
}}
end=$(( $(date +%s) + {seconds} ))
while :; do
  seen=$(look) || fail "is gone: something removed it while it started; run pulumi up again"
  said=$(printf '%s\n' "$seen" | tail -n 1)
  set -f; set -- $seen; set +f
  case "$1 $2" in
    "running healthy") exit 0 ;;
    exited*|dead*) fail "stopped before it was healthy; the log above says why, pulumi up tries again" ;;
  esac
  case "$said" in *'"status": "unhealthy"'*) fail "$said" ;; esac
  [ "${{3:-0}}" -lt 2 ] || fail "keeps stopping (restarted $3 times); the log above says why, pulumi up tries again"
  [ "$(date +%s)" -lt "$end" ] || fail "not healthy within {seconds} s (last: $1, $2); raise healthTimeoutSeconds if the log above shows it still loading"
  sleep 2
done
""".strip()
