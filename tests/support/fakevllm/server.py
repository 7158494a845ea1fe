"""A stand-in for vLLM's server that is no vLLM: it loads no weights and its scores are the mock's. tests/vllm has the real one.

It takes the arguments that serving/launch/decide.py gives, refuses what vLLM would refuse (unknown flags, values of a wrong type, overrides that are no
JSON, a template that cannot be read or is not Jinja, a model directory without config.json, a middleware that is not there), and then serves the mock
on the port it was given, with the options that were handed over to the service.
"""

import argparse
import ast
import importlib.util
import json
import os
import sys
from pathlib import Path

from serving import dials
from serving.launch import mock
from serving.options import handed_over


def parse(argv: list[str]) -> argparse.Namespace:
    """vLLM's arguments as far as the launcher uses them, and two that people add. Exits with status 2 for others, as argparse does in vLLM."""
    parser = argparse.ArgumentParser(prog="fake-vllm")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--served-model-name", nargs="+", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--runner", choices=("auto", "generate", "pooling", "draft"), required=True)
    parser.add_argument("--chat-template", type=Path, required=True)
    parser.add_argument("--hf-overrides", type=json.loads, default={})
    parser.add_argument("--max-model-len", type=int, required=True)
    parser.add_argument("--dtype", choices=("auto", "half", "float16", "bfloat16", "float", "float32"), required=True)
    parser.add_argument("--block-size", type=int)
    parser.add_argument("--max-num-batched-tokens", type=int)
    parser.add_argument("--max-num-seqs", type=int)
    parser.add_argument("--tensor-parallel-size", type=int, default=1)
    parser.add_argument("--gpu-memory-utilization", type=float)
    parser.add_argument("--enforce-eager", action="store_true")
    parser.add_argument("--enable-prefix-caching", action=argparse.BooleanOptionalAction)
    parser.add_argument("--disable-uvicorn-access-log", action="store_true")
    parser.add_argument("--middleware", action="append", default=[])
    parser.add_argument("--seed", type=int)
    parser.add_argument("--disable-log-stats", action="store_true")
    return parser.parse_args(argv)


def check(options: argparse.Namespace) -> None:
    """What vLLM looks at before it loads anything. Raises as it would."""
    if not isinstance(options.hf_overrides, dict):
        raise ValueError("--hf-overrides is no JSON object")
    config = json.loads((options.model / "config.json").read_text(encoding="utf-8")) | options.hf_overrides
    if config["architectures"] != ["Qwen3ForSequenceClassification"]:
        raise ValueError(f"architectures {config['architectures']} cannot be run by the pooling runner as a reranker")
    if options.max_model_len > config["max_position_embeddings"]:
        raise ValueError(f"--max-model-len {options.max_model_len} is more than max_position_embeddings {config['max_position_embeddings']}")
    if not list(options.model.glob("*.safetensors")):
        raise RuntimeError(f"Cannot find any model weights with `{options.model}`")
    if "messages" not in options.chat_template.read_text(encoding="utf-8"):
        raise ValueError(f"{options.chat_template} is no chat template")
    int(os.environ.get("VLLM_CPU_KVCACHE_SPACE", "0"))
    for name in options.middleware:
        module, _, attribute = name.rpartition(".")
        found = importlib.util.find_spec(module)
        # Looked at and not imported: it needs libraries of vLLM's that a stand-in has not.
        tree = ast.parse(Path(found.origin).read_text(encoding="utf-8") if found and found.origin else "")
        if not any(isinstance(node, ast.ClassDef) and node.name == attribute for node in tree.body):
            raise ImportError(f"--middleware {name} cannot be imported")


def main(argv: list[str]) -> int:
    options = parse(argv)
    check(options)
    return mock.run(dials.take(mock.MockOptions, handed_over(os.environ), host=options.host, port=options.port))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
