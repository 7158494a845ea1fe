"""What a caller is told, written out: places, and bodies of any text."""

import json
import random
import re

import pytest

from serving.rank.call import Call, Outcome, Scored
from serving.rank.unscored import BELOW, ranked
from serving.web import answer

TEXTS = ("", "plain", 'quo"ted \\ slash', "line\n\r\t\x00\x1f\x7f\u2028", "北京 é 😀👩‍👩‍👧", "\\u0041 </script>", "x" * 300)


@pytest.mark.parametrize(("indexes", "written"), [([], ""), ([3], "3"), ([0, 1, 2], "0-2"), ([1, 3, 4, 9], "1,3-4,9")])
def test_places_are_written_as_ranges(indexes: list[int], written: str) -> None:
    assert answer.ranges(indexes) == written


def test_places_that_no_header_should_hold_end_in_dots() -> None:
    written = answer.ranges(range(0, 10_000, 2))
    assert len(written) < 2010
    assert written.startswith("0,2,4,")
    assert re.search(r",\d+,\.\.\.$", written)


@pytest.mark.parametrize("piece", [1, 7, 64 << 10])
def test_any_text_comes_back_as_it_came_however_it_is_cut_into_pieces(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer, "PIECE_CHARACTERS", piece)
    call = Call(rerank=True, pairs=tuple(("q", text) for text in TEXTS))
    ranking = ranked({place: place / 10 for place in range(len(TEXTS))}, len(TEXTS), BELOW)
    body = json.loads(answer.rerank_body(call, ranking, 12, "m"))
    assert [item["document"] for item in body["results"]] == [{"text": text, "multi_modal": None} for text in reversed(TEXTS)]
    assert [item["index"] for item in body["results"]] == list(reversed(range(len(TEXTS))))


def test_a_body_is_the_json_that_it_would_be_in_one_piece() -> None:
    rng = random.Random(7)
    for _ in range(200):
        texts = rng.choices(TEXTS, k=rng.randint(0, 9))
        scored = {place: rng.random() for place in range(len(texts)) if rng.random() < 0.7}
        ranking = ranked(scored, len(texts), BELOW)
        call = Call(rerank=True, pairs=tuple(("q", text) for text in texts), top_n=rng.choice((0, 0, 1, 3, 99)), return_documents=rng.random() < 0.5)
        body = json.loads(answer.rerank_body(call, ranking, 5, "m"))
        assert body["id"].startswith("score-")
        assert {name: value for name, value in body.items() if name != "id"} == {
            "model": "m",
            "usage": {"prompt_tokens": 5, "total_tokens": 5},
            "results": [
                {"index": place, "relevance_score": ranking.scores[place]}
                | ({"document": {"text": texts[place], "multi_modal": None}} if call.return_documents else {})
                for place in ranking.order[: call.top_n or None]
            ],
        }
        scores = json.loads(answer.score_body(call, ranking.scores, 5, "m"))
        assert scores["data"] == [{"index": place, "object": "score", "score": score} for place, score in enumerate(ranking.scores)]


def test_the_account_of_a_call_names_what_was_cut_and_what_has_no_score() -> None:
    call = Call(rerank=True, pairs=(("q", "a"), ("q", "b"), ("q", "c"), ("q", "d")))
    whole, cut = Scored(score=0.5, kept=9, length=9, tokens=20), Scored(score=0.6, kept=7, length=9, tokens=18)
    done = answer.account(call, Outcome(scored={0: cut, 2: whole}, cached=1, hit_deadline=True, planned=1.25), took=2.0, allowed=25, way="below")
    assert dict(done.headers()) == {
        "x-rerank-documents": "4",
        "x-rerank-scored": "2",
        "x-rerank-cached": "1",
        "x-rerank-cut": "0",
        "x-rerank-kept-tokens": "7",
        "x-rerank-unscored": "1,3",
        "x-rerank-unscored-as": "below",
    }
    kind, entry = done.line().split(" ", 1)
    assert (kind, json.loads(entry)["unscored"], json.loads(entry)["tokens"]) == ("rerank", 2, 38)
