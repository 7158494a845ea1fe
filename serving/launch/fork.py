"""vLLM's API server with the engine forked off it, not started anew: what takes many seconds to import is imported once, not in every process."""

import gc
import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from typing import TypeVar

from serving.launch import kernels

Answer = TypeVar("Answer")


def replace(module: str, name: str, value: object, lost: str = "starts more slowly") -> None:
    """Puts `value` where vLLM 0.32 has the function `name` (Class.method too). A vLLM that has none goes its own way, which is slower and nothing worse."""
    owner: object = importlib.import_module(module)
    *classes, last = name.split(".")
    for part in classes:
        owner = getattr(owner, part, None)
    if hasattr(owner, last):
        setattr(owner, last, value)
    else:
        print(f"{module} has no {name}: this vLLM {lost}.", file=sys.stderr)


def here(function: Callable[[], Answer]) -> Answer:
    return function()


def prepare() -> None:
    """For a CPU with Intel's OpenMP, which starts afresh in a fork; GNU's would hang there. vLLM forks before it has threads of its own."""
    # Its CPU platform answers "spawn" whatever the environment says.
    replace("vllm.v1.engine.utils", "get_mp_context", lambda: multiprocessing.get_context("fork"))
    # Looks at the model's class in another process, for CUDA's sake: the first start imported everything twice more.
    replace("vllm.model_executor.models.registry", "_run_in_subprocess", here)
    replace("vllm.model_executor.layers.layernorm", "RMSNorm.forward_cpu", kernels.norm, "computes more slowly")
    # A signal to the child would be written to the parent's event loop as well.
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))


def main(argv: list[str]) -> None:
    """Runs the server module `argv[0]` with the rest as its arguments."""
    sys.argv = argv
    # What is imported stays: the collector's passes over it are a quarter of the time, and would undo what parent and child share.
    gc.disable()
    server = importlib.import_module(argv[0])
    prepare()
    gc.freeze()
    gc.enable()
    server.main()


if __name__ == "__main__":
    main(sys.argv[1:])
