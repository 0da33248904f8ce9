"use strict";

// Tables: a click on a heading sorts by its column, a second click reverses the order.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const numeric = head.classList.contains("number");
      const up = now ? now === "descending" : !numeric;
      heads.forEach(h => h.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const rows = [...body.rows];
      rows.sort((a, b) => {
        const x = key(a), y = key(b);
        if (x === "" || y === "") return (x === "") - (y === "");
        const order = numeric ? Number(x) - Number(y) : x.localeCompare(y);
        return up ? order : -order;
      });
      body.append(...rows);
    });
  });
}

// The explorer. Texts come from anyone: they only ever become text nodes.
const explorer = document.getElementById("explorer");
if (explorer) {
  const data = JSON.parse(document.getElementById("explorer-data").textContent);
  const find = name => explorer.querySelector(`[data-part="${name}"]`);
  const [filter, first, second, order] = ["filter", "first", "second", "order"].map(find);
  const [list, count, detail] = ["list", "count", "detail"].map(find);
  const documentOf = place => {
    const [id, title, snippet] = data.documents[place];
    return { id, title, snippet };
  };
  const make = (tag, kind, ...inside) => {
    const element = document.createElement(tag);
    if (kind) element.className = kind;
    element.append(...inside);
    return element;
  };
  const signed = value => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(3);
  const difference = query => query.values[first.value] - query.values[second.value];
  const keys = data.queries.map(query => `${query.text} ${query.id}`.toLowerCase());
  let shown = [], chosen = null;

  for (const select of [first, second]) {
    data.systems.forEach((name, place) => {
      const option = make("option", "", name);
      option.value = place;
      select.append(option);
    });
  }
  [first.value, second.value] = data.pair;

  function refresh() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = data.queries.map((_, i) => i).filter(i => words.every(w => keys[i].includes(w)));
    const by = {
      won: i => -difference(data.queries[i]),
      lost: i => difference(data.queries[i]),
      apart: i => -Math.abs(difference(data.queries[i])),
      worst: i => data.queries[i].values[first.value],
      given: i => i,
    }[order.value];
    shown = found.sort((a, b) => by(a) - by(b) || a - b);
    list.replaceChildren(...shown.map(option));
    count.textContent = `${shown.length} of ${data.queries.length} queries`;
    choose(shown.includes(chosen) ? chosen : shown[0] ?? null, false);
  }

  function option(i) {
    const query = data.queries[i], gap = difference(query);
    const side = gap > 1e-9 ? "won" : gap < -1e-9 ? "lost" : "same";
    const text = make("span", "text", query.text || query.id);
    text.dir = "auto";
    const value = make("span", `gap ${side}`, side === "same" ? "0" : signed(gap));
    const item = make("li", "", value, text);
    item.id = `query-${i}`;
    item.setAttribute("role", "option");
    item.addEventListener("click", () => choose(i, true));
    return item;
  }

  function choose(i, byUser) {
    chosen = i;
    list.querySelector("[aria-selected]")?.removeAttribute("aria-selected");
    list.removeAttribute("aria-activedescendant");
    if (i === null) return detail.replaceChildren(make("p", "meta", "No query has these words."));
    const item = document.getElementById(`query-${i}`);
    item.setAttribute("aria-selected", "true");
    list.setAttribute("aria-activedescendant", item.id);
    const top = item.offsetTop, bottom = top + item.offsetHeight;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
    show(data.queries[i]);
    if (byUser) history.replaceState(null, "", `#query=${encodeURIComponent(data.queries[i].id)}`);
  }

  function show(query) {
    const gains = new Map(query.judged);
    const title = make("h3", "query", query.text || query.id);
    title.dir = "auto";
    const judged = query.judged.filter(([, gain]) => gain > 0);
    const wanted = make("div", "judged", make("h4", "", `Judged relevant (${judged.length})`));
    const rows = make("ul", "plain");
    for (const [place, gain] of judged) {
      const { id, title, snippet } = documentOf(place);
      const ranks = data.systems
        .map((name, s) => [name, query.top[s].findIndex(([p]) => p === place) + 1])
        .filter(([, rank]) => rank);
      const who = ranks.map(([name, rank]) => `${name} ${rank}`).join(", ");
      rows.append(make("li", "", make("bdi", "title", title || snippet || id), make("span", "meta",
        ` gain ${gain} · ${who ? `ranked by ${who}` : "in no list below"} · `, make("bdi", "", id))));
    }
    wanted.append(rows);
    const compared = [...new Set([Number(first.value), Number(second.value)])];
    const places = data.systems.map((_, s) => s).filter(s => !compared.includes(s));
    const systems = make("div", "systems", ...[...compared, ...places].map(s => {
      const name = data.systems[s];
      const head = make("h4", "", make("span", "", name), make("span", "value",
        query.values[s].toFixed(3)));
      const answers = make("ol", "", ...query.top[s].map(([place, score]) =>
        answer(documentOf(place), gains.get(place), score)));
      const mark = compared.includes(s) ? " compared" : "";
      return make("div", `returned${mark}`, head,
        query.top[s].length ? answers : make("p", "meta", "returned nothing"));
    }));
    detail.replaceChildren(title, make("p", "meta", "query ", make("bdi", "", query.id)), wanted,
      systems);
  }

  function answer({ id, title, snippet }, gain, score) {
    const name = make("p", "title", make("bdi", "", title || snippet || id));
    const text = make("p", "snippet", title ? snippet : "");
    text.dir = "auto";
    const judgment = gain > 0 ? make("strong", "", `relevant, gain ${gain}`)
      : gain === undefined ? "not judged" : "judged not relevant";
    const meta = make("p", "meta", judgment, ` · ${String(score).replace("-", "−")} · `,
      make("bdi", "", id));
    return make("li", gain > 0 ? "relevant" : "", name, text, meta);
  }

  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -1e9, End: 1e9 };
  list.addEventListener("keydown", event => {
    if (!(event.key in steps) || !shown.length) return;
    event.preventDefault();
    const to = Math.max(0, Math.min(shown.length - 1, shown.indexOf(chosen) + steps[event.key]));
    choose(shown[to], true);
  });
  function follow() {
    const wanted = /^#query=(.*)$/.exec(location.hash);
    if (!wanted) return;
    let id = wanted[1];
    try { id = decodeURIComponent(id); } catch { /* not encoded */ }
    const i = data.queries.findIndex(query => query.id === id);
    if (i < 0) return;
    if (!shown.includes(i)) {
      filter.value = "";
      refresh();
    }
    choose(i, false);
    explorer.scrollIntoView();
  }
  for (const select of [first, second]) select.addEventListener("change", refresh);
  order.addEventListener("change", () => {
    chosen = null; // so that the first query of the new order is chosen
    refresh();
  });
  filter.addEventListener("input", refresh);
  window.addEventListener("hashchange", follow);
  explorer.hidden = false;
  refresh();
  follow();
}
