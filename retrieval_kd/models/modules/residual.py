"""The residual encoder: a frozen encoder and a table of token vectors, in one vector per text."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, ClassVar

from sentence_transformers import SentenceTransformer

from retrieval_kd.files import read_json, write_json
from retrieval_kd.models.modules import token_table
from retrieval_kd.models.modules.headed import MARK
from retrieval_kd.models.modules.token_table import ResidualEmbedding

CODE = Path(token_table.__file__)


class ResidualEncoder(SentenceTransformer):
    """A `SentenceTransformer` whose only module is a `ResidualEmbedding`.

    Sentence Transformers has no such module. Its code is saved beside its weights, for plain
    `SentenceTransformer(FOLDER, trust_remote_code=True)`; this class loads it without that.
    """

    student: ClassVar[str] = "residual"

    @property
    def embedding(self) -> ResidualEmbedding:
        """The module."""
        module = self[0]
        assert isinstance(module, ResidualEmbedding)
        return module

    def save(self, path: str, *args: Any, **more: Any) -> None:
        super().save(path, *args, **more)
        listed = Path(path) / "modules.json"
        modules = read_json(listed, kind=list)
        modules[0]["type"] = f"{CODE.stem}.{ResidualEmbedding.__name__}"
        shutil.copyfile(CODE, Path(path) / CODE.name)
        write_json(listed, modules)

    def _get_model_config(self) -> dict[str, Any]:
        return {**super()._get_model_config(), MARK: self.student}

    def _load_module_class_from_ref(self, class_ref: str, *args: Any, **more: Any) -> type:
        if class_ref.rpartition(".")[2] == ResidualEmbedding.__name__:
            return ResidualEmbedding
        return super()._load_module_class_from_ref(class_ref, *args, **more)
