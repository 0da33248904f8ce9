"""Reading the teacher scores that others published, from local copies.

One file per shape of file; `detect.py` knows which is which, `importing.py` stores what they give.
The shapes are written down in `docs/scores.md`.
"""

from __future__ import annotations

from retrieval_kd.teachers.importers.detect import FORMATS, detect
from retrieval_kd.teachers.importers.importing import Imported, import_scores

__all__ = ["FORMATS", "Imported", "detect", "import_scores"]
