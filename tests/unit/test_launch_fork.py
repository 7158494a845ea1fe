"""How vLLM's server is made to fork its engine, on a package that stands in for vLLM."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONTEXT = "import multiprocessing\ndef get_mp_context():\n    return multiprocessing.get_context('spawn')\n"
REGISTRY = "def _run_in_subprocess(function):\n    raise AssertionError('another process')\n"
NORM = "class RMSNorm:\n    def forward_cpu(self): ...\n"
SERVER = """
import json, os, signal, socket, sys, time
from vllm.model_executor.layers import layernorm
from vllm.model_executor.models import registry
from vllm.v1.engine import utils

CHANGED = None


def engine(answers):
    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(True))
    answers.put("ready")
    while not told:
        time.sleep(0.01)
    answers.put([CHANGED, os.getppid()])


def main():
    global CHANGED
    CHANGED = "inherited"
    heard, tells = socket.socketpair()
    heard.setblocking(False)
    tells.setblocking(False)
    signal.set_wakeup_fd(tells.fileno())
    context = getattr(utils, "get_mp_context", None)
    answer, noise = None, b""
    if context:
        answers = context().Queue()
        process = context().Process(target=engine, args=(answers,))
        process.start()
        assert answers.get(timeout=20) == "ready"
        process.terminate()
        answer = answers.get(timeout=20)
        process.join(20)
        try:
            noise = heard.recv(99)
        except BlockingIOError:
            pass
    # SIGCHLD is the parent's own; SIGTERM would be the child's.
    looked = registry._run_in_subprocess(os.getpid) if hasattr(registry, "_run_in_subprocess") else None
    print(json.dumps({"argv": sys.argv, "pid": os.getpid(), "answer": answer, "noise": signal.SIGTERM in noise, "looked": looked,
                      "norm": hasattr(layernorm, "RMSNorm") and layernorm.RMSNorm.forward_cpu.__module__}))
"""


def serve(folder: Path, context: str, registry: str, norm: str) -> tuple[dict[str, object], str]:
    """What the stand-in says when it runs under serving.launch.fork, and standard error."""
    for name, text in {
        "v1/engine/utils": context,
        "model_executor/models/registry": registry,
        "model_executor/layers/layernorm": norm,
        "entry": SERVER,
    }.items():
        path = folder / "vllm" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "serving.launch.fork", "vllm.entry", "--port", "8000"],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{folder}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    said: dict[str, object] = json.loads(done.stdout)
    return said, done.stderr


def test_the_engine_inherits_what_the_server_imported_and_its_signals_stay_its_own(tmp_path: Path) -> None:
    said, errors = serve(tmp_path, CONTEXT, REGISTRY, NORM)
    pid = said["pid"]
    assert said == {
        "argv": ["vllm.entry", "--port", "8000"],
        "pid": pid,
        "answer": ["inherited", pid],
        "noise": False,
        "looked": pid,
        "norm": "serving.launch.kernels",
    }
    assert errors == ""


def test_a_vllm_that_asks_elsewhere_serves_all_the_same(tmp_path: Path) -> None:
    said, errors = serve(tmp_path, "", "", "")
    assert said["argv"] == ["vllm.entry", "--port", "8000"]
    assert errors.splitlines() == [
        "vllm.v1.engine.utils has no get_mp_context: this vLLM starts more slowly.",
        "vllm.model_executor.models.registry has no _run_in_subprocess: this vLLM starts more slowly.",
        "vllm.model_executor.layers.layernorm has no RMSNorm.forward_cpu: this vLLM computes more slowly.",
    ]
