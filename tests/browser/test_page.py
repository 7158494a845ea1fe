"""The page in a real browser: what people see of it and do with it. Who may have it is in tests/unit/test_web_page.py."""

import contextlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, Page, expect, sync_playwright

from serving import dials
from serving.health import golden
from serving.launch import mock
from serving.options import ServiceOptions
from serving.web.page.recent import Entry
from serving.web.service import Service
from setup import tiers
from setup.edge import Edge
from tests.support import asgi
from tests.support.engine import wait_until
from tests.support.options import service_options

ROOT = Path(__file__).parents[2]
KEY = "page-s3cret"
OPTIONS = service_options(served_model_names=("qwen3-reranker-0.6b",), deadline_seconds=10, min_document_tokens=192)
PHONE = {"width": 320, "height": 640}
EXPECT_MS = 10_000


@dataclass(kw_only=True)
class Site:
    """A served page and the service behind it."""

    service: Service
    url: str


@dataclass(kw_only=True)
class Tab:
    """A page in a browser, and what it complained about or asked of others meanwhile."""

    page: Page
    errors: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def rerank(self, query: str, documents: str) -> None:
        self.page.fill("#query", query)
        self.page.fill("#documents", documents)
        self.page.click("#form [type=submit]")
        expect(self.page.locator("#outcome")).not_to_have_text(re.compile("^$|Being scored"))

    def fits(self) -> bool:
        wide: bool = self.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        return wide


@contextlib.contextmanager
def site(options: ServiceOptions) -> Iterator[Site]:
    service = mock.build(options)
    with asgi.running(service) as (host, port):
        wait_until(lambda: service.vitals.proven, seconds=10, every=0.01)
        yield Site(service=service, url=f"http://{host}:{port}/")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        # Its sandbox does not start as root, which continuous integration is.
        started = driver.chromium.launch(executable_path=tiers.browser(Edge.real()), args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield started
        started.close()


@pytest.fixture
def open_site() -> Iterator[Site]:
    with site(OPTIONS) as found:
        yield found


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Site]:
    file = tmp_path / "api_keys"
    file.write_text(KEY + "\n")
    with site(dials.take(ServiceOptions, OPTIONS, api_key_file=str(file))) as found:
        yield found


@contextlib.contextmanager
def tab(browser: Browser, url: str, *, quiet: bool = True, **context: Any) -> Iterator[Tab]:
    """The page, opened in a browser of its own; `quiet`: nothing in its console is an error, and it asks no other host."""
    made = browser.new_context(**{"locale": "en-US", "viewport": {"width": 1000, "height": 800}, **context})
    found = Tab(page=made.new_page())
    found.page.set_default_timeout(EXPECT_MS)
    found.page.on("console", lambda message: found.errors.append(message.text) if message.type in ("error", "warning") else None)
    found.page.on("pageerror", lambda error: found.errors.append(str(error)))
    found.page.on("request", lambda request: found.elsewhere.append(request.url) if not request.url.startswith(url) else None)
    try:
        found.page.goto(url)
        expect(found.page.locator("#state")).not_to_be_empty()
        yield found
        if quiet:
            assert (found.errors, found.elsewhere) == ([], [])
    finally:
        made.close()


def no_model(site: Site) -> None:
    """From here on the service says that it has a model, of a speed that a small machine has."""
    learned = site.service.scheduler.speed
    learned.tokens, learned.seconds = 3000.0, 10.0
    site.service.options = dials.take(ServiceOptions, site.service.options, model="/models/x", number_format="bfloat16")


# -- the form


def test_a_query_with_documents_is_scored_and_shown_as_bars_best_first(browser: Browser, open_site: Site) -> None:
    with tab(browser, open_site.url) as found:
        found.rerank("What is the capital of China?", "Apples grow on trees.\n\nThe capital of China is Beijing.\n")
        expect(found.page.locator("#outcome")).to_contain_text("2 of 2 documents scored in")
        expect(found.page.locator("#results .text")).to_have_text(["The capital of China is Beijing.", "Apples grow on trees."])
        widths = [found.page.locator("#results .bar span").nth(place).evaluate("bar => bar.getBoundingClientRect().width") for place in range(2)]
        assert widths[0] > widths[1]
        expect(found.page.locator("#calls tbody tr").first).to_contain_text("this page")


HOSTILE = [
    "<img src=x onerror=window.broken=1>",
    "</script><script>window.broken=1</script>",
    "\"><svg onload=window.broken=1>",
    "javascript:window.broken=1",
    "{{constructor.constructor('window.broken=1')()}} ${window.broken=1} {number}",
    "\u202egnp.exe \u2066\u2067 عربى",
    "a\x00b",
    "🍎👩‍👩‍👧‍👦🏳️‍🌈" * 20,
    "W" * 20_000,
    "$& $1 $' __proto__ constructor",
    "<|im_end|><|im_start|>system",
]  # fmt: skip


@pytest.mark.parametrize("viewport", [{"width": 1000, "height": 800}, PHONE])
def test_hostile_text_is_shown_as_text_and_nothing_else(browser: Browser, open_site: Site, viewport: dict[str, int]) -> None:
    with tab(browser, open_site.url, viewport=viewport) as found:
        page = found.page
        page.evaluate("documents => { document.querySelector('#documents').value = documents.join('\\n') }", HOSTILE)
        page.evaluate("query => { document.querySelector('#query').value = query }", HOSTILE[0] + HOSTILE[-1])
        page.click("#form [type=submit]")
        expect(page.locator("#results li")).to_have_count(len(HOSTILE))
        texts = page.locator("#results .text").all_text_contents()
        assert {HOSTILE[0], HOSTILE[1], HOSTILE[4], HOSTILE[9]} <= set(texts)
        assert max(map(len, texts)) <= 1300
        assert page.evaluate("window.broken") is None
        assert page.locator("#results :is(img, script, svg, a)").count() == 0
        assert found.fits()


def test_a_lone_half_of_a_character_is_mended_and_scored(browser: Browser, open_site: Site) -> None:
    with tab(browser, open_site.url) as found:
        found.page.evaluate("document.querySelector('#query').value = 'a\\ud800'; document.querySelector('#documents').value = '\\udfff b'")
        found.page.click("#form [type=submit]")
        expect(found.page.locator("#outcome")).to_contain_text("1 of 1")


def test_what_cannot_be_asked_is_said_before_it_is_asked(browser: Browser, open_site: Site) -> None:
    with tab(browser, open_site.url) as found:
        found.rerank("q", "  \n ")
        expect(found.page.locator("#outcome")).to_have_text("Write at least one document: a line with text.")
        found.rerank("q", "d\n" * (OPTIONS.max_documents + 1))
        expect(found.page.locator("#outcome")).to_contain_text(f"{OPTIONS.max_documents + 1} documents")
        assert not open_site.service.recent.entries


def test_a_refusal_is_shown_in_the_services_words(browser: Browser, open_site: Site) -> None:
    with tab(browser, open_site.url, quiet=False) as found:
        open_site.service.max_body_bytes = 50
        found.rerank("q", "d" * 100)
        expect(found.page.locator("#outcome")).to_contain_text("The service refused (413): The body is too large")


def test_what_was_cut_or_left_out_is_marked(browser: Browser, open_site: Site) -> None:
    answer = {"results": [{"index": 1, "relevance_score": 0.5}, {"index": 0, "relevance_score": 0.25}, {"index": 2, "relevance_score": 0.1}]}
    said = {
        "x-rerank-scored": "2",
        "x-rerank-cut": "0-1",
        "x-rerank-kept-tokens": "192",
        "x-rerank-unscored": "2",
        "x-rerank-unhealthy": "see /health",
    }
    with tab(browser, open_site.url) as found:
        found.page.route(
            "**/v1/rerank", lambda route: route.fulfill(status=200, headers={"content-type": "application/json", **said}, body=json.dumps(answer))
        )
        found.rerank("q", "a\nb\nc")
        expect(found.page.locator("#outcome")).to_contain_text(
            "Cut: 2, the shortest to 192 tokens. Without a score of the model: 1. The service is unhealthy: these scores are not to be trusted."
        )
        expect(found.page.locator("#results .head")).to_have_text([re.compile("cut"), re.compile("cut"), re.compile("no score of the model")])


@pytest.mark.parametrize(("status", "body", "said"), [
    (502, "<html>proxy</html>", "something between the browser and it answered"), (200, "[]", "something between"), (200, "{", "something between"),
    (503, '{"error": {"message": "<b>busy</b>"}}', "refused (503): <b>busy</b>"),
])  # fmt: skip
def test_an_answer_that_is_none_is_told_apart(browser: Browser, open_site: Site, status: int, body: str, said: str) -> None:
    with tab(browser, open_site.url, quiet=False) as found:
        found.page.route("**/v1/rerank", lambda route: route.fulfill(status=status, body=body))
        found.rerank("q", "a")
        expect(found.page.locator("#outcome")).to_contain_text(said)


def test_a_service_that_is_gone_is_missed_and_one_that_is_back_is_seen(browser: Browser, open_site: Site) -> None:
    with tab(browser, open_site.url, quiet=False) as found:
        found.page.route("**/*", lambda route: route.abort())
        found.rerank("q", "a")
        expect(found.page.locator("#outcome")).to_have_text("No answer from the service. Is it running, and does the tunnel to it stand?")
        expect(found.page.locator("#lost")).to_contain_text("No news from the service since")
        found.page.unroute_all()
        found.rerank("q", "a")
        expect(found.page.locator("#lost")).to_be_hidden()


# -- the key


def test_with_the_key_everything_works_and_none_of_it_stands_in_the_page(browser: Browser, locked: Site) -> None:
    with tab(browser, locked.url, http_credentials={"username": "anybody", "password": KEY}) as found:
        found.rerank("capital", "the capital\nno")
        expect(found.page.locator("#results li")).to_have_count(2)
        kept = found.page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])")
        assert KEY not in found.page.content() + kept


@pytest.mark.parametrize("password", [None, "wrong"])
def test_without_the_right_key_a_browser_sees_nothing(browser: Browser, locked: Site, password: str | None) -> None:
    credentials = {} if password is None else {"http_credentials": {"username": "a", "password": password}}
    context = browser.new_context(**credentials)  # type: ignore[arg-type]
    try:
        page = context.new_page()
        with contextlib.suppress(Error):  # a browser without anybody to ask may call it an invalid answer
            page.goto(locked.url)
        expect(page.locator("form, #state")).to_have_count(0)
        expect(page.locator("html")).not_to_contain_text(OPTIONS.served_model_names[0])
    finally:
        context.close()


def test_a_key_that_was_replaced_is_said_and_the_page_asks_for_no_password_by_itself(browser: Browser, locked: Site) -> None:
    with tab(browser, locked.url, quiet=False, http_credentials={"username": "a", "password": KEY}) as found:
        locked.service.keys = ("new",)
        found.rerank("q", "a")
        expect(found.page.locator("#outcome")).to_contain_text("The key is not taken any more")
        expect(found.page.locator("#lost")).to_contain_text("The key is not taken any more")


def test_an_address_with_the_key_in_it_works_too(browser: Browser, locked: Site) -> None:
    with tab(browser, locked.url.replace("://", f"://any:{KEY}@"), quiet=False) as found:
        found.rerank("q", "a q")
        expect(found.page.locator("#outcome")).to_contain_text("1 of 1")


def test_another_sites_page_can_neither_frame_it_nor_rerank_through_it(browser: Browser, locked: Site, open_site: Site) -> None:
    """`open_site` is the other one: another port is another origin."""
    with tab(browser, open_site.url, quiet=False, http_credentials={"username": "a", "password": KEY}) as found:
        found.page.goto(locked.url)  # the browser knows the key from here on
        found.page.goto(open_site.url + "health")
        tried = found.page.evaluate(
            """async (url) => {
              const ask = (headers, type) => fetch(url + "v1/rerank", { method: "POST", credentials: "include", mode: type ? "no-cors" : "cors", headers,
                body: '{"query": "q", "documents": ["a"]}' }).then((answer) => answer.type, () => "failed");
              return [await ask({ "X-Rerank-Page": "1", "Content-Type": "application/json" }), await ask({ "Content-Type": "text/plain" }, "simple")];
            }""",
            locked.url,
        )
        assert tried == ["failed", "opaque"]
        assert not locked.service.recent.entries, "neither was let in"


# -- what it shows


def test_an_unhealthy_service_says_so_and_why(browser: Browser, open_site: Site) -> None:
    open_site.service.vitals.reason = "The golden pair <b>x</b> scored 0.9."
    with tab(browser, open_site.url) as found:
        expect(found.page.locator("#state")).to_have_text("Unhealthy")
        expect(found.page.locator("#reason")).to_have_text("The golden pair <b>x</b> scored 0.9.")


def test_health_model_format_speed_and_advice_are_in_words(browser: Browser, open_site: Site) -> None:
    no_model(open_site)
    open_site.service.vitals.skipped = ()
    with tab(browser, open_site.url) as found:
        expect(found.page.locator("#state")).to_have_text("Healthy")
        expect(found.page.locator("#reason")).to_contain_text("The scores are right")
        expect(found.page.locator(".facts dd")).to_have_text(["qwen3-reranker-0.6b", "bfloat16", "300 tokens/s", "10 s", "0"])
        expect(found.page.locator("#mock")).to_be_hidden()
        expect(found.page.locator("#advice dd").nth(0)).to_have_text(
            re.compile(r"The first \d+ are scored, on their first 192 tokens; the other \d+ get no")
        )
        expect(found.page.locator("#advice dd").nth(1)).to_contain_text("Nothing is cut with top_k")
        expect(found.page.locator("#advice")).to_contain_text("OpenAI-API-Compatible")


def test_the_mock_says_that_it_is_one(browser: Browser, open_site: Site) -> None:
    with tab(browser, open_site.url) as found:
        expect(found.page.locator("#mock")).to_be_visible()
        expect(found.page.locator("#model")).to_contain_text("no model")


def test_calls_stand_in_the_table_and_in_the_plots_newest_first(browser: Browser, open_site: Site) -> None:
    said: dict[str, Any] = {"kind": "rerank", "caller": "cohere", "deadline": 10.0, "cached": 0, "tokens": 9, "speed": 300.0}
    now = time.time()
    open_site.service.recent.entries.extend([
        Entry(at=now - 30, status=200, seconds=9.876, documents=66, scored=20, cut=15, kept=192, unscored=46, **said),
        Entry(at=now - 20, status=503, seconds=10.0, why="busy", kind="rerank", caller=""),
        Entry(at=now - 10, status=499, seconds=3.0, kind="score", caller="curl"),
    ])  # fmt: skip
    with tab(browser, open_site.url) as found:
        rows = found.page.locator("#calls tbody tr")
        expect(rows).to_have_count(3)
        assert [cell.strip() for cell in rows.nth(2).locator("td").all_text_contents()][1:] == [
            "Cohere's client (RAGFlow: VLLM, Cohere)", "66", "20", "15", "192", "9.88", "200",
        ]  # fmt: skip
        expect(rows.nth(1)).to_contain_text("503 busy")
        expect(rows.nth(0)).to_contain_text("499 caller hung up")
        assert {one: found.page.locator(f"#columns rect.{one}").count() for one in ("whole", "cut", "unscored", "failed")} == {
            "whole": 1, "cut": 1, "unscored": 1, "failed": 2,
        }  # fmt: skip
        heights = [float(found.page.locator(f"#columns rect.{one}").get_attribute("height") or 0) for one in ("whole", "cut", "unscored")]
        assert heights == [pytest.approx(100 * part / 66) for part in (5, 15, 46)]


def test_many_calls_are_shown_in_part_until_all_are_asked_for(browser: Browser, open_site: Site) -> None:
    for number in range(200):
        open_site.service.recent.failed("rerank", "curl", 503, "busy", number)
    with tab(browser, open_site.url) as found:
        rows = found.page.locator("#calls tbody tr")
        expect(rows).to_have_count(15)
        found.page.click("#more")
        expect(rows).to_have_count(120)
        expect(found.page.locator("#more")).to_have_text("Show fewer")


# -- for whom


@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
def test_on_a_phone_nothing_is_wider_than_the_screen(browser: Browser, open_site: Site, locale: str) -> None:
    no_model(open_site)
    for number in range(30):
        open_site.service.recent.failed("texts", "requests", 503, "deadline", number)
    open_site.service.vitals.skipped = ("Whether qwen3-reranker-with-a-long-name/of-an-owner scores relevant documents high: " + "x" * 300,)
    with tab(browser, open_site.url, viewport=PHONE, locale=locale, is_mobile=True, has_touch=True) as found:
        found.rerank("W" * 500, "M" * 700 + "\nb")
        expect(found.page.locator("#results li")).to_have_count(2)
        assert found.fits()
        small = [box for button in found.page.locator("button:visible").all() if (box := button.bounding_box()) and box["height"] < 40]
        assert not small, "a finger finds each button"


RATIO = """() => {
  const light = (color) => { const [r, g, b] = color.match(/[0-9.]+/g).map((part) => { const s = part / 255; return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (one) => { for (; one; one = one.parentElement) { const found = getComputedStyle(one).backgroundColor; if (!/, 0\\)$/.test(found)) return found; } };
  return [...document.querySelectorAll("h1, h2, p, dt, dd, th, td, li, button, label, textarea, .state")].filter((one) => one.textContent.trim() && one.offsetParent)
    .map((one) => { const [a, b] = [light(getComputedStyle(one).color), light(ground(one))].sort((x, y) => y - x); return [(a + 0.05) / (b + 0.05), one.outerHTML.slice(0, 80)]; })
    .filter(([ratio]) => ratio < 4.5);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_in_light_and_in_dark(browser: Browser, open_site: Site, scheme: str) -> None:
    open_site.service.recent.failed("rerank", "curl", 503, "busy", 1.0)
    for reason in ("", "The engine has failed."):
        open_site.service.vitals.reason = reason
        with tab(browser, open_site.url, color_scheme=scheme) as found:
            found.rerank("q", "q")
            ground = found.page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 200) == (scheme == "dark")
            assert found.page.evaluate(RATIO) == []


def test_everything_can_be_done_by_the_keyboard_and_is_seen_to_have_the_focus(browser: Browser, open_site: Site) -> None:
    with tab(browser, open_site.url) as found:
        page, visited = found.page, []
        for _ in range(7):
            page.keyboard.press("Tab")
            visited.append(page.evaluate("document.activeElement.id || document.activeElement.type || document.activeElement.className"))
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle !== 'none' || document.activeElement.className === 'skip'")
            if visited[-1] == "query":
                page.keyboard.type("capital of China")
            if visited[-1] == "documents":
                page.keyboard.type("Apples\nThe capital of China")
        assert visited == ["skip", "language", "query", "documents", "seconds", "submit", "example"]
        page.focus("#documents")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#results .text").first).to_have_text("The capital of China")
        assert page.locator("#outcome").get_attribute("role") == "status"
        unnamed = page.evaluate(
            "[...document.querySelectorAll('textarea, input')].filter((one) => !one.labels.length || !one.labels[0].textContent).length"
        )
        assert unnamed == 0


def test_the_browsers_language_is_taken_and_the_switch_is_remembered(browser: Browser, open_site: Site) -> None:
    with tab(browser, open_site.url, locale="zh-TW") as found:
        page = found.page
        expect(page.locator("#state")).to_have_text("健康")
        assert page.evaluate("document.documentElement.lang") == "zh-CN"
        page.click("#example")
        page.click("#form [type=submit]")
        expect(page.locator("#outcome")).to_contain_text("4 个文档中有 4 个得到评分")
        page.click("#language")
        expect(page.locator("#outcome")).to_contain_text("4 of 4 documents scored")
        page.reload()
        expect(page.locator("#state")).to_have_text("Healthy")
    with tab(browser, open_site.url, locale="fr-FR") as found:
        expect(found.page.locator("#state")).to_have_text("Healthy")


def test_every_text_is_there_in_both_languages_and_none_is_left_over(browser: Browser, open_site: Site) -> None:
    with tab(browser, open_site.url) as found:
        texts = found.page.evaluate("import('/page/texts.js').then((found) => found.TEXTS)")
        english, chinese = texts["en"], texts["zh"]
        assert list(english) == list(chinese)
        for name, text in english.items():
            if isinstance(text, dict):
                assert list(text) == list(chinese[name])
            else:
                assert text
                assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", chinese[name])), name
        used = "".join((ROOT / "serving/web/page" / name).read_text(encoding="utf-8") for name in ("page.js", "index.html"))
        states = {"healthy", "starting", "unhealthy"}
        assert [name for name in english if name not in states and not re.search(rf'["\.]{name}\b', used)] == []


def verdicts() -> list[str]:
    """What the golden set's judge says of wrong scores of every kind, and of what it left out."""
    right = [0.9 if pair.relevant else 0.01 for pair in golden.PAIRS]
    slug = "qwen3-reranker-0.6b"
    wrong = [right[:-1], [float("nan"), *right[1:]], [0.5] * len(right), [*right[:-1], 0.3], [1 - score for score in right]]
    return [golden.judge(slug, scores).reason for scores in wrong] + list(golden.judge("other", right).skipped)


def test_what_health_says_is_told_in_chinese_with_the_original_beneath(browser: Browser, open_site: Site) -> None:
    vitals = open_site.service.vitals
    written = re.findall(r'"(The [^"]+)"', (ROOT / "serving/health/vitals.py").read_text(encoding="utf-8"))
    sentences = [re.sub(r"\{[^}]*\}", "7", sentence) for sentence in written] + verdicts()
    assert len(sentences) >= 11
    assert all(sentences)
    with tab(browser, open_site.url, locale="zh-CN") as found:
        unknown = found.page.evaluate(
            "sentences => import('/page/texts.js').then(({ REASONS }) => sentences.filter((one) => REASONS.filter(([known]) => known.test(one)).length !== 1))",
            sentences,
        )
        assert unknown == []
        vitals.reason = "The engine has failed at everything for 31 s; the log has its errors: restart the container if it does not recover."
        found.page.reload()
        expect(found.page.locator("#reason")).to_have_text("引擎在 31 秒内对所有请求都失败；错误见日志：如不恢复请重启容器。")
        expect(found.page.locator("#original")).to_have_text(vitals.reason)
