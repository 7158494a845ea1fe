import { REASONS, TEXTS } from "./texts.js";

const EVERY_MS = 5000;
const PATIENCE_MS = 10000;
const ROWS = matchMedia("(max-width: 40rem)").matches ? 6 : 15; // calls shown at first
const LONGEST = 600; // characters of a document in the results
const STORED = "reranker.language";
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);
// Not relative to the document's own address, which may have a password in it.
const at = (path) => new URL(path, location.origin + location.pathname).href;

let language = chosen();
let shown = null; // the service's last news
let heard = null; // and when they came
let lost = false;
let all = false; // whether every call stands in the table
let outcome = () => ""; // the sentence about the last try, in the language of the moment
let results = null;
let asking = null;

// -- words

function chosen() {
  try {
    const kept = localStorage.getItem(STORED);
    if (kept in TEXTS) return kept;
  } catch { /* a browser may keep nothing */ }
  for (const wish of navigator.languages ?? []) {
    const plain = wish.slice(0, 2).toLowerCase();
    if (plain in TEXTS) return plain;
  }
  return "en";
}

function say(name, values = {}) {
  return TEXTS[language][name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
}

function number(value, digits = 0) {
  return new Intl.NumberFormat(language, { maximumFractionDigits: digits, minimumFractionDigits: digits }).format(value);
}

function clock(seconds) {
  const date = new Date(seconds * 1000);
  const today = date.toDateString() === new Date().toDateString();
  return date.toLocaleString(language, { ...(today ? {} : { month: "numeric", day: "numeric" }), hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
}

function words() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  document.title = say("title");
  for (const one of document.querySelectorAll("[data-text]")) put(one, say(one.dataset.text));
  put($("language"), say("other"));
  $("language").lang = language === "zh" ? "en" : "zh-CN";
}

// -- elements; every text goes in as text

function put(element, text) {
  if (element.textContent !== text) element.textContent = text; // what did not change is not read out again
}

function make(tag, text = "", attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function draw(tag, attributes, title = "") {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (title) element.appendChild(document.createElementNS(SVG, "title")).textContent = title;
  return element;
}

// -- the service as it is

function translated(sentence) {
  if (language === "en") return sentence;
  const [pattern, text] = REASONS.find(([known]) => known.test(sentence)) ?? [];
  return pattern ? sentence.replace(new RegExp(pattern.source + ".*", "s"), text) : sentence;
}

function showHealth() {
  const { status, reason, skipped = [] } = shown.health;
  const state = $("state");
  put(state, say(status));
  state.className = `state ${status}`;
  put($("reason"), reason ? translated(reason) : say(skipped.length ? "answers" : "right"));
  $("original").hidden = !reason || translated(reason) === reason;
  put($("original"), reason ?? "");
  const sentences = skipped.map(translated);
  if (sentences.join() !== [...$("skipped").children].map((one) => one.textContent).join()) $("skipped").replaceChildren(...sentences.map((one) => make("li", one)));
  $("skipped").hidden = !sentences.length;
  const speed = shown.tokens_per_second;
  put($("model"), shown.mock ? say("noModel", { model: shown.model }) : shown.model);
  put($("format"), shown.mock ? "–" : shown.number_format === "auto" ? say("formatAuto") : shown.number_format || say("unknown"));
  put($("speed"), speed === null ? say("unknown") : say("perSecond", { number: number(speed) }));
  put($("deadline"), say("inSeconds", { number: number(shown.deadline_seconds) }));
  put($("answering"), number(shown.answering));
}

function showAdvice() {
  const fit = shown.fit;
  $("mock").hidden = !shown.mock;
  const rows = [
    [say("factory"), say("factoryAdvice")],
    [say("threshold"), say("thresholdAdvice")],
  ];
  if (shown.tokens_per_second === null) {
    rows.unshift([say("topK"), say("noSpeed")]);
  } else {
    const call = fit.scored === 0 ? "noneScored" : fit.scored < fit.documents ? "someScored" : fit.kept < fit.chunk_tokens ? "allCut" : "allWhole";
    const ways = fit.top_k.map(([count, chunk]) => say("oneWay", { count, chunk }));
    if (fit.chunk) ways.push(say("anyWay", { chunk: fit.chunk }));
    const advice = fit.whole
      ? say("asTheyAre")
      : ways.length
        ? say("nothingCut", { ways: ways.join(say("or")) })
        : say("tooSlow", { page: fit.page, chunk: fit.half_chunk_tokens });
    rows.unshift(
      [say("defaultCall", { documents: fit.documents, tokens: fit.chunk_tokens }), say(call, { scored: fit.scored, kept: fit.kept, rest: fit.documents - fit.scored })],
      [say("topK"), advice],
    );
  }
  $("advice").replaceChildren(
    ...rows.map(([name, text]) => {
      const row = make("div");
      row.append(make("dt", name), make("dd", text));
      return row;
    }),
  );
}

function parts(call) {
  return { whole: call.scored - call.cut, cut: call.cut, unscored: call.unscored };
}

function told(call) {
  const end = call.status === 200 ? "" : call.status === 499 ? say("hungUp") : TEXTS[language].whys[call.why] ?? "";
  return call.status === 200 ? "200" : `${call.status} ${end}`.trim();
}

function showPlots() {
  const calls = shown.calls;
  $("none").hidden = calls.length > 0;
  $("plots").hidden = !calls.length;
  if (!calls.length) return;
  const width = 1000 / Math.max(calls.length, 24);
  const speeds = calls.map((call) => call.speed);
  const most = Math.max(1, ...speeds.filter((speed) => speed !== null)) * 1.1;
  const points = speeds.flatMap((speed, place) => (speed === null ? [] : [[(place + 0.5) * width, 100 - (100 * speed) / most]]));
  const flat = points.length === 1 ? [[points[0][0] - width / 2, points[0][1]], [points[0][0] + width / 2, points[0][1]]] : points;
  $("line").replaceChildren(draw("polyline", { points: flat.map((point) => point.join()).join(" ") }));
  const columns = calls.flatMap((call, place) => {
    const title = `${clock(call.at)} · ${told(call)}`;
    const box = (name, from, height, more) => draw("rect", { class: name, x: place * width + width * 0.1, y: 100 - from - height, width: width * 0.8, height }, `${title} · ${more}`);
    if (call.status !== 200) return [box("failed", 0, 100, say("failed"))];
    let from = 0;
    return Object.entries(parts(call)).flatMap(([name, count]) => {
      const height = call.documents ? (100 * count) / call.documents : 0;
      from += height;
      return height ? [box(name, from - height, height, `${say(name)}: ${count}`)] : [];
    });
  });
  $("columns").replaceChildren(...columns);
  const span = { number: number(calls.length), first: clock(calls[0].at), last: clock(calls.at(-1).at) };
  for (const [id, name] of [["line", "plotSpeed"], ["columns", "plotDocuments"]]) $(id).setAttribute("aria-label", `${say(name)}: ${say("plotLabel", span)}`);
  put($("most"), points.length ? say("most", { number: number(most / 1.1) }) : "");
  put($("first"), span.first);
  put($("last"), calls.length > 1 ? span.last : "");
}

function showCalls() {
  const calls = [...shown.calls].reverse();
  $("calls").hidden = !calls.length;
  $("more").hidden = calls.length <= ROWS;
  put($("more"), all ? say("showFewer") : say("showAll", { number: calls.length }));
  const names = ["time", "caller", "count", "scored", "cutCount", "kept", "took", "status"];
  const none = (value) => (value === null ? "–" : number(value));
  const rows = (all ? calls : calls.slice(0, ROWS)).map((call) => {
    const kind = TEXTS[language].kinds[call.kind];
    const who = TEXTS[language].callers[call.caller];
    const values = [
      clock(call.at), kind ? `${who} · ${kind}` : who, none(call.documents), none(call.scored), none(call.cut), none(call.kept), number(call.seconds, 2), told(call),
    ];
    const row = make("tr");
    row.append(...values.map((value, place) => make("td", value, { "data-name": say(names[place]) })));
    if (call.status !== 200) row.lastChild.className = "bad";
    return row;
  });
  $("calls").tBodies[0].replaceChildren(...rows);
}

function show() {
  if (!shown) return;
  showHealth();
  showAdvice();
  showPlots();
  showCalls();
  if (!$("seconds").value) $("seconds").value = shown.deadline_seconds;
}

function showLost() {
  $("lost").hidden = !lost;
  put($("lost"), lost === "key" ? say("keyRefused") : lost ? (heard ? say("lost", { time: clock(heard / 1000) }) : say("noAnswer")) : "");
}

async function news() {
  try {
    const answer = await fetch(at("page/data"), { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    lost = answer.status === 403 ? "key" : !answer.ok;
    if (answer.ok) {
      const fresh = await answer.json();
      const changed = JSON.stringify(fresh) !== JSON.stringify(shown);
      shown = fresh;
      heard = Date.now();
      if (changed) show();
    }
  } catch {
    lost = true;
  }
  showLost();
}

async function follow() {
  for (;;) {
    if (!document.hidden) await news();
    await new Promise((done) => setTimeout(done, EVERY_MS));
  }
}

// -- a try

function places(header) {
  const found = new Set();
  for (const part of (header ?? "").split(",")) {
    const [from, to = from] = part.split("-").map(Number);
    for (let place = from; place <= to; place += 1) found.add(place);
  }
  if (!header) found.clear();
  return found;
}

function wellFormed(text) {
  return text.toWellFormed ? text.toWellFormed() : text;
}

function showResults() {
  put($("outcome"), outcome());
  if (!results) return $("results").replaceChildren();
  const lines = results.items.map(({ index, relevance_score: score }) => {
    const text = results.documents[index];
    const guess = results.unscored.has(index);
    const line = make("li", "", guess ? { class: "guess" } : {});
    const head = make("div", "", { class: "head" });
    const bar = make("div", "", { class: "bar", "aria-hidden": "true" });
    const filled = bar.appendChild(make("span"));
    filled.style.width = `${Math.min(1, Math.max(0, score)) * 100}%`;
    head.append(make("span", number(score, 3), { class: "score" }), bar);
    const marks = [guess ? say("wasUnscored") : "", results.cut.has(index) ? say("wasCut") : ""].filter(Boolean).join(", ");
    if (marks) head.append(make("span", marks, { class: "quiet" }));
    const seen = [...text.slice(0, LONGEST * 2)].slice(0, LONGEST).join("");
    line.append(head, make("p", text ? (seen.length < text.length ? `${seen}…` : text) : say("empty"), { class: "text", dir: "auto" }));
    return line;
  });
  $("results").replaceChildren(...lines);
}

function finish(sentence, found = null) {
  outcome = sentence;
  results = found;
  showResults();
}

async function send(event) {
  event.preventDefault();
  const query = wellFormed($("query").value);
  const documents = wellFormed($("documents").value).split(/\r?\n/).filter((line) => line.trim());
  const limit = shown?.max_documents;
  asking?.abort();
  if (!documents.length) return finish(() => say("noDocuments"));
  if (limit && documents.length > limit) return finish(() => say("tooMany", { number: number(documents.length), limit: number(limit) }));
  const seconds = Number($("seconds").value);
  const mine = (asking = new AbortController());
  const begun = performance.now();
  finish(() => say("working"));
  const timer = setTimeout(() => mine.abort("late"), seconds * 1000 + PATIENCE_MS);
  try {
    const answer = await fetch(at("v1/rerank"), {
      method: "POST",
      signal: mine.signal,
      headers: { "Content-Type": "application/json", "X-Rerank-Page": "1", "X-Rerank-Deadline-Seconds": seconds.toFixed(3) },
      body: JSON.stringify({ query, documents, return_documents: false }),
    });
    const body = await answer.json().catch(() => null);
    if (mine.signal.aborted) throw mine.signal.reason;
    if (answer.ok && Array.isArray(body?.results)) {
      const header = (name) => answer.headers.get(`x-rerank-${name}`);
      const [cut, unscored] = [places(header("cut")), places(header("unscored"))];
      const took = (performance.now() - begun) / 1000;
      const scored = Number(header("scored"));
      finish(
        () =>
          [
            say("done", { scored: number(scored), documents: number(documents.length), seconds: number(took, 2) }),
            cut.size ? say("doneCut", { number: number(cut.size), kept: header("kept-tokens") }) : "",
            header("query-kept-tokens") ? say("doneQuery", { kept: header("query-kept-tokens") }) : "",
            unscored.size ? say("doneUnscored", { number: number(unscored.size) }) : "",
            header("unhealthy") ? say("doneUnhealthy") : "",
          ].filter(Boolean).join(" "),
        { items: body.results, documents, cut, unscored },
      );
    } else if (answer.status === 403) {
      finish(() => say("keyRefused"));
    } else if (body?.error?.message) {
      finish(() => say("refused", { status: answer.status, message: body.error.message }));
    } else {
      finish(() => say("noJson"));
    }
  } catch (error) {
    if (error === "late" || mine.signal.reason === "late") finish(() => say("tooLate"));
    else if (!mine.signal.aborted) finish(() => say("noAnswer"));
  } finally {
    clearTimeout(timer);
  }
  await news();
}

// -- begin

$("form").addEventListener("submit", send);
$("form").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit();
});
$("example").addEventListener("click", () => {
  $("query").value = say("exampleQuery");
  $("documents").value = say("exampleDocuments");
});
$("more").addEventListener("click", () => {
  all = !all;
  showCalls();
});
$("language").addEventListener("click", () => {
  language = language === "zh" ? "en" : "zh";
  try {
    localStorage.setItem(STORED, language);
  } catch { /* then for this visit */ }
  words();
  show();
  showLost();
  showResults();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) news();
});
words();
follow();
