"""The mock's scores: shared words make a document relevant, in scripts with spaces and without."""

import asyncio

import pytest

from serving.engines import mock


@pytest.mark.parametrize(
    ("query", "better", "worse"),
    [
        ("北京是哪个国家的首都", "北京是中国的首都。", "苹果是红色的。"),
        ("重排序", "重排序模型", "排版模型"),
        ("東京タワー", "東京タワーは高い", "大阪城は広い"),
        ("ＭＥＭＯＲＹ limit", "Set the memory limit", "Set the clock"),
        ("vLLM部署", "如何部署vLLM", "如何部署Ollama"),
    ],
)
def test_shared_words_and_characters_make_a_document_relevant(query: str, better: str, worse: str) -> None:
    asked = list(mock.terms(query))
    assert 1 >= mock.score(asked, mock.terms(better)) > mock.score(asked, mock.terms(worse)) >= 0


def test_scores_lie_between_zero_and_one() -> None:
    assert mock.score(["same", "words"], ["words", "same"]) == 1
    assert mock.score([], ["x"]) == mock.score(["x"], []) == mock.score(mock.terms("?!"), ["x"]) == 0
    assert mock.score(["a", "b"], ["a", "c", "d", "e"]) == pytest.approx(0.9 / 2 + 0.1 / 4)


def test_terms_stand_for_tokens_and_a_cut_document_scores_by_what_is_left() -> None:
    prompts = mock.MockEngine(max_model_len=100).prompts("one two", "beijing", ["capital city beijing", "word " * 500, ""])
    assert (prompts.query, prompts.shared, prompts.tail, list(prompts.documents)) == (1, 3, 0, [3, 101, 0])
    whole, cut, empty = asyncio.run(mock.MockEngine(100).score([prompts.prompt(0, 3), prompts.prompt(0, 2), prompts.prompt(2, 0)]))
    assert whole > cut == empty == 0
