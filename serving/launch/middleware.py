"""The service inside vLLM's process, where vLLM's --middleware puts it around vLLM's own server."""

import os
from pathlib import Path

from serving.asgi import App
from serving.engines.prompt import PromptMaker
from serving.engines.template import TEMPLATE, BadPrompt, render_template
from serving.engines.vllm import VllmEngine
from serving.options import ServiceOptions, handed_over
from serving.rank.engine import Engine, NoEngine
from serving.web.service import Service


class Middleware(Service):
    """The service with vLLM for an engine; its options come from the environment, since vLLM gives it none."""

    def __init__(self, app: App) -> None:
        options = handed_over(os.environ)
        super().__init__(app, options, lambda inside: vllm(inside, options))


def vllm(app: App, options: ServiceOptions) -> Engine:
    """vLLM, or where no prompts can be made the reason why not: an end here would be a container that starts again and again, each time for half a minute."""
    try:
        template = render_template(TEMPLATE.read_text(encoding="utf-8"), options.instruction)
        maker = PromptMaker.load(template, Path(options.model), options.max_model_len)
    except BadPrompt as error:
        return NoEngine(str(error))
    return VllmEngine(app, maker, options.served_model_names[0])
