"""The commands that a stack says it is verified by, run one after the other, and what each of them showed in words."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from setup.edge import Edge, Result

CALL_LIMIT_S = 120


@dataclass(frozen=True)
class Shown:
    """What one command showed: from where it asked, whether the answer was right, and the line that says so."""

    where: str
    right: bool
    text: str


def run(edge: Edge, commands: Sequence[str]) -> list[Shown]:
    """Runs each command by the shell, as its reader would."""
    return [judge(command, edge.run(["sh", "-c", command], CALL_LIMIT_S)) for command in commands]


def render(shown: Sequence[Shown]) -> str:
    width = max((len(one.where) for one in shown), default=0)
    return "\n".join(f"  {'right' if one.right else 'WRONG'}  {one.where:<{width}}  {one.text}" for one in shown)


def judge(command: str, answer: Result) -> Shown:
    """The first of the command's documents answers its query: it must come first, and apart from the others."""
    where = place(command)
    if answer.code:
        return Shown(where, False, f"{answer.tail()}{_remedy(answer)}")
    try:
        scores = {result["index"]: float(result["relevance_score"]) for result in json.loads(answer.out)["results"]}
        best, other = scores[0], max(score for index, score in scores.items() if index != 0)
    except (ValueError, KeyError, TypeError):
        return Shown(where, False, f"no rerank answer: {answer.tail()[:200]}")
    text = f"the document about Paris scored {best:.3f}, the other {other:.3f}"
    return Shown(where, best > other, text if best > other else f"{text}: the wrong one comes first; the container's log says why")


def place(command: str) -> str:
    """From where a command asks: 'inside docker-ragflow-cpu-1', or 'this machine'."""
    words = shlex.split(command)
    inside = words[words.index("sh") - 1] if "exec" in words and "sh" in words else ""
    return f"inside {inside}" if inside else "the Docker host"


def _remedy(answer: Result) -> str:
    said = answer.tail(3).lower()
    hints = {
        "could not resolve": "it is not on the reranker's network: run make up again",
        "is not running": "start that container",
        "no such container": "it was removed or re-created: run make up again",
        "not found": "that container has no curl: call the URL from it in another way",
        "403": "apiKey of the stack is another than the reranker's: run make up again",
        "connection refused": "the reranker is starting or stopped: docker ps shows it",
        "503": "the reranker is busy or not well: its /health says why",
    }
    found = next((text for mark, text in hints.items() if mark in said), "")
    return f"; {found}" if found else ""
