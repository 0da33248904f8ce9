"""The sparse encoder of M3's lexical weights, saved so that it loads without this package."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, ClassVar

from sentence_transformers import SparseEncoder

from retrieval_kd.files import read_json, write_json
from retrieval_kd.models.modules import lexical_weights
from retrieval_kd.models.modules.headed import MARK
from retrieval_kd.models.modules.lexical_weights import LexicalWeights

CODE = Path(lexical_weights.__file__)


class LexicalEncoder(SparseEncoder):
    """A `SparseEncoder` that may contain `LexicalWeights`.

    Sentence Transformers has no such module. Its code is saved beside its weights, for plain
    `SparseEncoder(FOLDER, trust_remote_code=True)`; this class loads it without that.
    """

    student: ClassVar[str] = "lexical"

    def save(self, path: str, *args: Any, **more: Any) -> None:
        super().save(path, *args, **more)
        listed = Path(path) / "modules.json"
        modules = read_json(listed, kind=list)
        for module in modules:
            if module["type"].endswith(f".{LexicalWeights.__name__}"):
                module["type"] = f"{CODE.stem}.{LexicalWeights.__name__}"
                shutil.copyfile(CODE, Path(path) / CODE.name)
        write_json(listed, modules)

    def _get_model_config(self) -> dict[str, Any]:
        return {**super()._get_model_config(), MARK: self.student}

    def _load_module_class_from_ref(self, class_ref: str, *args: Any, **more: Any) -> type:
        if class_ref.rpartition(".")[2] == LexicalWeights.__name__:
            return LexicalWeights
        return super()._load_module_class_from_ref(class_ref, *args, **more)
