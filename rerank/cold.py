"""Scores in this process, without a server: the service's own prompts and the model card's method, by vLLM where it is installed, else by transformers."""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from rerank import house, models
from rerank.results import Item

house.enter("serving")

from serving.dials import take  # noqa: E402
from serving.engines.template import TEMPLATE, render_template  # noqa: E402
from serving.launch import decide as deciding  # noqa: E402
from serving.launch.machine import read_machine  # noqa: E402
from serving.launch.options import GpuDials, LaunchDials, LaunchOptions  # noqa: E402
from serving.model import CONVERTED, ORIGINAL, Model, read_model  # noqa: E402
from serving.options import ServiceDials  # noqa: E402

ENGINES = ("vllm", "transformers")


class ColdError(Exception):
    """Nothing can be scored here; one sentence with the remedy."""


class Scores(Protocol):
    def __call__(self, prompts: Sequence[list[int]], /) -> list[float]:
        """The score of each prompt, given as token ids: from 0 to 1."""


class ColdReranker:
    """A Qwen3-Reranker of any size, loaded once: original weights, or ones that were converted to sequence classification. For one thread at a time."""

    def __init__(self, model: str = "", *, engine: str = "", device: str = "", **dials: Any) -> None:
        """Loads the model in the directory `model`, or a fetched one by its name ("": the usual one).

        `engine`: vllm or transformers, "" for the first that is installed. `device`: cpu or gpu, "" for what torch finds. `dials` are keys of Pulumi.yaml
        in snake case, such as max_model_len, dtype or instruction. ColdError, models.NoModel, or what the launcher refuses: flags.Refused, BadModel.
        """
        found = models.find(model)
        self.engine = engine or _installed()
        if self.engine not in ENGINES:
            raise ColdError(f"engine {engine!r} must be {' or '.join(ENGINES)}")
        for name in {"vllm": ("vllm",), "transformers": ("torch", "transformers", "tokenizers", "jinja2")}[self.engine]:
            if importlib.util.find_spec(name) is None:
                raise ColdError(f"engine {self.engine} needs {name}, which is not installed: {_remedy(self.engine)}")
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        from serving.engines.prompt import PromptMaker

        told = _options(found, dials, device or _device())
        self._most = told.max_query_tokens
        template = render_template(TEMPLATE.read_text(encoding="utf-8"), told.instruction)
        self._maker = PromptMaker.load(template, found.directory, told.max_model_len)
        load = _vllm if self.engine == "vllm" else _transformers
        self.name, (self.dtype, self._scores) = found.name, load(told, read_model(found.directory))

    def score(self, query: str, documents: Sequence[str], *, instruction: str = "") -> list[float]:
        """Relevance scores from 0 to 1, aligned with the documents. What does not fit the model is cut as the service cuts it."""
        prompts = self._maker.prompts(instruction, self._maker.shortened(query, self._most), documents)
        return self._scores([prompts.prompt(index, kept) for index, kept in enumerate(prompts.documents)])

    def rerank(self, query: str, documents: Sequence[str], top_n: int | None = None, *, instruction: str = "") -> list[Item]:
        """The documents with their scores, best first; at most `top_n`."""
        scores = self.score(query, documents, instruction=instruction)
        items = [Item(index, value, document) for index, (value, document) in enumerate(zip(scores, documents, strict=True))]
        return sorted(items, key=lambda item: (-item.score, item.index))[:top_n]


def _installed() -> str:
    for name in ENGINES:
        if importlib.util.find_spec(name) is not None:
            return name
    raise ColdError(f"neither vLLM nor transformers is installed in this Python: {_remedy('transformers')}")


def _remedy(engine: str) -> str:
    return "in the checkout, pip install '.[cold]'" if engine == "transformers" else "docs/serve.md has the lines"


def _device() -> str:
    """gpu where the installed torch sees one."""
    if importlib.util.find_spec("torch") is None:
        return "cpu"
    import torch

    return "gpu" if torch.cuda.is_available() else "cpu"


def _options(model: models.Local, dials: dict[str, Any], device: str) -> LaunchOptions:
    """As a stack of Pulumi.yaml's defaults would launch it, save for `dials`."""
    fields = {name for kind in (ServiceDials, LaunchDials, GpuDials) for name in kind.__dataclass_fields__}
    if strangers := sorted(set(dials) - fields):
        raise ColdError(f"{', '.join(strangers)}: no such key; docs/configuration.md lists them, here in snake case")
    values = {name: dials.get(name, house.defaults()[name]) for name in fields if device == "gpu" or name not in GpuDials.__dataclass_fields__}
    return take(LaunchOptions, None, **values, device=device, model=str(model.directory), served_model_names=(model.name,))


def _vllm(options: LaunchOptions, model: Model) -> tuple[str, Scores]:
    """vLLM's engine in this process, set up as the launcher sets it up on this machine."""
    # What is preloaded must be there before a process starts.
    facts = deciding.Facts(machine=read_machine(), model=model)
    launch = deciding.decide(facts, take(LaunchOptions, options, preload=False), "")
    decided = {decision.what: decision.value for decision in launch.decisions}
    quiet = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "USER": "reranker"}
    for name, value in {**launch.env, **quiet}.items():
        os.environ.setdefault(name, value)
    from vllm import LLM

    dtype = decided.get("dtype", options.dtype)
    more: dict[str, Any] = {"hf_overrides": deciding.OVERRIDES} if model.architecture == ORIGINAL else {}
    if options.device == "gpu":
        more |= {"tensor_parallel_size": options.gpu_count, "gpu_memory_utilization": options.gpu_memory_utilization_percent / 100}
    if "block-size" in decided:
        more["block_size"] = int(decided["block-size"])
    engine = LLM(
        model=options.model,
        runner="pooling",
        dtype=dtype,
        max_model_len=options.max_model_len,
        max_num_batched_tokens=int(decided["max-num-batched-tokens"]),
        max_num_seqs=int(decided["max-num-seqs"]),
        enable_prefix_caching=options.prefix_caching,
        enforce_eager=options.enforce_eager,
        disable_log_stats=True,
        **more,
    )

    def scores(prompts: Sequence[list[int]]) -> list[float]:
        answers = engine.classify([{"prompt_token_ids": prompt} for prompt in prompts], use_tqdm=False) if prompts else []
        return [float(answer.outputs.probs[0]) for answer in answers]

    return dtype, scores


def _transformers(options: LaunchOptions, model: Model) -> tuple[str, Scores]:
    """The model card's method: softmax over the logits of "no" and "yes" behind the prompt; a converted model has the difference as its one logit."""
    import torch
    import transformers

    if model.architecture not in (ORIGINAL, CONVERTED):
        raise ColdError(f"{model.directory} is a {model.architecture}; it must be a {ORIGINAL} or a {CONVERTED}: choose a Qwen3-Reranker")
    dtype = options.dtype
    if options.device == "cpu":
        dtype = deciding.cpu_dtype(read_machine(), dtype)[0]
    elif dtype == "auto":
        dtype = model.weight_dtype
    original = model.architecture == ORIGINAL
    kind = transformers.AutoModelForCausalLM if original else transformers.AutoModelForSequenceClassification
    transformers.utils.logging.disable_progress_bar()
    place = "cuda" if options.device == "gpu" else "cpu"
    network = kind.from_pretrained(options.model, dtype=getattr(torch, dtype), local_files_only=True).to(place).eval()
    words = [_word(Path(options.model), word) for word in ("no", "yes")] if original else []

    def one(prompt: list[int]) -> float:
        ids = torch.tensor([prompt], device=place)
        if original:
            no, yes = network(ids, logits_to_keep=1).logits[0, -1, words].float()
            return float(torch.sigmoid(yes - no))
        return float(torch.sigmoid(network(ids).logits.float()).reshape(-1)[0])

    def scores(prompts: Sequence[list[int]]) -> list[float]:
        with torch.inference_mode():
            return [one(prompt) for prompt in prompts]

    return dtype, scores


def _word(directory: Path, word: str) -> int:
    """The id of a word that must be one token."""
    from tokenizers import Tokenizer

    found = Tokenizer.from_file(str(directory / "tokenizer.json")).token_to_id(word)
    if found is None:
        raise ColdError(f"the tokenizer in {directory} has no token {word!r}: choose a Qwen3-Reranker")
    return int(found)
