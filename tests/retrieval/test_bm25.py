from __future__ import annotations

import json
import math
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.errors import InputError
from retrieval_kd.files import cache_dir
from retrieval_kd.retrieval.analysis import (
    LUCENE_STOP_WORDS,
    UNSPACED,
    Analysis,
    Analyzer,
    _patterns,
    split_plain,
    split_standard,
)
from retrieval_kd.retrieval.bm25 import (
    BM25,
    DEFAULT,
    LUCENE,
    BM25Parameters,
    bm25_run,
    bm25_scores,
    for_language,
)


@pytest.fixture
def collection(tiny_collection: Path) -> Collection:
    return open_collection(tiny_collection)


def make(folder: Path, documents: dict[str, str]) -> Collection:
    folder.mkdir()
    rows = [json.dumps({"_id": id, "title": "", "text": text}) for id, text in documents.items()]
    (folder / "corpus.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "x"}')
    return open_collection(folder)


def test_scores_are_the_formula(tmp_path: Path) -> None:
    documents = {"a": "cat cat dog", "b": "dog", "c": "bird bird bird fish", "d": "cat fish"}
    parameters = BM25Parameters(k1=1.2, b=0.6, analysis=Analysis(stemmer="none"))
    collection = make(tmp_path / "four", documents)
    run = bm25_run(collection, {"q": "cat fish cat"}, parameters=parameters)

    words = {id: text.split() for id, text in documents.items()}
    average = sum(map(len, words.values())) / 4
    expected = {}
    for id, text in words.items():
        score = 0.0
        for term in ["cat", "fish", "cat"]:
            having = sum(term in other for other in words.values())
            frequency = Counter(text)[term]
            idf = math.log(1 + (4 - having + 0.5) / (having + 0.5))
            norm = 1.2 * (1 - 0.6 + 0.6 * len(text) / average)
            score += idf * frequency / (frequency + norm)
        if score:
            expected[id] = score
    assert run.results["q"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("parameters", [DEFAULT, LUCENE])
def test_pair_scores_equal_the_scores_of_the_run(
    collection: Collection, parameters: BM25Parameters
) -> None:
    queries = collection.query_texts("test")
    run = bm25_run(collection, queries, 20, parameters=parameters)
    pairs = {query: list(found) for query, found in run.results.items()}
    assert bm25_scores(collection, queries, pairs, parameters=parameters) == run.results


def test_a_pair_without_a_common_term_scores_zero(collection: Collection) -> None:
    scores = bm25_scores(collection, {"q": "sparrow"}, {"q": ["chess0", "chess1"]})
    assert scores == {"q": {"chess0": 0.0, "chess1": 0.0}}


def test_unknown_candidates_and_queries_are_errors(collection: Collection) -> None:
    with pytest.raises(InputError, match="nowhere"):
        bm25_scores(collection, {"q": "sparrow"}, {"q": ["nowhere"]})
    with pytest.raises(InputError, match="without text"):
        bm25_scores(collection, {}, {"q": ["chess0"]})


def test_documents_without_a_common_term_are_not_retrieved(collection: Collection) -> None:
    run = bm25_run(collection, {"q1": "sparrow", "q2": "unheard of", "q3": "?!"}, 100)
    assert 0 < len(run.results["q1"]) < 60
    assert run.results["q2"] == {} and run.results["q3"] == {}


def test_ties_follow_document_ids_and_cut_there(tmp_path: Path) -> None:
    collection = make(tmp_path / "ties", {id: "same words" for id in ["z", "m", "a", "k"]})
    assert list(bm25_run(collection, {"q": "words"}, 3).results["q"]) == ["z", "m", "k"]


def test_self_matches_are_left_out_unless_requested(collection: Collection) -> None:
    queries = {"birds1": collection.documents["birds1"].full}
    assert "birds1" not in bm25_run(collection, queries, 5).results["birds1"]
    kept = bm25_run(collection, queries, 5, exclude_self=False).results["birds1"]
    assert next(iter(kept)) == "birds1"


def test_the_index_is_cached_as_arrays_and_json(collection: Collection) -> None:
    BM25.open(collection.documents)
    files = list((cache_dir() / "bm25").rglob("*.*"))
    written = {file: file.stat().st_mtime_ns for file in files if file.is_file()}
    assert {file.suffix for file in written} == {".npy", ".json"}
    BM25.open(collection.documents)
    assert {file: file.stat().st_mtime_ns for file in written} == written


def test_empty_documents_match_nothing(tmp_path: Path) -> None:
    collection = make(tmp_path / "empty", {"a": "", "b": "a whale", "c": "the of"})
    run = bm25_run(collection, {"q1": "whale", "q2": "", "q3": "the"}, 10)
    assert {id: list(found) for id, found in run.results.items()} == {
        "q1": ["b"],
        "q2": [],
        "q3": [],
    }


def test_a_collection_without_a_word_is_refused(tmp_path: Path) -> None:
    collection = make(tmp_path / "wordless", {"a": "!", "b": "…"})
    with pytest.raises(InputError, match="no document has a word"):
        bm25_run(collection, {"q": "whale"})


def test_threads_get_the_same_results(collection: Collection) -> None:
    index = BM25.open(collection.documents)
    queries = list(collection.query_texts("train").values()) * 5
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda text: index.search(text, 10), queries))
    fresh = BM25.open(collection.documents)
    assert together == [fresh.search(text, 10) for text in queries]


def test_words_keep_their_marks_in_any_script() -> None:
    assert split_plain("हिन्दी में शिक्षा") == ["हिन्दी", "में", "शिक्षा"]
    assert split_plain("cafe\u0301 мир İstanbul".lower()) == ["cafe\u0301", "мир", "i̇stanbul"]
    assert split_standard("the dog’s 3.14 I-beam") == ["the", "dog", "3.14", "I", "beam"]


def test_scripts_without_spaces_are_cut_into_bigrams_within_any_text() -> None:
    for split in (split_plain, split_standard):
        assert split("猫") == ["猫"] and split("한국어 말") == ["한국", "국어", "말"]
        assert split("กินข้าว") == ["กิน", "นข้", "ข้า", "าว"]
        assert split("ﾃﾞｰﾀ") == split("データ") == split("テ\u3099ータ") == ["デー", "ータ"]
        assert split("葛\U000e0100城") == ["葛城"]
        assert split("ភាសា") == ["ភាសា"] and split("ပညာ") == ["ပညာ"] and split("ພາສາ")[0] == "ພາ"
    assert split_plain("東京都のGPU 3台") == ["東京", "京都", "都の", "GPU", "台"]
    assert split_standard("東京都のGPU 3台") == ["東京", "京都", "都の", "GPU", "3", "台"]


WITHOUT_SPACES = {
    "ja1": "吾輩は猫である。名前はまだ無い。",
    "ja2": "国境の長いトンネルを抜けると雪国であった。",
    "ja3": "メロスは激怒した。必ず、かの邪智暴虐の王を除かなければならぬと決意した。",
    "zh1": "床前明月光,疑是地上霜。举头望明月,低头思故乡。",
    "zh2": "学而时习之,不亦说乎?有朋自远方来,不亦乐乎?",
    "zh3": "天下大势,分久必合,合久必分。",
    "th1": "แมวกินปลาในครัว",
    "th2": "รถไฟไปเชียงใหม่ออกตอนเช้า",
}


@pytest.mark.parametrize("parameters", [DEFAULT, LUCENE])
def test_japanese_chinese_and_thai_are_found_by_part_of_a_sentence(
    tmp_path: Path, parameters: BM25Parameters
) -> None:
    collection = make(tmp_path / "unspaced", WITHOUT_SPACES)
    queries = {
        "ja1": "名前の無い猫", "ja2": "雪国のトンネル", "ja3": "王に激怒", "zh1": "明月与故乡",
        "zh2": "远方的朋友来了", "zh3": "分久必合", "th1": "ปลาของแมว", "th2": "รถไฟเชียงใหม่",
    }  # fmt: skip
    run = bm25_run(collection, queries, parameters=parameters, exclude_self=False)
    assert {query: next(iter(found), None) for query, found in run.results.items()} == {
        query: query for query in queries
    }


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_text_of_other_scripts_has_the_same_words_as_without_bigrams(text: str) -> None:
    text = re.sub(f"[{UNSPACED}]", "", text)
    plain, standard = _patterns()
    assert split_plain(text) == plain.findall(text)
    assert len(split_standard(text)) == len(standard.findall(text))


def test_an_index_of_other_terms_is_another_index(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = BM25.open(collection.documents).folder
    monkeypatch.setattr("retrieval_kd.retrieval.bm25.VERSION", 1)
    assert BM25.open(collection.documents).folder != before


def test_languages_have_their_stemmer_and_stop_words() -> None:
    def terms(language: str, text: str) -> set[str]:
        analyzer = Analyzer(for_language(language).analysis)
        list(analyzer.documents([text]))
        return set(analyzer.vocabulary)

    assert terms("german", "die Häuser und das Haus") == {"haus"}
    assert terms("none", "The Houses") == {"the", "houses"}
    with pytest.raises(InputError, match="no stemmer for 'klingon'"):
        terms("klingon", "nuqneH")
    assert len(LUCENE_STOP_WORDS) == 33


def test_a_damaged_index_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRIEVAL_KD_CACHE", str(tmp_path / "cache"))
    collection = make(tmp_path / "two", {"a": "cat dog", "b": "bird cat cat"})
    whole = bm25_run(collection, {"q": "cat"}).results
    (folder,) = (cache_dir() / "bm25").iterdir()
    for path in sorted(folder.iterdir()):
        path.write_bytes(path.read_bytes()[:-1])
        assert bm25_run(collection, {"q": "cat"}).results == whole
        path.unlink()
        assert bm25_run(collection, {"q": "cat"}).results == whole
