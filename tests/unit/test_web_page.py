"""The page over HTTP: who may have it, with what headers, and what is told of the calls. How it looks and behaves is in tests/browser/."""

import asyncio
import base64
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from serving.launch import mock
from serving.rank import fit
from serving.web.page import files
from serving.web.page.recent import KEPT, Entry, caller
from serving.web.service import ROUTES
from tests.support import asgi, ragflow_client, virtual
from tests.support.options import service_options
from tests.support.virtual import ask, rerank, service, story

KEY = "s3cret:with-colon"
PAGE = tuple(files.ROUTES)
MARK = {files.MARK: "1"}
CALL = {"query": "cats", "documents": ["dogs bark", "cats purr"]}


def basic(password: str, user: str = "any") -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    file = tmp_path / "api_keys"
    file.write_text(f"{KEY}\nanother\n")
    return str(file)


def asked(method: str, path: str, headers: dict[str, str] | None = None, body: Any = None, **options: Any) -> virtual.Answer:
    """One answer of a service in virtual time."""

    async def told() -> virtual.Answer:
        answer = await ask(service(virtual.Engine(speed=900), **options), method, path, body, headers=headers)
        assert answer is not None
        return answer

    return virtual.run(told())


async def shown(app: Any) -> dict[str, Any]:
    answer = await ask(app, "GET", files.DATA)
    assert answer is not None
    assert answer.status == 200
    found: dict[str, Any] = answer.json()
    return found


def test_the_page_is_what_its_folder_holds() -> None:
    assert set(PAGE) == {"/", "/page/data", "/page/icon.svg", "/page/page.css", "/page/page.js", "/page/texts.js"}
    assert not set(PAGE) & set(ROUTES)


@pytest.mark.parametrize("path", PAGE)
def test_every_answer_of_the_page_forbids_what_is_not_its_own(path: str) -> None:
    answer = asked("GET", path)
    assert answer.status == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == ("no-store" if path == files.DATA else "private, no-cache")


# -- the key


@pytest.mark.parametrize("path", PAGE)
def test_nothing_is_shown_without_the_key(path: str, key_file: str) -> None:
    junk = ["Basic", "Basic !!!", "Basic " + base64.b64encode(KEY.encode()).decode(), f"Basic {KEY}", "Bearer x"]
    for headers in ({}, basic("wrong"), basic(""), basic("wrong", user=KEY), *({"authorization": value} for value in junk)):
        answer = asked("GET", path, headers, api_key_file=key_file)
        assert answer.status == (401 if path == "/" else 403), headers
        assert answer.headers.get("www-authenticate") == ('Basic realm="reranker", charset="UTF-8"' if path == "/" else None)
        assert "some-reranker" not in answer.body.decode()
        assert answer.json()["error"].keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize("path", PAGE)
@pytest.mark.parametrize("headers", [basic(KEY), basic(KEY, user=""), basic("another", user="ünïcode"), {"authorization": f"Bearer {KEY}"}])
def test_a_browsers_password_opens_the_page_and_so_does_a_bearer_token(path: str, headers: dict[str, str], key_file: str) -> None:
    assert asked("GET", path, headers, api_key_file=key_file).status == 200


@pytest.mark.parametrize("path", ["/metrics", "/v1/models", "/version", "/nope"])
def test_a_browsers_password_opens_nothing_but_the_page(path: str, key_file: str) -> None:
    assert asked("GET", path, {**basic(KEY), **MARK}, api_key_file=key_file).status == 403
    assert asked("POST", "/v1/score", {**basic(KEY), **MARK}, CALL, api_key_file=key_file).status == 403


@pytest.mark.parametrize("beside", [
    {}, {**MARK, "sec-fetch-site": "cross-site"}, {**MARK, "sec-fetch-site": "same-site"}, {**MARK, "origin": "https://evil.example", "host": "reranker:8000"},
    {**MARK, "origin": "null", "host": "reranker:8000"},
])  # fmt: skip
def test_what_a_browser_sends_by_itself_is_not_enough_for_a_rerank(beside: dict[str, str], key_file: str) -> None:
    assert asked("POST", "/v1/rerank", {**basic(KEY), **beside}, CALL, api_key_file=key_file).status == 403


def test_the_page_itself_may_rerank(key_file: str) -> None:
    from_page = {**MARK, "sec-fetch-site": "same-origin", "origin": "http://reranker:8000", "host": "reranker:8000"}
    assert asked("POST", "/v1/rerank", {**basic(KEY), **from_page}, CALL, api_key_file=key_file).status == 200
    older = {name: value for name, value in from_page.items() if name != "sec-fetch-site"}
    assert asked("POST", "/v1/rerank", {**basic(KEY), **older}, CALL, api_key_file=key_file).status == 200
    assert asked("POST", "/v1/rerank", {**basic("wrong"), **from_page}, CALL, api_key_file=key_file).status == 403
    assert asked("POST", "/v1/rerank", {**basic(KEY), **from_page}, CALL, api_key_file=key_file, page=False).status == 403


@pytest.mark.parametrize("path", [path for path in PAGE if path != "/"])
def test_another_site_gets_nothing_of_the_page_but_may_link_to_it(path: str) -> None:
    away = {"sec-fetch-site": "cross-site"}
    assert asked("GET", path, away).status == 403
    assert asked("GET", "/", away).status == 200


# -- on and off


@pytest.mark.parametrize("path", PAGE)
def test_turned_off_it_is_not_there(path: str, key_file: str) -> None:
    assert asked("GET", path, page=False).status == 404
    locked = asked("GET", path, basic(KEY), page=False, api_key_file=key_file)
    assert (locked.status, locked.headers.get("www-authenticate")) == (403, None)
    assert asked("POST", "/", body=CALL, page=False).status == 200


def test_the_bare_base_url_is_still_a_rerank_to_who_posts_and_no_other_method_is_taken() -> None:
    assert asked("POST", "/", body=CALL).json()["results"][0]["index"] == 1
    for method in ("PUT", "DELETE", "OPTIONS"):
        answer = asked(method, "/")
        assert (answer.status, answer.headers["allow"]) == (405, "GET")


def test_a_browser_that_has_a_file_is_not_sent_it_again() -> None:
    first = asked("GET", "/page/page.js")
    again = asked("GET", "/page/page.js", {"if-none-match": f"W/{first.headers['etag']}"})
    assert (again.status, again.body) == (304, b"")
    assert asked("GET", "/page/page.js", {"if-none-match": '"other"'}).body == first.body


# -- what it tells


@story
async def test_a_calls_numbers_are_told_and_no_text_of_it() -> None:
    app = service(virtual.Engine(speed=134), deadline_seconds=10)
    body = {"query": "zebra question", "documents": [f"{number} giraffe " + "word " * 500 for number in range(66)], "instruction": "ocelot"}
    answer = await rerank(app, body, headers={"user-agent": "python-requests/2.32 rhino", "x-forwarded-for": "lion"})
    said = await shown(app)
    (call,) = said["calls"]
    scored = int(answer.headers["x-rerank-scored"])
    assert (call["kind"], call["caller"], call["status"], call["documents"]) == ("rerank", "requests", 200, 66)
    assert (call["scored"], call["unscored"], call["cut"], call["kept"]) == (scored, 66 - scored, scored, int(answer.headers["x-rerank-kept-tokens"]))
    assert 0 < call["seconds"] <= 10
    assert call["speed"] == pytest.approx(134, rel=0.1)
    assert not any(word in json.dumps(said) for word in ("zebra", "giraffe", "ocelot", "rhino", "lion"))


@story
async def test_calls_that_failed_stand_among_the_others_with_the_reason() -> None:
    app = service(virtual.Engine(speed=900))
    assert (await rerank(app, {"query": 5})).status == 400
    many = {"queries": "a", "documents": [f"{number} " + "b " * 500 for number in range(190)]}
    late = await ask(app, "POST", "/v1/score", many, headers={"x-rerank-deadline-seconds": "1"})
    assert late is not None
    assert late.status == 503
    assert (
        await ask(app, "POST", "/v1/rerank", {"query": "q", "documents": [f"{number} " + "w " * 900 for number in range(9)]}, hang_up_after=0.1)
        is None
    )
    calls = (await shown(app))["calls"]
    assert [(call["kind"], call["status"], call["why"]) for call in calls] == [("rerank", 400, ""), ("score", 503, "deadline"), ("rerank", 499, "")]
    assert all(call["documents"] is None for call in calls)


@story
async def test_only_the_last_calls_are_kept_and_the_answer_stays_small() -> None:
    app = service(virtual.Engine(speed=900))
    for number in range(KEPT + 7):
        await rerank(app, {"query": f"q{number}", "documents": ["a"] * (1 + number % 2)})
    answer = await ask(app, "GET", files.DATA)
    assert answer is not None
    assert [call["documents"] for call in answer.json()["calls"][-2:]] == [1 + (KEPT + 5) % 2, 1 + (KEPT + 6) % 2]
    assert len(answer.json()["calls"]) == KEPT
    assert len(answer.body) < 64 << 10


def test_who_has_no_key_leaves_nothing_in_the_list(key_file: str) -> None:
    async def told() -> None:
        app = service(virtual.Engine(speed=900), api_key_file=key_file)
        await rerank(app)
        answer = await ask(app, "GET", files.DATA, headers=basic(KEY))
        assert answer is not None
        assert answer.json()["calls"] == []

    virtual.run(told())


@story
async def test_the_page_says_what_health_says() -> None:
    app = service(virtual.Engine(speed=900))
    for reason in ("", "The golden pair is out of its band."):
        app.vitals.reason = reason
        health = await ask(app, "GET", "/health")
        assert health is not None
        assert (await shown(app))["health"] == health.json()


@story
async def test_the_advice_is_that_of_make_verify() -> None:
    app = service(virtual.Engine(speed=300), deadline_seconds=25, min_document_tokens=192)
    said = (await shown(app))["fit"]
    right = fit.fit(fit.tokens(300, 25), 192)
    assert (said["scored"], said["kept"], said["whole"], said["chunk"]) == (right.call.count, right.call.keep, right.whole, right.chunk)
    assert said["top_k"] == [list(way) for way in right.top_k] == [[12, 512], [24, 256]]


@story
async def test_before_anything_was_scored_no_speed_is_told() -> None:
    assert (await shown(service(virtual.Engine(speed=900), proven=False)))["tokens_per_second"] is None


@pytest.mark.parametrize(("headers", "word"), [
    ({}, ""), ({"user-agent": "<script>alert(1)</script>"}, ""), ({"user-agent": "python-requests/2.32.3"}, "requests"), ({"user-agent": "Go-http-client/1.1"}, "go"),
    ({"user-agent": "curl/8.5"}, "curl"), ({"user-agent": "Mozilla/5.0", files.MARK: "1"}, "page"), ({"user-agent": "Mozilla/5.0"}, "browser"),
])  # fmt: skip
def test_a_caller_is_known_by_one_of_a_few_words(headers: dict[str, str], word: str) -> None:
    assert caller(headers) == word


def test_ragflows_client_is_known_over_the_wire() -> None:
    made = mock.build(service_options())
    with asgi.running(made) as (host, port):
        ragflow_client.rerank(f"http://{host}:{port}/v1", "some-reranker", "x", "q", ["a", "b"])
    assert [(entry.caller, entry.documents) for entry in made.recent.entries] == [("cohere", 2)]


def test_the_data_can_be_had_by_many_at_once_while_a_call_is_answered() -> None:
    async def told() -> None:
        app = service(virtual.Engine(speed=134), deadline_seconds=10)
        work = asyncio.ensure_future(rerank(app, {"query": "q", "documents": [f"{number} " + "w " * 500 for number in range(60)]}))
        await asyncio.sleep(2)
        answers = await asyncio.gather(*(shown(app) for _ in range(50)))
        assert {said["answering"] for said in answers} == {1}
        assert (await work).status == 200

    virtual.run(told())


def test_what_is_kept_of_a_call_is_numbers_and_words_of_ours() -> None:
    assert {field.name for field in dataclasses.fields(Entry) if field.type is str} == {"kind", "caller", "why"}
