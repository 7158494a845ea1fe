"""The reranker entered into a stand-in of RAGFlow by the real engine: made, kept, put right, taken out; and no key where somebody could read it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from host.docker import Docker
from registration.api import Api
from registration.entry import Place
from registration.standing import instance_names
from registration.transport import InContainer
from tests.engine.conftest import API_KEY
from tests.engine.test_secrets import Processes, files_with
from tests.support.engine import ROOT, Project, docker, wait_until
from tests.support.ragflow_api import KEY, Instance, Model, RagflowApi, called, served

ENTRY = "registration-entry"
MODEL = "qwen3-reranker-0.6b"
IDS = {"v0.25.2": f"{MODEL}___VLLM@VLLM", "v0.26.4": MODEL + "@{}@VLLM", "v0.27.0": MODEL + "@{}@VLLM"}


@dataclass
class Entered:
    """A stack of the mock and the RAGFlow that it is entered in. RAGFlow's trial is a real call: the container's name is its published port here."""

    stack: Project
    ragflow: RagflowApi

    def id(self) -> str:
        return IDS[self.ragflow.version].format(self.stack.container)

    def held(self) -> list[tuple[str, str]]:
        """Name and key of what RAGFlow holds of it."""
        return [(row["llm_name"], row["api_key"]) for row in self.ragflow.table] + [
            (one.name, one.key) for one in self.ragflow.instances for model in one.models if model == MODEL
        ]


@pytest.fixture
def enter(project: Callable[..., Project]) -> Iterator[Callable[[str], Entered]]:
    """Makes a stack, not up yet, that is to be entered in a RAGFlow of that release."""
    open_now = []

    def make(version: str) -> Entered:
        stack = project()

        def tried(url: str, key: str, model: str) -> str:
            assert url == f"http://{stack.container}:8000/v1"
            return called(f"http://127.0.0.1:{stack.port}/v1", key, model)

        ragflow = RagflowApi(version, verify=tried, providers={"VLLM"}, instances=[Instance("theirs", "k", models={"qwen3-32b": Model(["chat"])})])
        manager = served(ragflow)
        stack.set(ragflowUrl=manager.__enter__())
        open_now.append(manager)
        stack.set_secret("ragflowApiKey", KEY)
        return Entered(stack, ragflow)

    yield make
    for manager in open_now:
        manager.__exit__(None, None, None)


def test_the_reranker_is_entered_kept_put_right_and_taken_out(enter: Callable[[str], Entered]) -> None:
    entered = enter("v0.27.0")
    stack, ragflow = entered.stack, entered.ragflow
    seen = stack.settle()
    assert seen[ENTRY] == "create"
    assert entered.held() == [(stack.container, "x")]
    assert stack.outputs()["ragflow"]["modelId"] == entered.id()
    stack.refresh()

    # a key for callers: the reranker asks for it from now on, and RAGFlow sends it
    stack.set_key(API_KEY)
    with Processes() as processes:
        told = stack.up() + stack.shown()
    assert entered.held() == [(stack.container, API_KEY)]
    assert any(" -m registration register" in line for line in processes.seen)
    for secret in (KEY, API_KEY):
        assert not [line for line in processes.seen if secret in line]
        assert secret not in told + stack.export() + json.dumps(stack.outputs())
        assert files_with(stack.root, secret) == []
    assert stack.preview() == {}

    # by hand: removed, then changed, then removed again
    for harm in (ragflow.instances.pop, lambda: setattr(ragflow.instances[-1], "base_url", "http://other/v1"), ragflow.instances.pop):
        harm()
        assert stack.settle() == {ENTRY: "update"}
        assert entered.held() == [(stack.container, API_KEY)]
        assert ragflow.instances[-1].base_url == f"http://{stack.container}:8000/v1"

    # RAGFlow's own models stood all the time, and stand when ours goes
    ragflow.chats = [{"name": "support", "rerank_id": entered.id()}]
    told = stack.destroy()
    assert "RAGFlow's chats support use the reranker that goes now" in told
    assert [(one.name, list(one.models)) for one in ragflow.instances] == [("theirs", ["qwen3-32b"])]
    assert ragflow.providers == {"VLLM"}


@pytest.mark.parametrize("version", ["v0.25.2", "v0.26.4"])
def test_an_older_release_is_entered_put_right_and_left_as_it_was(enter: Callable[[str], Entered], version: str) -> None:
    entered = enter(version)
    stack, ragflow = entered.stack, entered.ragflow
    stack.settle()
    assert stack.outputs()["ragflow"]["modelId"] == entered.id()
    [before] = entered.held()
    (ragflow.table or ragflow.instances).pop()
    assert stack.settle() == {ENTRY: "update"}
    assert entered.held() == [before]

    # switched off: the entry goes, and the rest stays as it is
    stack.set(ragflowUrl=None)
    assert set(stack.settle()) == {ENTRY, "registration"}
    assert entered.held() == []
    assert [one.name for one in ragflow.instances] == ["theirs"]


def test_a_ragflow_that_is_gone_keeps_neither_preview_nor_destroy(enter: Callable[[str], Entered]) -> None:
    entered = enter("v0.27.0")
    stack = entered.stack
    entered.ragflow.keys = {"another"}
    assert "ragflowApiKey: RAGFlow does not take the value (not shown)" in stack.refusal()
    entered.ragflow.keys = {KEY}
    trial, entered.ragflow.verify = entered.ragflow.verify, lambda *_: "[Errno -2] Name or service not known"
    assert f"RAGFlow refused the reranker: Fail to access model(VLLM/{MODEL}).[Errno -2] Name or service not known" in stack.refusal("up")
    assert "RAGFlow does not have the reranker: up enters it" in stack.shown()
    entered.ragflow.verify = trial
    stack.up()
    entered.ragflow.answer = lambda *_: (502, {})  # type: ignore[method-assign]
    assert "whether RAGFlow still holds the reranker was not looked up" in stack.shown()
    assert stack.preview() == {}
    assert "the reranker may still be entered in RAGFlow" in stack.destroy()
    assert stack.resources() == []


def test_ragflow_is_asked_from_inside_its_own_container_where_nothing_else_reaches_it(project: Callable[..., Project], base_image: str) -> None:
    stack = project()
    name = f"{stack.token}-ragflow-cpu-1"
    run = ("run", "-d", "--init", "--name", name, "--label", "io.ragflow-reranker.test=standin", "--volume", f"{ROOT}:/repo:ro", "--workdir", "/repo")
    try:
        docker(*run, base_image, "python3", "-B", "-m", "tests.support.ragflow_api", "v0.27.0")
        api = Api(InContainer(Place(url="http://127.0.0.1:9380", container=name, key=KEY), Docker()))
        wait_until(lambda: "9380" in docker("exec", name, "sh", "-c", "grep -q :24A4 /proc/net/tcp && echo 9380 || true"), seconds=30)
        stack.set(ragflowMode="attach", ragflowContainers=[name], ragflowUrl="container")
        stack.set_secret("ragflowApiKey", KEY)
        with Processes() as processes:
            stack.settle()
        assert instance_names(api) == ["theirs", stack.container]
        assert stack.outputs()["ragflow"]["modelId"] == f"{MODEL}@{stack.container}@VLLM"
        assert any(f"exec --interactive {name} python3" in line for line in processes.seen)
        assert not [line for line in processes.seen if KEY in line]
        stack.destroy()
        assert instance_names(api) == ["theirs"]
    finally:
        docker("rm", "-f", name, check=False)
