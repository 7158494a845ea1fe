"""`launch`: decides on this very machine how vLLM must run, says so in one line of JSON, and becomes vLLM."""

import json
import os
import sys
import tempfile
from pathlib import Path

from serving import keys
from serving.engines.template import TEMPLATE, BadPrompt, render_template
from serving.launch.decide import Facts, Launch, decide
from serving.launch.flags import Refused
from serving.launch.machine import read_machine
from serving.launch.options import LaunchOptions, parse
from serving.model import BadModel, read_model, require_files


def report(options: LaunchOptions, launch: Launch) -> str:
    """The one line of JSON that goes to the log."""
    return json.dumps(
        {
            "launch": options.device,
            "model": options.model,
            "decisions": {item.what: [item.value, item.why] for item in launch.decisions},
            "argv": launch.argv,
            "env": launch.env,
        },
        ensure_ascii=False,
    )


def main(argv: list[str]) -> int:
    """Does not return where vLLM starts: this process becomes it, so that signals reach it. Status 1 and one sentence where the launch is refused."""
    options = parse(argv)
    directory = Path(options.model)
    try:
        require_files(directory, verified=not options.unverified)
        if options.api_key_file:
            keys.read(Path(options.api_key_file))
        template = Path(tempfile.mkdtemp(prefix="reranker-", dir=options.scratch or None), "score.jinja")
        launch = decide(Facts(machine=read_machine(), model=read_model(directory)), options, str(template))
        template.write_text(render_template(TEMPLATE.read_text(encoding="utf-8"), options.instruction), encoding="ascii")
    except (Refused, BadModel, BadPrompt, keys.BadKeys) as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"The launcher could not read or write {error.filename} ({error.strerror}); /tmp must be writable and the image whole.", file=sys.stderr
        )
        return 1
    print(report(options, launch), flush=True)
    # torch asks for a user name, which a bare uid has not, and loads what it compiles: not from /tmp, which Docker mounts noexec.
    cache = os.path.join(os.environ.get("HOME", "/tmp"), ".cache", "torchinductor")
    environment = {"USER": "reranker", "TORCHINDUCTOR_CACHE_DIR": cache, **os.environ, **launch.env}
    os.execve(sys.executable, [sys.executable, *launch.argv], environment)
