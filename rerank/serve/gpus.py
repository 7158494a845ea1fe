"""Which GPUs a server will see, and whether they are as many as its tensor parallel size."""

import shutil
import subprocess
from collections.abc import Callable

VARIABLE = "CUDA_VISIBLE_DEVICES"
LIMIT_SECONDS = 20.0


def installed() -> int | None:
    """GPUs that nvidia-smi lists; None where it is not there or does not answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        done = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=LIMIT_SECONDS, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return sum(line.startswith("GPU ") for line in done.stdout.splitlines()) if done.returncode == 0 else None


def listed(visible: str) -> list[str]:
    """The devices of CUDA_VISIBLE_DEVICES: CUDA stops at the first that is not one, as -1 is not."""
    found: list[str] = []
    for word in (part.strip() for part in visible.split(",")):
        if not word or word.startswith("-"):
            break
        found.append(word)
    return found


def fault(visible: str | None, count: int, present: Callable[[], int | None] = installed) -> str:
    """Why `count` GPUs cannot be used, or "". `visible`: CUDA_VISIBLE_DEVICES, None where it is not set."""
    there = present()
    if visible is None:
        if there is None:
            return "" if count == 1 else f"--gpu-count is {count}, and which GPUs there are is not known (no nvidia-smi): say --visible-devices 0,1,…"
        if count > there:
            return f"--gpu-count is {count}, but nvidia-smi lists {there} GPUs: lower it, or use --device cpu"
        return ""
    devices = listed(visible)
    if not devices:
        return f"{VARIABLE} is {visible!r}, which shows the server no GPU: set --visible-devices to some, or use --device cpu"
    if len(set(devices)) < len(devices):
        return f"{VARIABLE} is {visible!r}, which names a GPU twice: name each one once"
    if len(devices) != count:
        return f"--gpu-count (the tensor parallel size) is {count}, but {VARIABLE} shows {len(devices)} GPUs ({visible}): make them equal"
    strangers = [word for word in devices if word.isdigit() and there is not None and int(word) >= there]
    if strangers:
        return f"{VARIABLE} names GPU {', '.join(strangers)}, but nvidia-smi lists {there}, counted from 0: name those that are there"
    return ""
