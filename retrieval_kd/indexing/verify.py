"""Reads an index to the last byte, and says which of its files are not as its manifest says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from retrieval_kd.errors import InputError
from retrieval_kd.indexing.index import Index, check_files, read_manifest


def verify_index(folder: str | Path) -> list[str]:
    """Compare every file with the manifest, and IDs with rows. Returns the problems; [] if none.

    Raises:
        InputError: there is no manifest, or it is damaged.
    """
    folder = Path(folder)
    problems = []
    for name, recorded in read_manifest(folder)["files"].items():
        try:
            check_files(folder, {name: recorded}, verify=True)
        except (InputError, OSError) as error:
            problems.append(str(error))
    if problems:
        return problems
    try:
        index = Index.open(folder, verify=False)
    except InputError as error:
        return [str(error)]
    deleted = set(index.deleted.tolist())
    live = Counter(id for at, id in enumerate(index.ids.to_pylist()) if at not in deleted)
    return [f"{folder}: document {id} is there {n} times" for id, n in live.items() if n > 1]
