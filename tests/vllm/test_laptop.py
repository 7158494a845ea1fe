"""One laptop's life, in order: a download through faults, a rerank, a new revision. The tests build on each other; a failing one fails those behind it."""

import json
import subprocess
import time

import pytest

from tests.support.engine import docker, inspect
from tests.support.hub import serving
from tests.support.model_card import prompt
from tests.support.ragflow import curl, rerank
from tests.vllm.conftest import API_KEY, MODEL_TOKEN, REPO, REVISIONS, SLUG, Laptop, reference

QUERY = "What is the capital of China?"
DOCUMENTS = [
    "Beijing is the capital of China.",
    "Apples are red.",
    "北京是中国的首都。",
    "def capital(): return 'Berlin'",
    "Größe und Straße",
    "Apples are red.",
]


def scores(laptop: Laptop, model: str = SLUG, key: str = "") -> list[float]:
    """Relevance scores of DOCUMENTS in their order, asked by RAGFlow's stand-in."""
    body = {"model": model, "query": QUERY, "documents": DOCUMENTS, "top_n": len(DOCUMENTS)}
    status, answer = curl(laptop.ragflow, f"http://{laptop.stack.container}:8000/v1/rerank", body=body, key=key)
    assert status == 200, answer
    return [item["relevance_score"] for item in sorted(answer["results"], key=lambda item: item["index"])]


def refused(laptop: Laptop) -> str:
    said = laptop.stack.refusal("up")
    return next(line.split("populate: ", 1)[1].strip() for line in reversed(said.splitlines()) if "populate: " in line)


def test_a_dead_mirror_alone_ends_in_one_sentence_and_nothing_serves(laptop: Laptop) -> None:
    with serving(laptop.models / "0", REPO, REVISIONS[0]) as gone:
        pass
    laptop.stack.set(modelMirrors=[gone.url])
    sentence = refused(laptop)
    assert gone.url in sentence
    assert "modelMirrors" in sentence
    assert docker("ps", "-aq", "--filter", f"name=^/{laptop.stack.container}$") == ""


def test_a_wrong_token_ends_in_one_sentence_with_the_remedy_and_without_the_token(laptop: Laptop) -> None:
    laptop.hubs[0].faults.token = "hf_the-right-one"
    laptop.stack.set(modelMirrors=[laptop.hubs[0].url], modelTokenHosts=[laptop.hubs[0].url])
    laptop.stack.set_secret("modelToken", MODEL_TOKEN)
    said = laptop.stack.refusal("up")
    assert "pulumi config set --secret modelToken" in said
    assert MODEL_TOKEN not in said
    assert any(seen.authorization == f"Bearer {MODEL_TOKEN}" for seen in laptop.hubs[0].settled())
    laptop.hubs[0].faults.token = ""
    laptop.stack.set(modelToken=None, modelTokenHosts=None)


def test_a_file_that_stays_truncated_is_never_served(laptop: Laptop) -> None:
    laptop.hubs[0].faults.truncated, laptop.hubs[0].faults.only = -1, "model.safetensors"
    said = laptop.stack.refusal("up")
    assert "gave model.safetensors only up to byte" in said, said
    assert docker("ps", "-aq", "--filter", f"name=^/{laptop.stack.container}$") == ""
    laptop.hubs[0].faults.truncated = 0


def test_the_next_up_goes_on_from_there_past_a_dead_first_mirror(laptop: Laptop) -> None:
    fetched = laptop.hubs[0].sent("tokenizer.json")
    with serving(laptop.models / "0", REPO, REVISIONS[0]) as gone:
        pass
    laptop.stack.set(modelMirrors=[gone.url, laptop.hubs[0].url])
    laptop.stack.up(timeout=600)
    assert fetched > 0
    assert laptop.hubs[0].sent("tokenizer.json") == fetched, "a file that was whole was fetched again"
    assert inspect(laptop.stack.container)["State"]["Health"]["Status"] == "healthy"


def test_the_second_preview_is_empty(laptop: Laptop) -> None:
    assert laptop.stack.preview() == {}
    laptop.stack.refresh()


def test_ragflow_gets_the_model_cards_scores_under_both_names(laptop: Laptop) -> None:
    expected = reference(laptop, 0, [prompt(QUERY, document) for document in DOCUMENTS])
    assert len(set(expected)) > 3, "the reference tells the documents apart"
    for name in (SLUG, f"/models/{SLUG}"):
        assert scores(laptop, name) == pytest.approx(expected, abs=1e-5)
    ranked = rerank(laptop.ragflow, laptop.stack.outputs()["internalUrl"], model=SLUG, query=QUERY, documents=DOCUMENTS[:5])
    assert ranked == [document for _, document in sorted(zip(expected[:5], DOCUMENTS[:5], strict=True), reverse=True)]


def test_the_stacks_own_commands_verify_it(laptop: Laptop) -> None:
    outputs = laptop.stack.outputs()
    assert outputs["attachedContainers"] == [laptop.ragflow]
    assert len(outputs["verify"]) == 2
    for command in outputs["verify"]:
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120, check=True)
        assert len(json.loads(done.stdout)["results"]) == 2


def test_the_container_is_confined_and_its_model_read_only(laptop: Laptop) -> None:
    name = laptop.stack.container
    status = dict(line.split(":\t", 1) for line in docker("exec", name, "cat", "/proc/1/status").splitlines() if ":\t" in line)
    assert (int(status["CapEff"], 16), status["NoNewPrivs"], status["Uid"].split()[1]) == (0, "1", "2000")
    for path in ("/", f"/models/{SLUG}", "/opt/reranker/serving"):
        assert "Read-only" in docker("exec", name, "sh", "-c", f"touch {path}/x 2>&1 || true"), path
    assert inspect(name)["HostConfig"]["Memory"] == inspect(name)["HostConfig"]["MemorySwap"] == 6 << 30


def test_a_restart_serves_again_by_itself(laptop: Laptop) -> None:
    before = scores(laptop)
    docker("restart", "-t", "30", laptop.stack.container, timeout=120)
    end = time.monotonic() + 300
    while curl(laptop.ragflow, f"http://{laptop.stack.container}:8000/health")[0] != 200:
        assert time.monotonic() < end, docker("logs", "--tail", "40", laptop.stack.container)
        time.sleep(2)
    assert scores(laptop) == pytest.approx(before, abs=1e-6)


def test_a_new_revision_that_fails_leaves_the_old_one_serving(laptop: Laptop) -> None:
    laptop.hubs[1].faults.wrong, laptop.hubs[1].faults.only = -1, "model.safetensors"
    laptop.stack.set(modelRevision=REVISIONS[1], modelMirrors=[laptop.hubs[1].url])
    planned = laptop.stack.preview()
    assert {name for name, op in planned.items() if "replace" in op} == {"model-populate", "reranker-container", "reranker-healthy"}
    assert planned[f"model-volume-{SLUG}-{REVISIONS[1][:12]}"] == "create"
    said = laptop.stack.refusal("up")
    assert "gave model.safetensors twice with another checksum" in said, said
    assert scores(laptop) == pytest.approx(reference(laptop, 0, [prompt(QUERY, document) for document in DOCUMENTS]), abs=1e-5)


def test_it_is_loaded_once_it_is_whole_and_a_key_set_with_it_guards_every_route(laptop: Laptop) -> None:
    laptop.hubs[1].faults.wrong = 0
    laptop.stack.set_key(API_KEY)
    laptop.stack.up(timeout=600)
    assert scores(laptop, key=API_KEY) == pytest.approx(reference(laptop, 1, [prompt(QUERY, document) for document in DOCUMENTS]), abs=1e-5)
    at = f"http://{laptop.stack.container}:8000"
    body = {"model": SLUG, "query": QUERY, "documents": DOCUMENTS[:1]}
    for route in ("/v1/rerank", "/rerank", "/v2/rerank", "/score", "/v1/score", "/classify", "/pooling", "/invocations", "/tokenize"):
        assert curl(laptop.ragflow, at + route, body=body)[0] == 403, route
    for route in ("/v1/models", "/metrics", "/version", "/load"):
        assert curl(laptop.ragflow, at + route)[0] == 403, route
    assert curl(laptop.ragflow, f"{at}/health")[0] == 200
    assert laptop.stack.preview() == {}


def test_no_secret_shows_where_others_can_look(laptop: Laptop) -> None:
    name = laptop.stack.container
    places = {
        "state": laptop.stack.export(),
        "inspect": json.dumps(inspect(name)) + json.dumps([inspect(volume, "volume") for volume in laptop.stack.remains()["volume"]]),
        "logs": docker("logs", name) + docker("exec", name, "sh", "-c", "cat /proc/[0-9]*/cmdline /proc/1/environ"),
        "image": docker("history", "--no-trunc", laptop.image),
    }
    for place, text in places.items():
        assert len(text) > 100, place
        for secret in (API_KEY, MODEL_TOKEN):
            assert secret not in text, place


def test_destroy_keeps_the_models_and_nothing_else(laptop: Laptop) -> None:
    laptop.stack.destroy()
    remains = laptop.stack.remains()
    assert set(remains) == {"container", "volume", "image"}
    assert remains["container"] == [laptop.ragflow]
    assert remains["volume"] == sorted(f"{laptop.stack.container}-{SLUG}-{revision[:12]}" for revision in REVISIONS)
