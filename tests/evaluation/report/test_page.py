"""The report is one safe, self-contained page that says what the data say."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
import yaml

from retrieval_kd.audit.audit import audit
from retrieval_kd.audit.show import audit_summary
from retrieval_kd.data.collection import open_collection
from retrieval_kd.data.runs import Run
from retrieval_kd.errors import InputError
from retrieval_kd.evaluation.diagnostics.diagnose import diagnostics
from retrieval_kd.evaluation.report.data import Explorer, Main, ReportData, SystemRow
from retrieval_kd.evaluation.report.explorer import explorer_from, won_and_lost
from retrieval_kd.evaluation.report.page import csp_hash, render, write_report
from retrieval_kd.evaluation.report.sections import headline
from retrieval_kd.evaluation.report.trade_offs import undominated
from retrieval_kd.metrics.evaluation import Evaluation
from retrieval_kd.metrics.measures import evaluate
from retrieval_kd.metrics.significance import compare
from retrieval_kd.pipeline.results import effect_of

VOID = {"meta", "br", "img", "link", "input", "hr"}
EVIL = [
    "<script>alert(1)</script>",
    "</title></style></script><script>alert(2)</script>",
    '"><img src=x onerror=alert(3)>',
    "' onmouseover='alert(4)",
    "{{ 7 * 7 }}{% raw %}",
    "]]><!-- --><svg onload=alert(5)>",
    "$\\frac{1$ & _^ <b>",
    "\u202egnp.exe\u2066 \x00\x1b[31m\x7f\u2028 \ud83d \ufffe",
    "x" * 100_000,
    "شرح بالعربية\nsecond line\r\n\ttab",
]


class Page(HTMLParser):
    """Elements, attributes and text; fails where tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.ids: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data


class Attributes(HTMLParser):
    """Every attribute of a page, however its tags nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found += attrs


def check_page(text: str) -> Page:
    """What holds for every report: one script, which is ours; no request; no ID twice."""
    page = Page(text)
    text.encode("utf-8")
    data_blocks = page.attributes.count(("type", "application/json"))
    assert page.tags.count("script") == 1 + data_blocks
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    assert script and f"script-src {csp_hash(script[1])}" in text
    assert not re.findall(r"https?://|//[a-z]+\.", text)
    for name, value in page.attributes:
        assert not name.startswith("on"), name
        assert name != "src"
        if name in ("href", "xlink:href"):
            explored = "explorer" in page.ids and value.startswith("#query=")
            assert explored or (value.startswith("#") and value[1:] in page.ids)
    assert not re.search(r"@import|url\((?!#)", text)
    assert len(page.ids) == len(set(page.ids))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    return page


@pytest.fixture(scope="module")
def data(tiny_collection):
    """A small real evaluation: word overlap, and the same with noise, on the tiny collection."""
    collection = open_collection(str(tiny_collection))
    qrels = {
        q: row for split in ("train", "dev", "test") for q, row in collection.qrels(split).items()
    }
    rng = random.Random(3)

    def overlap(noise: float, name: str) -> Run:
        words = {d.id: set(d.full.split()) for d in collection.documents.iterate()}
        asked = {q: set(collection.queries[q].full.split()) for q in qrels}
        return Run(name, {q: {d: len(w & asked[q]) + rng.gauss(0, noise) for d, w in words.items()}
                          for q in qrels})  # fmt: skip

    runs = {"teacher": overlap(0.01, "teacher")}
    for seed in (1, 2):
        runs |= {f"{n}#{seed}": overlap(s, n) for n, s in (("labels", 1.6), ("distilled", 0.5))}
    evaluation = evaluate(qrels, runs).group()
    students = [Run(name, runs[f"{name}#1"].results) for name in ("distilled", "labels")]
    record = diagnostics(collection, qrels, runs["teacher"], students,
                         negatives=runs["teacher"].results)  # fmt: skip
    for student in record["students"].values():
        del student["loyalty"]["per_query"]
        student["points"] = [list(point) for point in student["points"]]
    train, test = f"{tiny_collection}:train", f"{tiny_collection}:test"
    leaks = audit([train], test, only=evaluation.queries)
    effect = effect_of(evaluation, leaks.groups(), ("distilled", "labels"))
    costs = {"teacher": (6, 900.0), "labels": (3, 4.0), "distilled": (3, 4.0)}
    return ReportData(
        title="Tiny",
        subtitle="words in common",
        collection={
            "name": collection.name,
            "documents": len(collection.documents),
            "queries": len(collection.queries),
            "splits": {split: len(collection.qrels(split)) for split in collection.splits},
            "digest": collection.digest(),
            "drops": ["2 × empty document (first: d3)"],
        },
        values=evaluation.to_json(),
        systems=[
            SystemRow(
                name,
                label=name.title(),
                layers=layers,
                latency_ms_p50=latency,
                queries_per_second=1000 / latency,
                index_bytes=1_000_000,
            )
            for name, (layers, latency) in costs.items()
        ],
        comparisons=compare(evaluation),
        curves={
            "labels": [[{"step": s, "loss": 1 / (s + 1), "dev_ndcg@10": None} for s in range(9)]],
            "distilled": [
                [{"step": s, "loss": seed / (s + 1), "dev_ndcg@10": s / 9} for s in range(9)]
                for seed in (1, 2)
            ],
        },
        diagnostics=record,
        audit={**audit_summary(leaks), "effect": effect, "seconds": 1.5},
        explorer=explorer_from(evaluation, runs, qrels, collection, ("distilled", "labels")),
        settings={"student": {"layers": [0, 2, 5], "seed": None}},
        versions={"python": "3.11"},
        hardware={"cores": 2, "gpu": None},
        commands=["rkd run configs/quickstart.yaml"],
        notes=evaluation.warnings,
        rules=evaluation.rules,
        main=Main("distilled", "labels", "teacher"),
    )


def test_the_page_is_whole_safe_and_says_what_the_data_say(data, tmp_path):
    write_report(data, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = check_page(text)
    for sentence in headline(data):
        assert sentence in page.text.replace("\u00a0", " ")
    for row in data.systems:
        assert f"{data.mean(row.name):.3f}" in page.text and row.label in page.text
    headings = re.findall(r"<figure>\s*<h3>(.*?)</h3>", text)
    assert headings == [
        "nDCG@10 of every system",
        "Query by query",
        "Quality and latency",
        "Quality and index size",
        "Learning curves",
        "Reliability",
        "Teacher and Distilled",
        "Teacher and Labels",
    ]
    assert page.tags.count("svg") == len(headings)
    assert page.tags.count("article") == len(cases_of(data)) > 0
    assert "2 × empty document" in page.text
    settings = re.search(r"<pre>(student:.*?)</pre>", text, re.DOTALL)
    assert settings and yaml.safe_load(settings[1]) == data.settings
    assert "rkd run configs/quickstart.yaml" in page.text
    assert '<meta name="viewport"' in text and "prefers-color-scheme: dark" in text
    assert not re.search(r"#(0[1-4]){3}|#a1000\d", text), "a colour that is no variable"


def test_the_headline_states_difference_interval_and_share_kept(data):
    first, second = headline(data)
    c = next(c for c in data.comparisons if {c.a, c.b} == {"distilled", "labels"})
    assert f"{abs(c.difference):.3f} above Labels (95% CI +" in first and "p < .001" in first
    student, teacher = map(data.mean, ("distilled", "teacher"))
    assert f"keeps {student / teacher:.0%} of the nDCG@10 of Teacher" in second
    assert "3 of 6 layers" in second and "225 times the queries per second" in second


@pytest.mark.parametrize("evil", EVIL, ids=range(len(EVIL)))
def test_no_text_can_break_out(evil):
    row, other = SystemRow(evil, evil, evil, evil, latency_ms_p50=3.0), SystemRow("b", layers=1)
    per_query = {"ndcg@10": {evil: 0.5, "q": 0.0}}
    values = Evaluation(
        ["ndcg@10"], {evil: per_query, "b": per_query}, seed_means={evil: {"ndcg@10": [0.4, 0.6]}}
    )
    fit = {"bins": [{"count": 1, "predicted": 0.5, "observed": 0.5}] * 2, "ece": 0.1, "skill": None}
    fidelity = {"k": 10, "mean": {"top_1": 0.5}}
    worst = {"query_id": evil, "query": evil, "teacher": 1.0, "student": 0.0}
    student = {"name": evil, "mean": 0.5, "calibration": fit, "loyalty": fidelity, "worst": [worst],
               "failures": {evil: []}, "points": [[0.1, 0.2, True]] * 3}  # fmt: skip
    pair = {"what": evil, "eval_id": evil, "train": evil, "train_id": evil, "kinds": {evil: 1.0},
            "eval_text": evil, "train_text": evil, "queries": [evil]}  # fmt: skip
    sizes = {"all": 2, "clean": 1, "query": 1, "relevant document": 0}
    entry = {"id": evil, "text": evil, "judged": [[0, 1]], "values": [0.5, 0.1],
             "top": [[[0, -1.5]], []]}  # fmt: skip
    data = ReportData(
        diagnostics={
            "measure": "ndcg@10",
            "queries": 2,
            "teacher": {"name": evil, "mean": 0.5, "calibration": fit},
            "students": {evil: student},
            "negatives": {"unknown": evil},
        },
        audit={
            "queries": sizes,
            "counts": {"query": {"exact": 1}},
            "examples": [pair],
            "trained": [{"queries": 1, "relevant_documents": 1}],
            "settings": {"model": None},
            "not_checked": [evil],
        },
        explorer=Explorer("ndcg@10", [evil, "b"], 2, [(evil, evil, evil)], [entry]),
        digests={evil: evil},
        title=evil,
        subtitle=evil,
        collection={"name": evil, "drops": [evil], "splits": [evil], evil: evil},
        values=values.to_json(),
        systems=[row, other],
        curves={evil: [[{"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan")}]]},
        settings={evil: {evil: [evil]}},
        versions={evil: evil},
        hardware={evil: evil},
        commands=[evil],
        notes=[evil],
        rules=[evil],
        main=Main(evil, "b", "b"),
    )
    text = render(data)
    page = check_page(text)
    assert "img" not in page.tags and "b" not in page.tags
    assert "49" not in re.findall(r"<h1>(.*?)</h1>", text)
    assert len(text) < 400_000


def test_an_almost_empty_report_is_a_page_too():
    page = check_page(render(ReportData("Nothing yet")))
    assert "svg" not in page.tags


def test_data_survive_json(data):
    again = ReportData.from_json(json.loads(json.dumps(data.to_json())))
    assert again == data
    assert render(again) == render(data)
    with pytest.raises(InputError, match="not the data of a report"):
        ReportData.from_json({"title": "x", "colour": "red"})


def cases_of(data):
    return won_and_lost(data.explorer, tuple(map(data.explorer.systems.index, data.main[:2])))


def test_the_queries_won_and_lost_most_are_listed(data):
    cases = cases_of(data)
    differences = [case["difference"] for case in cases]
    assert differences == [*sorted((d for d in differences if d > 0), reverse=True),
                           *sorted(d for d in differences if d < 0)]  # fmt: skip
    student, baseline = (data.evaluation().values(s, "ndcg@10") for s in data.main[:2])
    most = max(student - baseline)
    assert differences[0] == pytest.approx(most, abs=1e-4)
    case = cases[0]
    assert case["query"]["text"] and [gain for _, gain in case["relevant"]] == [2, 1]
    top = case["tops"][0]
    assert len(top) == 5 and top[0][2] >= top[-1][2]
    assert {gain for _, gain, _ in top} <= {None, 1, 2}


def test_a_report_without_its_newer_parts_can_be_rendered(data):
    record = json.loads(json.dumps(data.to_json()))
    for name in ("explorer", "diagnostics", "audit", "digests"):
        del record[name]
    old = ReportData.from_json(record)
    page = check_page(render(old))
    assert "explorer" not in page.ids and "leaks" not in page.ids


def test_the_explorer_holds_what_each_system_put_first(data):
    explorer = data.explorer
    assert explorer.systems == [row.name for row in data.systems]
    assert [entry["id"] for entry in explorer.queries] == data.evaluation().queries
    place, of_system = explorer.systems.index("distilled"), data.evaluation().per_query["distilled"]
    for entry in explorer.queries:
        assert entry["values"][place] == pytest.approx(of_system["ndcg@10"][entry["id"]], abs=1e-4)
        assert all(len(top) == 5 for top in entry["top"])


def test_the_explorer_is_bounded_and_keeps_what_differs_most(data, tiny_collection):
    collection = open_collection(str(tiny_collection))
    everything = {document.id: 1.0 for document in collection.documents.iterate()}
    qrels = {q: {next(iter(everything)): 1} for q in collection.query_texts("train")}
    odd = list(qrels)[1]  # b finds nothing on this one query
    found = {q: everything for q in qrels}
    runs = {"a": Run("a", found), "b": Run("b", {**found, odd: {}})}
    evaluation = evaluate(qrels, runs, ["recall@100"])
    assert len(qrels) > 4
    some = explorer_from(evaluation, runs, qrels, collection, ("a", "b"), most=3)
    assert len(some.queries) == 3 and some.of == len(qrels)
    assert any(entry["values"] == [1.0, 0.0] for entry in some.queries)
    small = explorer_from(evaluation, runs, qrels, collection, ("a", "b"), most_bytes=900)
    assert 1 <= len(small.queries) < len(qrels)
    assert all(len(text) <= 200 for document in some.documents for text in document)


def test_whatever_is_shown_has_its_judgment(tiny_collection):
    collection = open_collection(str(tiny_collection))
    ids = [document.id for document in collection.documents.iterate()]
    query = next(iter(collection.query_texts("test")))
    qrels = {query: {d: 1 + (d != ids[0]) for d in ids}}  # the one returned has the lowest gain
    runs = {"a": Run("a", {query: {ids[0]: 1.0}})}
    [entry] = explorer_from(evaluate(qrels, runs), runs, qrels, collection).queries
    [[[first, _]]] = entry["top"]
    assert len(entry["judged"]) == 11 and [first, 1] in entry["judged"]


def test_leakage_is_shown_with_and_without_the_overlap(data, tiny_collection):
    page = check_page(render(data))
    sizes = data.audit["queries"]
    assert f"{sizes['clean']} of {sizes['all']} test queries share nothing" in page.text
    effect = data.audit["effect"]
    of = {name: rows["ndcg@10"] for name, rows in data.evaluation().per_query.items()}
    test = open_collection(str(tiny_collection)).qrels("test")
    difference = sum(of["distilled"][q] - of["labels"][q] for q in test) / len(test)
    assert effect["comparisons"]["all"]["difference"] == pytest.approx(difference)
    assert effect["comparisons"]["clean"]["queries"] == sizes["clean"]


def test_only_systems_that_none_beats_are_on_the_front():
    rng = random.Random(0)
    points = [(rng.random(), rng.random()) for _ in range(40)]
    front = undominated(points)
    for i, (cost, quality) in enumerate(points):
        better = any(c < cost and q > quality for c, q in points)
        assert (i in front) is not better


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
ACTIONS = """
const log = [];
const part = name => document.querySelector(`[data-part="${name}"]`);
const table = document.querySelector("#quality table");
const labels = () => [...table.tBodies[0].rows].map(r => r.cells[0].dataset.value).join(" ");
const head = table.querySelectorAll("th.value")[0];
head.querySelector("button").click();
log.push(labels(), head.getAttribute("aria-sort"));
head.querySelector("button").click();
log.push(labels(), head.getAttribute("aria-sort"));
log.push(part("detail").querySelector(".query").textContent);
part("order").value = "lost";
part("order").dispatchEvent(new Event("change"));
log.push(part("detail").querySelector(".query").textContent);
part("list").dispatchEvent(new KeyboardEvent("keydown", { key: "End" }));
log.push(part("detail").querySelector(".query").textContent, location.hash);
part("filter").value = "no such words anywhere";
part("filter").dispatchEvent(new Event("input"));
log.push(part("count").textContent, part("detail").textContent);
log.push(String(document.documentElement.scrollWidth <= innerWidth));
document.body.dataset.log = JSON.stringify(log);
"""


@pytest.mark.skipif(BROWSER is None, reason="no browser here")
def test_the_script_sorts_and_explores(data, tmp_path):
    text = render(data)
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    assert script
    actions = f"<script>{ACTIONS}</script>"
    text = text.replace("</body>", f"{actions}</body>")
    text = text.replace(str(csp_hash(script[1])), f"{csp_hash(script[1])} {csp_hash(ACTIONS)}")
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             f"--user-data-dir={tmp_path / 'profile'}", "--window-size=390,800"]  # fmt: skip
    page = subprocess.run(
        [str(BROWSER), *flags, "--dump-dom", (tmp_path / "page.html").as_uri()],
        capture_output=True, text=True, timeout=240, check=True,
    ).stdout  # fmt: skip
    [log] = [v for n, v in Attributes(page).found if n == "data-log"]
    first, up, second, down, won, lost, last, hash_, count, none, fits = json.loads(log or "")
    means = {row.label: data.mean(row.name) for row in data.systems}
    ranked = sorted(means, key=lambda label: -means[label])
    assert (first.split(), up) == (ranked, "descending")
    assert (second.split(), down) == (ranked[::-1], "ascending")
    a, b = (data.explorer.systems.index(name) for name in ("distilled", "labels"))
    of = {e["text"]: e["values"][a] - e["values"][b] for e in data.explorer.queries}
    assert of[won] == of[last] == max(of.values()) > 0 > of[lost] == min(of.values())
    assert hash_.removeprefix("#query=") in {e["id"] for e in data.explorer.queries}
    assert count == f"0 of {len(of)} queries" and "No query has these words" in none
    assert fits == "true", "the page is wider than a phone"
