"""An index's manifest: what it records about files and model, and whether that still holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrieval_kd.errors import InputError
from retrieval_kd.files import digest_file
from retrieval_kd.models.load import model_digest

IDS, MANIFEST = "ids.arrow", "manifest.json"


def describe_files(folder: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Sizes and digests of an index's files, for the manifest."""
    return {
        name: {"bytes": (folder / name).stat().st_size, "digest": digest_file(folder / name)}
        for name in (*names, IDS)
    }


def check_files(folder: Path, manifest: dict[str, Any], verify: bool) -> None:
    """Refuse an index whose files differ from its manifest in size, or in digest if `verify`."""
    for name, recorded in manifest["files"].items():
        path = folder / name
        if not path.exists():
            raise InputError("the index lacks this file", file=path, remedy="build the index again")
        if path.stat().st_size != recorded["bytes"]:
            raise differs(path, "size")
        if verify and digest_file(path) != recorded["digest"]:
            raise differs(path, "digest")


def check_model(folder: Path, manifest: dict[str, Any], model_spec: str) -> None:
    """Refuse to search with a model other than the one that encoded the documents."""
    if model_digest(model_spec) != manifest["model_digest"]:
        changed = " (its files have changed since)" if model_spec == manifest["model"] else ""
        raise InputError(
            f"this index was built with model {manifest['model']}, not with {model_spec}{changed}: "
            "their vectors do not compare",
            file=folder,
            remedy="search with the model it was built with, or build it again",
        )


def differs(path: Path, what: str) -> InputError:
    """The error for a file that is not as the manifest says."""
    return InputError(
        f"{what} differs from what the index's manifest says",
        file=path,
        remedy="restore the file, or build the index again",
    )
