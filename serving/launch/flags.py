"""Which of vLLM's flags belong to the stack."""

import re

# Flags of vLLM that are the stack's own. argparse takes abbreviations, so the beginning of one counts as well.
OWN_FLAGS = (
    "--model",
    "--served-model-name",
    "--runner",
    "--convert",
    "--task",
    "--hf-overrides",
    "--chat-template",
    "--max-model-len",
    "--dtype",
    "--host",
    "--port",
    "--uds",
    "--disable-uvicorn-access-log",
    "--block-size",
    "--max-num-batched-tokens",
    "--max-num-seqs",
    "--enforce-eager",
    "--enable-prefix-caching",
    "--tensor-parallel-size",
    "--gpu-memory-utilization",
    "--kv-cache-memory-bytes",
    "--middleware",
    "--distributed-executor-backend",
    "--api-key",
    "--config",
    "--trust-remote-code",
    "--ssl-keyfile",
    "--ssl-certfile",
    "--root-path",
)


ALIASES = {"-tp": "--tensor-parallel-size"}


class Refused(Exception):
    """A launch that cannot work; its text is one sentence with the reason and the remedy."""


def refuse_own_flags(extra: tuple[str, ...]) -> None:
    """Refused where an extra argument of vLLM's is one that the stack sets, in any spelling that vLLM takes."""
    for argument in extra:
        if not argument.startswith("-"):
            continue
        flag = re.split(r"[=.]", argument, maxsplit=1)[0].replace("_", "-")
        flag = next((own for short, own in ALIASES.items() if re.fullmatch(rf"{short}\d*", flag)), flag)
        positive = re.sub(r"^--no-", "--", flag)
        if any(own.startswith(positive) for own in OWN_FLAGS):
            raise Refused(
                f"vllmExtraArgs has {flag}; {positive} belongs to this stack or is unsafe in it: remove it, "
                "and use the stack's own key if there is one."
            )
