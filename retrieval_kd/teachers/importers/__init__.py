"""Import of published teacher scores and orders from local files; docs/scores.md lists the formats.

`score_files.py` detects and reads formats of scores, `scores.py` stores them, `orders.py` imports
orders without scores.
"""

from __future__ import annotations

from retrieval_kd.teachers.importers.orders import ImportedOrders, import_permutations
from retrieval_kd.teachers.importers.score_files import FORMATS, detect
from retrieval_kd.teachers.importers.scores import Imported, import_scores

__all__ = [
    "FORMATS",
    "Imported",
    "ImportedOrders",
    "detect",
    "import_permutations",
    "import_scores",
]
