"""What runs inside the container, in the real vLLM: the contract, malformed requests by the thousand, faults, and health that finds a wrong service."""

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rerank import RerankClient
from tests.support import contract, ragflow_client
from tests.support.engine import ROOT, docker, inspect, wait_until
from tests.support.served import Served, served
from tests.vllm.conftest import MODELS, Laptop, inside

FUZZED = 10_000
NORM = """
import json, torch
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.model_executor.layers.layernorm import RMSNorm
from serving.launch import kernels
found = {}
for dtype in (torch.float32, torch.bfloat16):
    torch.set_default_dtype(dtype)
    with set_current_vllm_config(VllmConfig()):
        layer = RMSNorm(128, 1e-6)
    layer.weight.data = torch.rand(128)
    heads = torch.randn(33, 4096)[:, 512:2560].view(33, 16, 128)
    rows, residual = torch.randn(2, 33, 128)
    ours, theirs = kernels.norm(layer, rows.clone(), residual.clone()), layer.forward_native(rows.clone(), residual.clone())
    pairs = [(kernels.norm(layer, heads), layer.forward_native(heads)), *zip(ours, theirs)]
    found[str(dtype)] = [kernels._agrees(dtype), max((a.float() - b.float()).abs().max().item() for a, b in pairs)]
print(json.dumps(found))
"""
KNOWN = "qwen3-reranker-0.6b"
TEMPLATE = "/opt/reranker/serving/engines/qwen3_reranker.jinja"
TEXT = (ROOT / "README.md").read_text(encoding="utf-8").split()
SMALL: dict[str, Any] = {"cpus": 2, "memoryGiB": 7}


def documents(count: int, words: int, first: str) -> list[str]:
    return [f"{first} {number} " + " ".join(TEXT[(number * 97) % 500 :][:words]) for number in range(count)]


@pytest.fixture(scope="module")
def tiny(laptop: Laptop) -> Iterator[Served]:
    with served(laptop.image, laptop.models / "0", slug="tiny-reranker", restart="unless-stopped", **SMALL) as found:
        assert found.settled()[0] == 200, found.log()
        yield found


def test_the_kernel_for_the_norm_gives_what_torchs_operators_give_in_both_dtypes(laptop: Laptop) -> None:
    found = json.loads(inside(laptop.image, laptop.models, "-c", NORM).splitlines()[-1])
    assert found == {"torch.float32": [True, pytest.approx(0, abs=1e-5)], "torch.bfloat16": [True, pytest.approx(0, abs=0.05)]}


class TestContract(contract.Contract):
    @pytest.fixture
    def service(self, tiny: Served) -> contract.Service:
        return tiny.service


def test_ten_thousand_malformed_requests_and_the_engine_still_serves(tiny: Served) -> None:
    before = tiny.service.results("capital of China", documents(3, 20, "a"))
    done = contract.fuzz(tiny.http, FUZZED, seed=20)
    assert done.faults == []
    assert sum(done.statuses.values()) == FUZZED
    after = tiny.service.results("capital of China", documents(3, 20, "a"), headers=[("Cache-Control", "no-cache")])
    assert after == pytest.approx(before, abs=2e-2)
    assert tiny.health()[0] == 200
    assert inspect(tiny.name)["RestartCount"] == 0


def test_the_python_client_gives_the_scores_of_the_raw_answer_in_both_orders(tiny: Served) -> None:
    asked = documents(30, 60, "client")
    raw = tiny.service.results("what is said?", asked, [contract.UNCUT[0]])
    with RerankClient(tiny.url) as client:
        ranked = client.rerank("what is said?", asked, deadline=300)
        assert {item.index: item.score for item in ranked.items} == raw  # remembered, so to the last digit
        assert client.score("what is said?", asked, deadline=300).scores == tuple(raw[place] for place in range(30))
        again = client.rerank("what is said?", asked, 5, deadline=300, fresh=True)
    assert (ranked.scored, ranked.cached, ranked.cut, ranked.unscored) == (30, 30, (), ())
    assert (again.cached, len(again.items)) == (0, 5)
    assert all(item.score == pytest.approx(raw[item.index], abs=contract.SAME) for item in again.items)


def test_when_the_client_hangs_up_the_engine_stops(tiny: Served) -> None:
    asking = tiny.http(timeout=2)
    with pytest.raises(OSError, match="timed out"):
        asking("POST", "/rerank", json.dumps({"query": "bye", "documents": documents(900, 400, "bye")}).encode(), [contract.JSON, contract.UNCUT[0]])
    asking.close()

    def running() -> float:
        return sum(
            value
            for (name, _), value in contract.prometheus(tiny.service.get("/metrics").body.decode()).items()
            if name == "vllm:num_requests_running"
        )

    wait_until(lambda: running() == 0, seconds=20)
    assert contract.prometheus(tiny.service.get("/metrics").body.decode())[("reranker_hangups_total", ())] >= 1


def test_the_engine_killed_under_load_is_an_error_for_its_callers_and_starts_again_by_itself(tiny: Served) -> None:
    answers: list[tuple[float, str]] = []

    def call(number: int) -> None:
        begun = time.monotonic()
        body = json.dumps({"query": f"q{number}", "documents": documents(900, 400, f"{number}")}).encode()
        with closing(tiny.http(timeout=60)) as ask:
            try:
                said = str(ask("POST", "/rerank", body, [contract.JSON, contract.UNCUT[0]]).status)
            except (OSError, http.client.HTTPException) as error:
                said = type(error).__name__
        answers.append((time.monotonic() - begun, said))

    callers = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for caller in callers:
        caller.start()
    time.sleep(3)
    kill(tiny.name, "VLLM::EngineCor")
    for caller in callers:
        caller.join(70)
    assert len(answers) == 4, "silence"
    assert all(status != "200" for _, status in answers), answers
    assert max(seconds for seconds, _ in answers) < 45, answers
    wait_until(lambda: inspect(tiny.name)["RestartCount"] == 1 and tiny.health()[0] == 200, seconds=300, every=1)
    contract.assert_serves(tiny.service)


def test_ragflows_own_client_is_answered_in_its_time_while_four_callers_push(tiny: Served) -> None:
    over = threading.Event()
    pushed: list[int] = []

    def push(number: int) -> None:
        with closing(tiny.http(timeout=60)) as ask:
            while not over.is_set():
                body = json.dumps({"query": f"{number} {len(pushed)}", "documents": documents(900, 400, f"{number} {len(pushed)}")}).encode()
                pushed.append(ask("POST", "/v1/rerank", body, [contract.JSON]).status)

    callers = [threading.Thread(target=push, args=(number,)) for number in range(4)]
    for caller in callers:
        caller.start()
    try:
        for number, path in enumerate(("", "/v1", "/v1/")):
            asked = documents(66, 380, f"chunk {number}")
            found = ragflow_client.rerank(tiny.url + path, tiny.service.names[0], "x", f"what about {number}?", asked)  # raises after RAGFlow's 30 s
            assert sorted(found) == list(range(66))
            assert list(found.values()) == sorted(found.values(), reverse=True)
    finally:
        over.set()
        for caller in callers:
            caller.join(70)
    assert len(pushed) >= 4
    assert set(pushed) == {200}
    contract.assert_serves(tiny.service)


def kill(name: str, called: str) -> None:
    """SIGKILL to the container's process that calls itself so, by its own user: no capability is needed."""
    script = (
        "import os, signal, pathlib\n"
        "found = [path for path in pathlib.Path('/proc').glob('[0-9]*/cmdline') if path.read_text(errors='replace').startswith('{called}')]\n"
        "[os.kill(int(path.parent.name), signal.SIGKILL) for path in found]\n"
        "raise SystemExit(len(found) != 1)\n"
    )
    docker("exec", name, "python3", "-c", script.replace("{called}", called))


def test_the_largest_batch_stays_within_the_memory_limit(tiny: Served) -> None:
    begun = time.monotonic()
    call = {"query": "q " * 400, "documents": documents(1000, 500, "large")}
    answer = tiny.service.post("/rerank", call, [(contract.DEADLINE, "60")])
    assert answer.status == 200
    assert time.monotonic() - begun < 70
    assert not inspect(tiny.name)["State"]["OOMKilled"]
    contract.assert_serves(tiny.service)


@pytest.fixture(scope="module")
def ranking(laptop: Laptop) -> Path:
    """A small model that ranks the golden set with its template, and not without."""
    inside(laptop.image, laptop.models, "/support/ranking_model.py", f"{MODELS}/ranking")
    return laptop.models / "ranking"


def test_a_known_model_that_ranks_its_golden_set_is_healthy(laptop: Laptop, ranking: Path) -> None:
    with served(laptop.image, ranking, slug=KNOWN, **SMALL) as found:
        assert found.settled() == (200, {"status": "healthy", "skipped": []})


def test_another_models_weights_under_a_known_name_are_unhealthy_with_the_reason_in_the_log(laptop: Laptop) -> None:
    with served(laptop.image, laptop.models / "0", slug=KNOWN, **SMALL) as found:
        status, body = found.settled()
        assert status == 503
        assert body["reason"] in found.log()
        assert "load the model again" in body["reason"]


def test_swapped_overrides_are_unhealthy_and_named(laptop: Laptop, ranking: Path, tmp_path: Path) -> None:
    swapped = tmp_path / "decide.py"
    code = (ROOT / "serving/launch/decide.py").read_text(encoding="utf-8")
    assert code.count('["no", "yes"]') == 1
    swapped.write_text(code.replace('["no", "yes"]', '["yes", "no"]'), encoding="utf-8")
    with served(laptop.image, ranking, slug=KNOWN, over={swapped: "/opt/reranker/serving/launch/decide.py"}, **SMALL) as found:
        status, body = found.settled()
        assert status == 503
        assert "swapped" in body["reason"]
        assert body["reason"] in found.log()


def test_a_template_changed_by_hand_is_unhealthy_and_an_empty_one_does_not_start(laptop: Laptop, ranking: Path, tmp_path: Path) -> None:
    original = (ROOT / "serving/engines/qwen3_reranker.jinja").read_text(encoding="utf-8")
    bare = tmp_path / "bare.jinja"
    lines = original.splitlines()
    bare.write_text("\n".join([*lines[:5], "{{- (instruction or stack_instruction) ~ ' ' ~ query ~ ' ' ~ document -}}"]), encoding="utf-8")
    empty = tmp_path / "empty.jinja"
    empty.write_text("", encoding="utf-8")
    with served(laptop.image, ranking, slug=KNOWN, over={bare: TEMPLATE}, **SMALL) as found:
        status, body = found.settled()
        assert status == 503
        assert "score template" in body["reason"]
        assert body["reason"] in found.log()
    with served(laptop.image, ranking, slug=KNOWN, over={empty: TEMPLATE}, **SMALL) as found:
        assert found.settled() == (0, {})
        assert "score template" in found.log().splitlines()[-1]
