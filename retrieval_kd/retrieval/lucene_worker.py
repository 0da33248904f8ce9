"""Calls Java and pyserini in a process of its own, started by `lucene.py`.

    python -m retrieval_kd.retrieval.lucene_worker COMMAND ANSWER_FILE ARGUMENTS...

The caller sets JAVA_HOME and CLASSPATH. The answer is JSON: `{"ok": value}`, or `{"unknown": valid
names}`. On failure a traceback goes to standard error and no answer is written.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HEAP = "-Xmx2g"
CLAUSES = 1_000_000  # most terms in a query; Lucene's default is 1024


def run_java_main(main_class: str, *arguments: str) -> dict[str, Any]:
    """Run a Java class's `main`, as `java -cp JAR CLASS ARGUMENTS` would."""
    from jnius import autoclass  # starts the JVM

    autoclass("org.apache.lucene.search.IndexSearcher").setMaxClauseCount(CLAUSES)
    autoclass(main_class).main(list(arguments))
    return {"ok": None}


def index(name: str) -> dict[str, Any]:
    """The folder of one of pyserini's inverted indexes, downloaded if it is missing."""
    from pyserini.util import TF_INDEX_INFO, download_prebuilt_index

    if name not in TF_INDEX_INFO:
        return {"unknown": sorted(TF_INDEX_INFO)}
    return {"ok": str(download_prebuilt_index(name, verbose=False))}


def topics(name: str) -> dict[str, Any]:
    """One of pyserini's topic sets: query ID → text."""
    from pyserini.search import get_topics
    from pyserini.search._base import topics_mapping

    if name not in topics_mapping:
        return {"unknown": sorted(topics_mapping)}
    queries = get_topics(name)
    return {"ok": {str(id): fields.get("title", "") for id, fields in queries.items()}}


def qrels(name: str) -> dict[str, Any]:
    """The TREC qrels file of one of pyserini's topic sets."""
    from pyserini.search import get_qrels_file
    from pyserini.search._base import qrels_mapping

    if name not in qrels_mapping:
        return {"unknown": sorted(qrels_mapping)}
    return {"ok": str(get_qrels_file(name))}


def configure() -> None:
    """Set the JVM's options, before it starts."""
    import jnius_config

    options = [HEAP, f"-Duser.home={Path.home()}"]  # Java ignores $HOME
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        # Java is to be offline too: send its downloads to a port that nobody listens on.
        options += ["-Dhttps.proxyHost=127.0.0.1", "-Dhttps.proxyPort=9"]
        os.environ["https_proxy"] = "http://127.0.0.1:9"
    jnius_config.add_options(*options)


def main() -> None:
    command, answer_file, *arguments = sys.argv[1:]
    configure()
    commands: dict[str, Callable[..., dict[str, Any]]] = {
        "java": run_java_main, "index": index, "topics": topics, "qrels": qrels
    }  # fmt: skip
    Path(answer_file).write_text(json.dumps(commands[command](*arguments)), encoding="utf-8")


if __name__ == "__main__":
    main()
