"""The report is one safe, self-contained page that says what the data say."""

from __future__ import annotations

import json
import random
import re
from html.parser import HTMLParser

import pytest

from retrieval_kd.data.collection import open_collection
from retrieval_kd.data.runs import Run
from retrieval_kd.errors import InputError
from retrieval_kd.evaluation.cases import cases_from
from retrieval_kd.evaluation.headline import headline
from retrieval_kd.evaluation.measures import evaluate
from retrieval_kd.evaluation.report import csp_hash, render, write_report
from retrieval_kd.evaluation.report_data import (
    Main,
    QueryCase,
    Relevant,
    ReportData,
    Returned,
    SystemRow,
)
from retrieval_kd.evaluation.significance import compare

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


def check_page(text: str) -> Page:
    """What holds for every report: one script, which is ours; no request; no ID twice."""
    page = Page(text)
    text.encode("utf-8")
    assert page.tags.count("script") == 1
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    assert script and f"script-src {csp_hash(script[1])}" in text
    assert not re.findall(r"https?://|//[a-z]+\.", text)
    for name, value in page.attributes:
        assert not name.startswith("on"), name
        assert name != "src"
        if name in ("href", "xlink:href"):
            assert value and value.startswith("#") and value[1:] in page.ids
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
        systems=[
            SystemRow.of(
                evaluation,
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
            "labels": [{"step": s, "loss": 1 / (s + 1), "dev_ndcg@10": None} for s in range(9)],
            "distilled": [{"step": s, "loss": 2 / (s + 1), "dev_ndcg@10": s / 9} for s in range(9)],
        },
        scatter=[
            (teacher, runs["distilled#1"].results[q][d], qrels[q].get(d, 0) > 0)
            for q in qrels
            for d, teacher in runs["teacher"].results[q].items()
        ],
        cases=cases_from(evaluation, runs, qrels, collection, "distilled", "labels", most=3),
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
        assert f"{row.mean('ndcg@10'):.3f}" in page.text and row.label in page.text
    assert page.tags.count("svg") == 5
    assert page.tags.count("article") == len(data.cases) > 0
    assert "2 × empty document" in page.text and "student.layers" in page.text
    assert "rkd run configs/quickstart.yaml" in page.text
    assert '<meta name="viewport"' in text and "prefers-color-scheme: dark" in text
    assert not re.search(r"#(0[1-4]){3}|#a1000\d", text), "a colour that is no variable"


def test_the_headline_states_difference_interval_and_share_kept(data):
    first, second = headline(data)
    c = next(c for c in data.comparisons if {c.a, c.b} == {"distilled", "labels"})
    assert f"{abs(c.difference):.3f} above Labels (95% CI +" in first and "p < .001" in first
    student, teacher = (data.system(name).mean("ndcg@10") for name in ("distilled", "teacher"))
    assert f"keeps {student / teacher:.0%} of the nDCG@10 of Teacher" in second
    assert "3 of 6 layers" in second and "225 times the queries per second" in second


@pytest.mark.parametrize("evil", EVIL, ids=range(len(EVIL)))
def test_no_text_can_break_out(evil):
    row = SystemRow(evil, evil, evil, evil, {"ndcg@10": {"mean": 0.5, "per_seed": [0.4, 0.6]}})
    row.latency_ms_p50 = 3.0
    other = SystemRow("b", measures={"ndcg@10": {"mean": 0.4, "per_seed": []}}, layers=1)
    row.per_query = other.per_query = {"ndcg@10": {evil: 0.5, "q": 0.0}}
    case = QueryCase(
        evil,
        evil,
        -0.5,
        evil,
        "b",
        [Relevant(evil, evil, 2)],
        [Returned(evil, evil, evil, None, -1.5)],
        [Returned(evil, "", "", 0, 2.0)],
    )
    data = ReportData(
        title=evil,
        subtitle=evil,
        collection={"name": evil, "drops": [evil], "splits": [evil], evil: evil},
        systems=[row, other],
        curves={evil: [{"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan")}]},
        cases=[case],
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


def test_cases_are_the_queries_won_and_lost_most(data):
    differences = [case.difference for case in data.cases]
    assert differences == [*sorted((d for d in differences if d > 0), reverse=True),
                           *sorted(d for d in differences if d < 0)]  # fmt: skip
    student, baseline = data.system("distilled").per_query, data.system("labels").per_query
    most = max(student["ndcg@10"][q] - baseline["ndcg@10"][q] for q in student["ndcg@10"])
    assert differences[0] == pytest.approx(most)
    case = data.cases[0]
    assert case.query and [x.gain for x in case.relevant] == [2, 1]
    assert len(case.a_top) == 5 and case.a_top[0].score >= case.a_top[-1].score
    assert {x.gain for x in case.a_top} <= {None, 1, 2}
