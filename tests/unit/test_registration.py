"""registration/ against a stand-in of each generation: what RAGFlow holds afterwards, what was asked of it, and each sentence for a person."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from registration import calls
from registration.__main__ import main
from registration.api import Api, NoSuchRoute, Refused, WrongKey, judged
from registration.calls import Call
from registration.entry import Entry
from registration.releases import Generation, generation_of, model_id
from registration.standing import chats_using, look
from registration.transport import Answer, Unreachable
from registration.verbs import CannotRegister, check, register, unregister
from tests.support.ragflow_api import KEY, Instance, Model, RagflowApi
from tests.support.recording import ROOT

NAME, MODEL, URL = "ragflow-vllm-reranker", "qwen3-reranker-0.6b", "http://ragflow-vllm-reranker:8000/v1"
RERANK_KEY = "sk-a-key-that-nobody-sees"
ENTRY = Entry(instance=NAME, model=MODEL, base_url=URL, max_tokens=4096)
TABLE = ("v0.24.0", "v0.25.2")
PROVIDER = ("v0.26.4", "v0.27.0")
ALL = (*TABLE, *PROVIDER)
IDS = {**dict.fromkeys(TABLE, f"{MODEL}___VLLM@VLLM"), **dict.fromkeys(PROVIDER, f"{MODEL}@{NAME}@VLLM")}


def answers(*_: str) -> str:
    """A reranker that answers whoever calls."""
    return ""


def a_ragflow(version: str, **changed: Any) -> RagflowApi:
    return RagflowApi(version, **{"verify": answers, **changed})


def api(ragflow: RagflowApi, key: str = KEY) -> Api:
    return Api(ragflow.send(key))


def entered(version: str, entry: Entry = ENTRY, **changed: Any) -> RagflowApi:
    """A RAGFlow in which the entry was registered, asked nothing since."""
    ragflow = a_ragflow(version, **changed)
    register(api(ragflow), entry)
    ragflow.asked.clear()
    return ragflow


def held(ragflow: RagflowApi) -> list[tuple[str, str, str, int]]:
    """Name, address, key and tokens of what RAGFlow holds."""
    rows = [(row["llm_name"], row["api_base"], row["api_key"], row["max_tokens"]) for row in ragflow.table]
    return rows + [(one.name, one.base_url, one.key, model.max_tokens) for one in ragflow.instances for model in one.models.values()]


def as_entered(version: str, entry: Entry = ENTRY) -> tuple[str, str, str, int]:
    return (f"{entry.model}___VLLM" if version in TABLE else entry.instance, entry.base_url, entry.key, entry.max_tokens)


# -- releases -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "expected"), [
    ("v0.17.2", Generation.BY_HAND), ("v0.22.1", Generation.BY_HAND), ("v0.23.1", Generation.BY_HAND), ("v0.24.0", Generation.UPSERT),
    ("v0.25.6", Generation.UPSERT), ("v0.26.0", Generation.INSTANCES), ("v0.26.4-12-g3f2a1b0", Generation.INSTANCES), ("v0.27.0 full", Generation.UPDATABLE),
    ("0.30.1", Generation.UPDATABLE), ("v1.0.0", Generation.UPDATABLE), ("nightly", None), ("", None),
])  # fmt: skip
def test_a_version_tells_how_a_model_is_entered(version: str, expected: Generation | None) -> None:
    assert generation_of(version) is expected


@pytest.mark.parametrize("version", ALL)
def test_the_release_is_found_by_its_routes(version: str) -> None:
    assert api(a_ragflow(version)).release().version == version


@pytest.mark.parametrize(
    ("version", "expected"), [(version, Generation.UPSERT) for version in TABLE] + [(version, Generation.UPDATABLE) for version in PROVIDER]
)
def test_a_build_without_a_number_is_known_by_what_answers(version: str, expected: Generation) -> None:
    assert api(a_ragflow(version, says="nightly")).release().generation is expected


def test_a_nightly_build_of_a_release_without_put_is_made_anew_all_the_same() -> None:
    ragflow = entered("v0.26.4", says="nightly")
    register(api(ragflow), replace(ENTRY, max_tokens=2048))
    assert held(ragflow) == [as_entered("v0.26.4", replace(ENTRY, max_tokens=2048))]


@pytest.mark.parametrize("version", ["v0.22.1", "v0.23.1"])
def test_a_release_that_takes_no_key_for_models_says_no_more_than_that_the_key_is_not_taken(version: str) -> None:
    with pytest.raises(WrongKey):
        register(api(a_ragflow(version)), ENTRY)


def test_a_release_whose_number_is_known_to_be_too_old_is_told_by_hand() -> None:
    with pytest.raises(CannotRegister, match=r"^RAGFlow v0.23.0 takes no API key where models are added; add the model by hand"):
        register(api(a_ragflow("v0.24.0", says="v0.23.0")), ENTRY)


# -- answers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "kind", "text"), [
    (Answer(status=401, text='{"code": 401, "message": "Unauthorized"}'), WrongKey, "it does not take the API key"),
    (Answer(status=200, text='{"code": 401, "message": "Unauthorized"}'), WrongKey, "it does not take the API key"),
    (Answer(status=401, text="<html>"), WrongKey, "it does not take the API key"),
    (Answer(status=404, text='{"code": 404}'), NoSuchRoute, "GET /here is not there"),
    (Answer(status=200, text='{"code": 404, "message": "Not Found: /here"}'), NoSuchRoute, "GET /here is not there"),
    (Answer(status=200, text='{"code": 100, "message": "<MethodNotAllowed \'405: Method Not Allowed\'>"}'), NoSuchRoute, "GET /here is not there"),
    (Answer(status=404, text="<html>"), NoSuchRoute, "GET /here is not there"),
    (Answer(status=502, text="<html>"), Refused, "GET /here answered 502 and nothing that RAGFlow would say; is this the address of its API?"),
    (Answer(status=200, text="<html>"), Refused, "GET /here answered 200 and nothing that RAGFlow would say; is this the address of its API?"),
    (Answer(status=200, text="[]"), Refused, "GET /here answered 200 and nothing that RAGFlow would say; is this the address of its API?"),
    (Answer(status=200, text='{"code": 102, "message": "\\nFail to access model."}'), Refused, "Fail to access model."),
    (Answer(status=200, text='{"code": 100}'), Refused, "code 100"),
    (Answer(status=500, text='{"code": 0}'), Refused, "code 0"),
])  # fmt: skip
def test_an_answer_is_judged_by_status_and_by_code(answer: Answer, kind: type[Refused], text: str) -> None:
    with pytest.raises(kind) as refused:
        judged(calls.get("/here?secret=1"), answer)
    assert (type(refused.value), str(refused.value)) == (kind, text)


def test_a_yes_gives_its_data_or_none() -> None:
    assert judged(calls.get("/"), Answer(status=200, text='{"code": 0, "data": [1]}')) == [1]
    assert judged(calls.get("/"), Answer(status=200, text='{"code": 0}')) is None


# -- register -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ALL)
@pytest.mark.parametrize("key", ["", RERANK_KEY])
def test_the_first_time_it_is_there_with_the_id_to_name_it_by(version: str, key: str) -> None:
    entry = replace(ENTRY, api_key=key)
    ragflow = a_ragflow(version)
    done = register(api(ragflow), entry)
    assert held(ragflow) == [as_entered(version, entry)]
    assert (done.model_id, done.said) == (IDS[version], ())
    assert look(api(ragflow), entry).as_wanted


@pytest.mark.parametrize("version", ALL)
def test_a_second_time_leaves_one_entry_and_no_second_instance(version: str) -> None:
    ragflow = entered(version)
    assert register(api(ragflow), ENTRY).model_id == IDS[version]
    assert held(ragflow) == [as_entered(version)]
    assert [one.name for one in ragflow.instances] == ([NAME] if version in PROVIDER else [])


@pytest.mark.parametrize("version", ALL)
@pytest.mark.parametrize("change", [{"api_key": RERANK_KEY}, {"base_url": "http://elsewhere:8000/v1"}, {"max_tokens": 2048}])
def test_a_changed_key_address_or_length_is_entered(version: str, change: dict[str, Any]) -> None:
    ragflow, entry = entered(version), replace(ENTRY, **change)
    register(api(ragflow), entry)
    assert held(ragflow) == [as_entered(version, entry)]


def test_each_generation_is_asked_in_its_own_way() -> None:
    said = {version: entered(version) for version in ALL}
    for ragflow in said.values():
        register(api(ragflow), ENTRY)
    under = "/api/v1/providers/VLLM/"
    assert {version: ragflow.writes() for version, ragflow in said.items()} == {
        **{version: ["POST /v1/llm/add_llm"] for version in TABLE},
        "v0.26.4": [f"POST {under}connection", f"DELETE {under}instances", f"POST {under}instances"],
        "v0.27.0": [f"PUT {under}instances/{NAME}"],
    }


def test_a_change_names_the_extras_that_the_release_reads_unseen() -> None:
    body = calls.change(ENTRY).body
    assert body is not None
    assert [model["extra"] for model in body["model_info"]] == [{}]


@pytest.mark.parametrize("version", PROVIDER)
def test_the_users_own_instances_and_their_models_are_not_touched(version: str) -> None:
    theirs = [Instance("mine", "k", "http://mine:8000/v1", models={"qwen3-32b": Model(["chat"])}), Instance("empty")]
    ragflow = a_ragflow(version, providers={"VLLM"}, instances=list(theirs))
    register(api(ragflow), ENTRY)
    register(api(ragflow), replace(ENTRY, api_key=RERANK_KEY))
    assert ragflow.instances[:2] == theirs
    unregister(api(ragflow), ENTRY)
    assert ragflow.instances == theirs
    assert ragflow.providers == {"VLLM"}


@pytest.mark.parametrize("version", TABLE)
def test_the_users_own_models_are_not_touched(version: str) -> None:
    theirs = {
        "llm_factory": "VLLM",
        "llm_name": "mine___VLLM",
        "model_type": "chat",
        "api_base": "http://mine",
        "api_key": "k",
        "max_tokens": 1,
        "status": "1",
    }
    ragflow = a_ragflow(version, table=[dict(theirs)])
    register(api(ragflow), ENTRY)
    unregister(api(ragflow), ENTRY)
    assert ragflow.table == [theirs]


@pytest.mark.parametrize("version", PROVIDER)
def test_models_that_a_person_put_into_our_instance_are_kept(version: str) -> None:
    ragflow = entered(version)
    theirs = Model(["chat"], 100, extra={"is_tools": True} if version == "v0.27.0" else {})  # v0.26 shows no more of them
    ragflow.instances[0].models["theirs"] = theirs
    register(api(ragflow), replace(ENTRY, max_tokens=2048))
    assert ragflow.instances[0].models["theirs"] == theirs
    assert unregister(api(ragflow), ENTRY).said == (
        f"RAGFlow's instance {NAME} was left: it holds theirs as well, which this stack did not put there; remove it by hand",
    )
    assert [one.name for one in ragflow.instances] == [NAME]


@pytest.mark.parametrize("version", ALL)
def test_a_reranker_that_does_not_answer_ragflow_leaves_what_stood_there(version: str) -> None:
    ragflow = entered(version)
    ragflow.verify = lambda *_: "Connection refused"
    with pytest.raises(Refused, match=rf"^Fail to access model\(VLLM/{MODEL}\).Connection refused$"):
        register(api(ragflow), replace(ENTRY, max_tokens=2048))
    assert held(ragflow) == [as_entered(version)]


@pytest.mark.parametrize(("seconds", "trials"), [(10.0, 2), (0.2, 1)])
@pytest.mark.parametrize("version", ALL)
def test_a_trial_that_ran_out_of_its_time_is_asked_for_once_more_and_no_other(version: str, seconds: float, trials: int) -> None:
    clock, tried = [0.0], []

    def cold(*told: str) -> str:
        """RAGFlow right after its start: the first trial ends with its time."""
        tried.append(told)
        if len(tried) > 1:
            return ""
        clock[0] += seconds
        return "timed out"

    ragflow = a_ragflow(version, verify=cold)
    if trials == 1:
        with pytest.raises(Refused, match="timed out"):
            register(api(ragflow), ENTRY, clock=lambda: clock[0])
        assert held(ragflow) == []
    else:
        register(api(ragflow), ENTRY, clock=lambda: clock[0])
        assert held(ragflow) == [as_entered(version)]
    assert len(tried) == trials


@pytest.mark.parametrize("version", ALL)
def test_a_reranker_that_never_answered_leaves_nothing_behind(version: str) -> None:
    ragflow = a_ragflow(version, verify=lambda *_: "Connection refused")
    with pytest.raises(Refused):
        register(api(ragflow), ENTRY)
    assert (ragflow.table, ragflow.instances) == ([], [])


def test_what_a_refused_post_left_is_taken_away_and_nothing_else() -> None:
    ragflow = a_ragflow("v0.27.0", providers={"VLLM"}, instances=[Instance(f"{NAME}(1)"), Instance("mine")])

    def raced(call: Call) -> Answer:
        """Somebody else enters the same name between our look and our POST."""
        if call == calls.create(ENTRY):
            ragflow.instances.append(Instance(NAME, models={MODEL: Model(["rerank"])}))
        return ragflow.send()(call)

    with pytest.raises(Refused, match="already exists"):
        register(Api(raced), ENTRY)
    assert [one.name for one in ragflow.instances] == [f"{NAME}(1)", "mine", NAME]


@pytest.mark.parametrize("version", ALL)
def test_a_key_that_ragflow_does_not_take_changes_nothing(version: str) -> None:
    ragflow = a_ragflow(version)
    with pytest.raises(WrongKey):
        register(api(ragflow, "ragflow-another"), ENTRY)
    assert ragflow.writes() == []


# -- the tenant's default -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ALL)
def test_the_default_is_set_and_cleared_only_where_it_is_asked_for(version: str) -> None:
    ragflow = entered(version, default="")
    assert ragflow.default == ""
    entry = replace(ENTRY, default=True)
    assert look(api(ragflow), entry).differences == ("another default rerank model of the tenant",)
    register(api(ragflow), entry)
    assert ragflow.default == IDS[version]
    assert look(api(ragflow), entry).as_wanted
    assert unregister(api(ragflow), entry).said == ()
    assert ragflow.default == ""


@pytest.mark.parametrize("version", ALL)
def test_a_default_that_a_person_set_is_left_and_told(version: str) -> None:
    ragflow = entered(version)
    ragflow.default = IDS[version]
    [said] = unregister(api(ragflow), ENTRY).said
    assert said == "RAGFlow's default rerank model is the reranker that goes now; choose another one, or none, under Model providers"
    assert ragflow.default == IDS[version]


# -- changed by hand ----------------------------------------------------------------------------------------------------


def by_hand(ragflow: RagflowApi, **changed: Any) -> None:
    """What a person does in the page to our entry."""
    if ragflow.table:
        names = {"base_url": "api_base", "max_tokens": "max_tokens", "status": "status", "kind": "model_type"}
        ragflow.table[0].update({names[key]: "0" if value == "inactive" else value for key, value in changed.items()})
        return
    one = ragflow.instances[0]
    for key, value in changed.items():
        if key in ("base_url", "key"):
            setattr(one, key, value)
        else:
            setattr(one.models[MODEL], {"kind": "types"}.get(key, key), [value] if key == "kind" else value)


DRIFT: list[tuple[dict[str, Any], str]] = [
    ({"base_url": "http://other:1/v1"}, f"base URL http://other:1/v1 instead of {URL}"),
    ({"max_tokens": 512}, "max tokens 512 instead of 4096"),
    ({"status": "inactive"}, "its model switched off"),
    ({"kind": "chat"}, "type chat instead of rerank"),
]


# v0.26 shows no address
SEEN = [(version, *drift) for version in ALL for drift in DRIFT if (version, *drift[0]) != ("v0.26.4", "base_url")]


@pytest.mark.parametrize(("version", "change", "sentence"), SEEN, ids=[f"{version}, {sentence}" for version, _, sentence in SEEN])
def test_what_a_person_changed_is_said_and_put_right(version: str, change: dict[str, Any], sentence: str) -> None:
    ragflow = entered(version)
    by_hand(ragflow, **change)
    assert look(api(ragflow), ENTRY).differences == (sentence,)
    register(api(ragflow), ENTRY)
    assert look(api(ragflow), ENTRY).as_wanted
    assert held(ragflow) == [as_entered(version)]


def test_another_key_is_said_without_showing_either() -> None:
    ragflow = entered("v0.27.0", replace(ENTRY, api_key=RERANK_KEY))
    by_hand(ragflow, key="theirs")
    seen = look(api(ragflow), replace(ENTRY, api_key=RERANK_KEY))
    assert seen.differences == ("another key than apiKey",)
    assert RERANK_KEY not in repr(seen)


@pytest.mark.parametrize("version", ALL)
def test_what_a_person_removed_is_said_and_put_back(version: str) -> None:
    ragflow = entered(version)
    ragflow.table.clear()
    ragflow.instances.clear()
    assert look(api(ragflow), ENTRY).differences == ("not in RAGFlow",)
    register(api(ragflow), ENTRY)
    assert held(ragflow) == [as_entered(version)]


@pytest.mark.parametrize("version", PROVIDER)
def test_an_instance_without_its_model_is_put_right(version: str) -> None:
    ragflow = entered(version)
    ragflow.instances[0].models.clear()
    assert look(api(ragflow), ENTRY).differences == (f"no model {MODEL} in its instance",)
    register(api(ragflow), ENTRY)
    assert held(ragflow) == [as_entered(version)]


@pytest.mark.parametrize("version", PROVIDER)
def test_a_provider_that_was_removed_whole_is_put_back(version: str) -> None:
    ragflow = entered(version)
    api(ragflow)(Call(method="DELETE", path="/api/v1/providers/VLLM"))
    assert look(api(ragflow), ENTRY).differences == ("not in RAGFlow",)
    register(api(ragflow), ENTRY)
    assert held(ragflow) == [as_entered(version)]


@pytest.mark.parametrize("version", ALL)
def test_to_look_asks_for_nothing_to_be_changed(version: str) -> None:
    ragflow = entered(version)
    assert look(api(ragflow), replace(ENTRY, default=True)).differences
    assert ragflow.writes() == []


# -- unregister ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [version for version in ALL if version != "v0.26.4"])  # which does not show the address
def test_an_entry_that_calls_another_reranker_is_left_to_it(version: str) -> None:
    ragflow = entered(version)
    elsewhere = replace(ENTRY, base_url="http://another-reranker:8000/v1")
    [said] = unregister(api(ragflow), elsewhere).said
    assert f"was left: it calls {ENTRY.base_url}, which is not this reranker" in said
    assert held(ragflow) == [as_entered(version)]


@pytest.mark.parametrize("version", ALL)
def test_it_goes_with_a_warning_that_names_the_chats_that_use_it(version: str) -> None:
    others = [{"name": f"chat {number}", "rerank_id": ""} for number in range(35)]
    ragflow = entered(version, chats=[*others, {"name": "support", "rerank_id": IDS[version]}, {"name": "law", "rerank_id": "bge@mine@VLLM"}])
    assert unregister(api(ragflow), ENTRY).said == (
        "RAGFlow's chats support use the reranker that goes now: they fail until another rerank model, or none, is chosen there",
    )
    assert held(ragflow) == []


def test_a_chat_that_names_the_model_by_its_uuid_is_found_too() -> None:
    ragflow = entered("v0.27.0", chats=[{"name": "support", "rerank_id": f"uuid-{MODEL}"}])
    assert chats_using(api(ragflow), look(api(ragflow), ENTRY).ids) == ["support"]


@pytest.mark.parametrize("version", ALL)
def test_what_is_gone_already_is_no_fault(version: str) -> None:
    ragflow = a_ragflow(version)
    assert unregister(api(ragflow), ENTRY).said == ()
    assert ragflow.writes() == []


# -- the command --------------------------------------------------------------------------------------------------------

ENVIRONMENT = {
    "RAGFLOW_URL": "http://ragflow", "RAGFLOW_CONTAINER": "", "INSTANCE": NAME, "MODEL": MODEL, "BASE_URL": URL, "MAX_TOKENS": "4096", "DEFAULT": "none",
}  # fmt: skip


def command(verb: str, ragflow: RagflowApi, key: str = KEY, **changed: str) -> int:
    keys = io.StringIO(json.dumps({"ragflow": key, "reranker": RERANK_KEY}))
    return main([verb], {**ENVIRONMENT, **changed}, keys, send=ragflow.send(key))


@pytest.mark.parametrize("version", ALL)
def test_the_command_prints_the_id_alone_and_enters_the_reranker(version: str, capsys: pytest.CaptureFixture[str]) -> None:
    ragflow = a_ragflow(version)
    assert command("register", ragflow) == 0
    assert capsys.readouterr() == (f"{IDS[version]}\n", "")
    assert held(ragflow) == [as_entered(version, replace(ENTRY, api_key=RERANK_KEY))]


def test_the_command_fails_in_one_sentence_without_any_key(capsys: pytest.CaptureFixture[str]) -> None:
    ragflow = a_ragflow("v0.27.0", verify=lambda url, key, model: f"{url} does not take {key}")
    assert command("register", ragflow) == 1
    assert capsys.readouterr().err == f"RAGFlow refused the reranker: Fail to access model(VLLM/{MODEL}).{URL} does not take ***\n"


def test_the_command_says_how_to_come_by_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("register", a_ragflow("v0.27.0"), key="ragflow-wrong") == 1
    said = capsys.readouterr().err
    assert said.startswith(
        "ragflowApiKey: RAGFlow does not take the value (not shown); make a key in RAGFlow (your picture, then API) and set it with: "
    )
    assert "ragflow-wrong" not in said


def silent(_: Call) -> Answer:
    raise Unreachable("http://ragflow does not answer (refused)")


def test_a_ragflow_that_is_gone_stops_no_destroy(capsys: pytest.CaptureFixture[str]) -> None:
    keys = json.dumps({"ragflow": KEY, "reranker": ""})
    assert main(["unregister"], ENVIRONMENT, io.StringIO(keys), send=silent) == 0
    assert capsys.readouterr().err.startswith(
        "warning: the reranker may still be entered in RAGFlow: ragflowUrl: http://ragflow does not answer (refused); "
    )
    assert main(["register"], ENVIRONMENT, io.StringIO(keys), send=silent) == 1
    assert capsys.readouterr().err.endswith("; start RAGFlow, correct the address, or set ragflowUrl to container\n")
    assert main(["register"], {**ENVIRONMENT, "RAGFLOW_CONTAINER": "ragflow"}, io.StringIO(keys), send=silent) == 1
    assert capsys.readouterr().err.endswith("; start RAGFlow, or set ragflowUrl to an address of its API\n")


def test_the_command_warns_of_chats_when_it_takes_the_entry_out(capsys: pytest.CaptureFixture[str]) -> None:
    ragflow = entered("v0.27.0", chats=[{"name": "support", "rerank_id": IDS["v0.27.0"]}])
    assert command("unregister", ragflow) == 0
    assert capsys.readouterr() == (
        "",
        "warning: RAGFlow's chats support use the reranker that goes now: they fail until another rerank model, or none, is chosen there\n",
    )


def test_a_verb_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["enter"], ENVIRONMENT, io.StringIO("{}")) == 2
    assert "register|unregister" in capsys.readouterr().err


def test_no_key_shows_in_what_a_call_or_a_place_looks_like() -> None:
    entry = replace(ENTRY, api_key=RERANK_KEY)
    assert RERANK_KEY not in f"{entry!r} {calls.create(entry)!r} {calls.create(entry)} {calls.upsert(entry)!r}"


def test_an_id_is_empty_where_the_stack_enters_nothing() -> None:
    assert [model_id(generation, ENTRY) for generation in Generation] == ["", *(IDS[version] for version in ("v0.24.0", "v0.26.4", "v0.27.0"))]


def test_it_needs_nothing_but_pythons_own_library() -> None:
    look_up = (
        "import sys; sys.path.insert(0, sys.argv[1]); import registration.__main__; print(*sorted({'pulumi', 'requests', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", look_up, str(ROOT)], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""


# -- check --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ALL)
def test_a_check_has_ragflow_try_the_entry_and_changes_nothing(version: str) -> None:
    tried: list[tuple[str, ...]] = []
    ragflow = entered(version)
    before = held(ragflow)
    ragflow.verify = lambda *told: tried.append(told) or ""  # type: ignore[func-returns-value]
    done = check(api(ragflow), ENTRY)
    assert (done.model_id, held(ragflow)) == (IDS[version], before)
    assert len(tried) == 1


@pytest.mark.parametrize("version", ALL)
def test_a_check_says_what_ragflow_cannot_reach_in_ragflows_words(version: str) -> None:
    ragflow = entered(version)
    ragflow.verify = lambda *_: "[Errno -2] Name or service not known"
    with pytest.raises(Refused, match=r"Name or service not known|Fail to access model"):
        check(api(ragflow), ENTRY)


@pytest.mark.parametrize("version", ALL)
def test_a_check_says_where_somebody_changed_the_entry(version: str) -> None:
    ragflow = a_ragflow(version)
    with pytest.raises(Refused, match="not in RAGFlow; make up puts that right"):
        check(api(ragflow), ENTRY)
