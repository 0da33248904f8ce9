"use strict";
// The search page. Texts come from anyone: they only ever become text nodes.

const DEFAULT_K = "10";
const at = id => document.getElementById(id);
const [form, query, k, prefix, highlight, rerank] =
  ["form", "query", "k", "prefix", "highlight", "rerank"].map(at);
let about = null, chosen = null, running = null;

function make(tag, kind, ...inside) {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  element.append(...inside);
  return element;
}

function say(text, wrong = false) {
  at("status").textContent = text;
  at("status").classList.toggle("wrong", wrong);
}

const number = value => value.toLocaleString("en");
const milliseconds = value => `${value < 10 ? value.toFixed(1) : number(Math.round(value))} ms`;

function score(value) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  const digits = size >= 100 ? 1 : size >= 1 ? 2 : size >= 0.1 ? 3 : 4;
  return value.toFixed(digits).replace("-", "−");
}

async function ask(path, options) {
  const response = await fetch(path, options);
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  throw Object.assign(new Error(body.detail || `the server answered ${response.status}`),
    { status: response.status });
}

async function start() {
  for (;;) {
    try {
      about = await ask("/api/about");
      break;
    } catch (error) {
      say(error.status === 503 ? "Loading the models …" : `No answer: ${error.message}`,
        error.status !== 503);
      await new Promise(resolve => setTimeout(resolve, 1000));
    }
  }
  say("");
  document.title = `Search ${about.collection}`;
  at("name").textContent = about.collection;
  at("about").textContent =
    `${number(about.documents)} documents, ${about.systems.length} systems side by side`;
  query.maxLength = about.longest_query;
  prefix.maxLength = about.longest_prefix;
  if (about.teacher !== null) {
    at("teacher").textContent = `Re-rank the first ${about.rerank} with ${about.teacher}`;
    at("teaching").hidden = false;
  }
  chosen = about.systems[0].name;
  follow();
}

// The address holds the search, so that it can be kept, sent and gone back to.
function follow() {
  const asked = new URLSearchParams(location.search);
  query.value = asked.get("q") ?? "";
  prefix.value = asked.get("prefix") ?? "";
  const known = [...k.options].some(option => option.value === asked.get("k"));
  k.value = known ? asked.get("k") : DEFAULT_K;
  rerank.checked = asked.get("rerank") === "1" && about.teacher !== null;
  if (query.value.trim()) return search();
  running?.abort();
  running = null;
  at("lists").replaceChildren();
  at("lists").classList.remove("old");
  at("tabs").replaceChildren();
  say("");
  query.focus();
}

function remember() {
  const asked = new URLSearchParams({ q: query.value });
  if (k.value !== DEFAULT_K) asked.set("k", k.value);
  if (prefix.value) asked.set("prefix", prefix.value);
  if (rerank.checked) asked.set("rerank", "1");
  if (`?${asked}` !== location.search) history.pushState(null, "", `?${asked}`);
}

async function search() {
  running?.abort();
  const mine = running = new AbortController();
  at("lists").classList.add("old");
  say("Searching …");
  const begun = performance.now();
  const asked = {
    query: query.value, k: Number(k.value), prefix: prefix.value, rerank: rerank.checked,
    highlight: highlight.checked,
  };
  try {
    const found = await ask("/api/search", {
      method: "POST", body: JSON.stringify(asked), signal: mine.signal,
      headers: { "Content-Type": "application/json" },
    });
    if (mine === running) show(found, performance.now() - begun);
  } catch (error) {
    if (mine === running) say(error.message, true);  // not a search that was aborted
  } finally {
    if (mine === running) at("lists").classList.remove("old");
  }
}

function show(found, waited) {
  const parts = [`answered in ${milliseconds(waited)}`];
  if (found.reranked) parts.push(`${milliseconds(found.teacher_ms)} of them the teacher on ` +
    `${found.reranked} documents`);
  if (highlight.checked && found.marks_ms >= 1) parts.push(`${milliseconds(found.marks_ms)} marking`);
  say(parts.join(", "));
  const ranks = new Map();
  for (const list of found.lists)
    for (const hit of list.hits)
      ranks.set(hit.id, [...(ranks.get(hit.id) ?? []), [list.system, hit.rank]]);
  at("lists").replaceChildren(...found.lists.map(list => column(list, ranks)));
  at("tabs").replaceChildren(...found.lists.map(list => {
    const button = make("button", "", list.system);
    button.type = "button";
    button.addEventListener("click", () => choose(list.system));
    return button;
  }));
  choose(found.lists.some(list => list.system === chosen) ? chosen : found.lists[0].system);
}

function choose(name) {
  chosen = name;
  for (const list of at("lists").children)
    list.classList.toggle("chosen", list.dataset.system === name);
  for (const button of at("tabs").children)
    button.setAttribute("aria-pressed", button.textContent === name);
}

function column(list, ranks) {
  const system = about.systems.find(one => one.name === list.system);
  const time = make("span", "time", milliseconds(list.encode_ms + list.search_ms));
  time.title = `encoding ${milliseconds(list.encode_ms)}, search ${milliseconds(list.search_ms)}`;
  const head = make("h2", "", make("bdi", "", list.system), time);
  const rows = make("ol", "", ...list.hits.map(hit => row(hit, list.system, ranks.get(hit.id))));
  const section = make("section", "list", head, make("p", "what", system?.about ?? ""), rows);
  if (!list.hits.length && list.complete) section.append(make("p", "what", "Nothing was found."));
  if (!list.complete) section.append(make("p", "what",
    "Documents with this prefix may be missing: not all documents were looked through."));
  section.dataset.system = list.system;
  return section;
}

function row(hit, system, ranks) {
  const title = marked(make("h3"), hit.title_marks, hit.title || hit.id);
  const text = marked(make("p"), hit.text_marks, hit.text);
  const others = ranks.filter(([name]) => name !== system);
  const meta = make("p", "meta", score(hit.score));
  if (hit.teacher !== null) meta.append(" · ", make("strong", "", `teacher ${score(hit.teacher)}`),
    hit.rank === hit.rank_before ? "" : `, was ${hit.rank_before}`);
  meta.append(" · ", make("bdi", "", hit.id));
  if (others.length) meta.append(" · ", others.map(([name, rank]) => `${name}\u00a0${rank}`).join(", "));
  const body = make("div", "", title, text, meta);
  if (hit.words.length) {
    const words = hit.words.map(({ word, score: part }) => `${word} ${score(part)}`).join(", ");
    body.append(make("p", "words", `by ${words}`));
  }
  const item = make("li", "hit", make("span", "rank", String(hit.rank)), body);
  item.dataset.id = hit.id;
  for (const [event, on] of [["mouseenter", true], ["mouseleave", false]])
    item.addEventListener(event, () => {
      for (const other of document.querySelectorAll(".hit"))
        other.classList.toggle("same", on && other.dataset.id === hit.id);
    });
  return item;
}

function marked(element, pieces, plain) {
  element.dir = "auto";
  if (!pieces.length) element.append(plain);
  for (const { text, weight } of pieces)
    element.append(weight > 0 ? make("mark", `m${Math.ceil(Math.min(weight, 1) * 4)}`, text) : text);
  return element;
}

form.addEventListener("submit", event => {
  event.preventDefault();
  if (about === null || !query.value.trim()) return;
  remember();
  search();
});
for (const control of [k, highlight, rerank])
  control.addEventListener("change", () => { if (query.value.trim()) form.requestSubmit(); });
window.addEventListener("popstate", follow);
start();
