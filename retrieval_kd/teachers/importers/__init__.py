"""Reading the teacher scores that others published, from local copies.

One file per shape of file; `detect.py` knows which is which, `importing.py` stores what they give.
Orders without scores are read by `permutations.py` and stored by `import_orders.py`. The shapes are
written down in `docs/scores.md`.
"""

from __future__ import annotations

from retrieval_kd.teachers.importers.detect import FORMATS, detect
from retrieval_kd.teachers.importers.import_orders import ImportedOrders, import_permutations
from retrieval_kd.teachers.importers.importing import Imported, import_scores

__all__ = [
    "FORMATS",
    "Imported",
    "ImportedOrders",
    "detect",
    "import_permutations",
    "import_scores",
]
