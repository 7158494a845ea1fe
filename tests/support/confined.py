"""What confines the reranker's container in the stack, as `docker run` has it: for containers that a test or a benchmark starts by hand."""

from config.settings import Settings


def options(settings: Settings) -> list[str]:
    memory = f"{settings.memory_gib}g"
    return [
        "--init", "--user", "2000:2000", "--read-only", "--tmpfs", "/tmp:rw,nosuid,nodev,size=1g", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
        "--cpus", str(settings.cpus), "--memory", memory, "--memory-swap", memory, "--shm-size", f"{settings.shm_gib}g",
    ]  # fmt: skip
