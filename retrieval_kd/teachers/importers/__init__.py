"""Import of published teacher scores and orders from local files; docs/scores.md lists the formats.

`detect.py` detects a file's format, `score_files.py` reads it, and `scores.py` stores the scores.
`order_files.py` reads orders without scores, and `orders.py` stores them.
"""

from __future__ import annotations

from retrieval_kd.teachers.importers.detect import FORMATS, detect
from retrieval_kd.teachers.importers.orders import ImportedOrders, import_permutations
from retrieval_kd.teachers.importers.scores import Imported, import_scores

__all__ = [
    "FORMATS",
    "Imported",
    "ImportedOrders",
    "detect",
    "import_permutations",
    "import_scores",
]
