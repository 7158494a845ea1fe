"""One stack of the Pulumi program: its state, its passphrase, its commands, and what it gives."""

import json
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Any

from setup.edge import Edge, Refusal

ASK_LIMIT_S = 120
DEFAULT = "laptop"
# an image build and a model download on a slow line lie inside
WORK_LIMIT_S = 12 * 3600
_BACKUP = "put your copy of it back (the machine and user that made the stack have it); where there is none: docs/configuration.md, A lost passphrase"
# the output `ragflow` as RAGFlow's form names its fields
FORM = {
    "factory": "Provider",
    "modelType": "Model type",
    "modelName": "Model name",
    "baseUrl": "Base URL",
    "apiKey": "API key",
    "maxTokens": "Max tokens",
}


def names(root: Path) -> list[str]:
    """The stacks that have a file in stacks/."""
    return sorted(path.name.removeprefix("Pulumi.").removesuffix(".yaml") for path in (root / "stacks").glob("Pulumi.*.yaml"))


def chosen(edge: Edge) -> str:
    """STACK, laptop unless set; Refusal where stacks/ has no file of it."""
    name, known = edge.env.get("STACK") or DEFAULT, names(edge.root)
    if name not in known:
        raise Refusal(
            f"STACK={name}: there is no stacks/Pulumi.{name}.yaml; choose one of {', '.join(known) or 'none yet'}, or copy one of them to that name"
        )
    return name


def ensure_passphrase(edge: Edge, name: str) -> None:
    """Exports the passphrase of the stack's secrets: the user's own setting, else a private file, made once and never overwritten. Refusal where it is lost."""
    if "PULUMI_CONFIG_PASSPHRASE" in edge.env:
        return
    if "PULUMI_CONFIG_PASSPHRASE_FILE" in edge.env:
        own = edge.env["PULUMI_CONFIG_PASSPHRASE_FILE"]
        if own and not _readable(edge.root / own):
            raise Refusal(f"PULUMI_CONFIG_PASSPHRASE_FILE: {own} is not there, or not yours to read; {_BACKUP}")
        return
    path = Path(edge.env.get("XDG_CONFIG_HOME") or edge.home / ".config") / "ragflow-reranker" / "passphrase"
    if "encryptionsalt:" in _file(edge, name).read_text() and not path.exists():
        raise Refusal(f"{path} is gone, and the secrets of the stack {name} were made with the passphrase in it; {_BACKUP}")
    try:
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
            path.parent.chmod(0o700)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(secrets.token_urlsafe(32))
        edge.say(f"Made the passphrase of the stacks' secrets, {path}: keep a copy, nothing else opens them.")
    except PermissionError as refused:
        raise Refusal(f"{refused.filename} is not yours to write (an earlier run as root?): sudo chown -R $USER {path.parent}") from None
    except FileExistsError:
        if not _readable(path):
            raise Refusal(f"{path} is not yours to read (an earlier run as root?): sudo chown -R $USER {path.parent}") from None
        if path.stat().st_mode & 0o077:
            edge.say(f"warning: others can read {path}: chmod 600 it")
    edge.export("PULUMI_CONFIG_PASSPHRASE_FILE", str(path))


def select(edge: Edge, program: str, name: str) -> None:
    """Selects the stack, made where it is missing, in the state that Pulumi.yaml or PULUMI_BACKEND_URL names."""
    if not edge.env.get("PULUMI_BACKEND_URL"):
        (edge.root / "state").mkdir(exist_ok=True)
    answer = edge.run([program, "stack", "select", "--create", "--stack", name, "--non-interactive"], ASK_LIMIT_S)
    if answer.code:
        cure = f"; an earlier run as another user made files there: sudo chown -R $USER {edge.root}" if "permission denied" in answer.err else ""
        raise Refusal(f"pulumi could not open the stack {name}: {answer.tail(5)}{cure}")


def setting(edge: Edge, program: str, name: str, key: str) -> str:
    """A plain configuration value as the engine sees it, Pulumi.yaml's default included."""
    answer = edge.run([program, "config", "get", key, "--stack", name, "--non-interactive"], ASK_LIMIT_S)
    if answer.code:
        raise Refusal(f"pulumi could not read {key} of the stack {name}: {answer.tail(5)}")
    return answer.out.strip()


def outputs(edge: Edge, program: str, name: str) -> dict[str, Any]:
    """The stack's outputs, secrets masked by Pulumi."""
    answer = edge.run([program, "stack", "output", "--json", "--stack", name, "--non-interactive"], ASK_LIMIT_S)
    if answer.code:
        raise Refusal(f"pulumi could not read the outputs of the stack {name}: {answer.tail(5)}")
    found = json.loads(answer.out)
    return found if isinstance(found, dict) else {}


def secret(edge: Edge, program: str, name: str, key: str) -> str:
    """A secret configuration value in plain text; empty where it is not set. Refusal where the passphrase does not open it."""
    answer = edge.run([program, "config", "get", key, "--stack", name, "--non-interactive"], ASK_LIMIT_S)
    if "passphrase" in answer.err:
        raise Refusal(_wrong_passphrase(edge, name))
    return "" if answer.code else answer.out.strip()


def explained(edge: Edge, program: str, name: str) -> str:
    """What is behind a pulumi command that failed in words of its own, and what to do; empty where that is none of the things known here."""
    with tempfile.TemporaryDirectory() as folder:
        # To encrypt something takes the passphrase. A copy: the stack's own file is not to change.
        copy = shutil.copy2(_file(edge, name), folder)
        argv = [program, "config", "set", "--secret", "probe", "x", "--config-file", str(copy), "--stack", name, "--non-interactive"]
        if "passphrase" in edge.run(argv, ASK_LIMIT_S).err:
            return _wrong_passphrase(edge, name)
    if not edge.env.get("PULUMI_BACKEND_URL") and any((edge.root / "state/.pulumi/locks").glob(f"**/{name}/*.json")):
        return (
            f"the stack {name} is locked: another run works on it, or was killed; where none does: pulumi cancel --stack {name}, then run this again"
        )
    return ""


def _file(edge: Edge, name: str) -> Path:
    return edge.root / "stacks" / f"Pulumi.{name}.yaml"


def _readable(path: Path) -> bool:
    try:
        path.open("rb").close()
    except OSError:
        return False
    return True


def _wrong_passphrase(edge: Edge, name: str) -> str:
    given = "PULUMI_CONFIG_PASSPHRASE" if "PULUMI_CONFIG_PASSPHRASE" in edge.env else edge.env.get("PULUMI_CONFIG_PASSPHRASE_FILE", "")
    return f"the passphrase in {given} is not the one that the secrets of the stack {name} were made with; {_BACKUP}"


def render(found: dict[str, Any]) -> str:
    """The outputs (docs/outputs.md) of the stack, and what RAGFlow's form wants."""
    lines = ["Outputs:"]
    width = max(map(len, found), default=0)
    for key, value in found.items():
        if value != "" and key not in ("ragflow", "verify", "composeOverride"):
            lines.append(f"  {key:<{width}}  {value if isinstance(value, str) else json.dumps(value)}")
    form = found.get("ragflow")
    if isinstance(form, dict) and form.get("modelId"):
        lines += [
            "",
            f"RAGFlow has it as {form['modelId']}:",
            "choose it as the rerank model of a chat, a search or an agent; docs/ragflow.md says more.",
        ]
    elif isinstance(form, dict):
        lines += ["", "In RAGFlow, under Model providers, add a model:"]
        lines += [f"  {label:<10}  {form[key]}" for key, label in FORM.items() if form.get(key)]
        lines.append("then choose it as the rerank model of a chat, a search or an agent; docs/ragflow.md says more.")
    return "\n".join(lines)
