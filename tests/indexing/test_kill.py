from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from retrieval_kd.data.collection import open_collection
from retrieval_kd.indexing.index import Index
from tests.tiny_models import write_collection


def test_a_build_killed_at_random_moments_ends_the_same(tiny_encoder: Path, tmp_path: Path) -> None:
    collection = write_collection(tmp_path / "data", documents_per_topic=50)  # 300 documents
    run = subprocess.run(
        [sys.executable, "-m", "tests.indexing.killed", collection, tiny_encoder, tmp_path],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) >= 1, "no attempt was killed"

    saved = {
        name: (tmp_path / name / "saved.log").read_text().split() for name in ("whole", "killed")
    }
    assert len(saved["whole"]) == 12
    assert max(Counter(saved["killed"]).values()) == 1, "a finished shard was encoded twice"
    for name in ("index.faiss", "ids.arrow"):
        whole, killed = (tmp_path / home / "index" / name for home in ("whole", "killed"))
        assert whole.read_bytes() == killed.read_bytes()
    vectors = [
        np.load(next((tmp_path / home).rglob("vectors.npy"))) for home in ("whole", "killed")
    ]
    np.testing.assert_array_equal(*vectors)
    leftovers = [p for p in (tmp_path / "killed").rglob("*.part") if "collections" not in p.parts]
    assert leftovers == [] and not list((tmp_path / "killed").rglob(".shards-*"))

    index = Index.open(tmp_path / "killed" / "index")
    queries = list(open_collection(collection).query_texts("test").values())
    assert index.search(queries, 5) == Index.open(tmp_path / "whole" / "index").search(queries, 5)
