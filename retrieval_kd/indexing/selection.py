"""FAISS searches that leave deleted rows out, and FAISS indexes without them."""

from __future__ import annotations

from typing import Any

import numpy as np

from retrieval_kd.indexing.faiss_import import faiss

FAISS: Any = faiss  # its type stubs lack the constructors that take settings
WIDER = 8  # times as many cells or candidates, where too few rows were found


class Selection:
    """The rows of an index that are hits. FAISS skips the others while it searches.

    HNSW and IVF look at a part of an index. Where that part has fewer hits than asked for, because
    rows of it were deleted, they look at a greater one, and at last at everything.

    Example:
        >>> index = faiss.IndexFlatIP(1)
        >>> index.add(np.array([[1.0], [3.0], [2.0]], np.float32))
        >>> selection = Selection(index, deleted=np.array([1]))
        >>> selection.search(np.ones((1, 1), np.float32), 2)[1].tolist()
        [[2, 0]]
    """

    def __init__(self, index: Any, deleted: np.ndarray) -> None:
        self.index, self.deleted = index, len(deleted)
        self.live = np.ones(index.ntotal, dtype=bool)
        self.live[deleted] = False
        self.selector = bitmap(self.live)
        try:
            blank = np.zeros((1, index.d), np.float32)
            index.search(blank, 1, params=parameters(index, self.selector))
            self.selects = True
        except RuntimeError:  # product quantisers without cells take no selector
            self.selects = False

    def search(self, queries: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
        """Return scores and positions `(Q, depth)` of live rows; there are `depth` at least."""
        if not self.selects:
            return self._filtered(queries, depth)
        scores, positions = self._selected(queries, depth, 1)
        wider, most = 1, widest(self.index)
        while (short := (positions < 0).any(axis=1)).any() and wider < most:
            wider = min(WIDER * wider, most)
            scores[short], positions[short] = self._selected(queries[short], depth, wider)
        return scores, positions

    def _selected(
        self, queries: np.ndarray, depth: int, wider: int
    ) -> tuple[np.ndarray, np.ndarray]:
        how = parameters(self.index, self.selector, wider)
        scores, positions = self.index.search(np.ascontiguousarray(queries), depth, params=how)
        return scores, positions

    def _filtered(self, queries: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
        """Search for as many rows more as were deleted, and drop these."""
        scores, positions = self.index.search(queries, depth + self.deleted)
        hits = (positions >= 0) & self.live[positions]
        first = np.argsort(~hits, axis=1, kind="stable")[:, :depth]
        positions = np.where(hits, positions, -1)
        return np.take_along_axis(scores, first, 1), np.take_along_axis(positions, first, 1)


def bitmap(rows: np.ndarray) -> Any:
    """A FAISS selector of the rows that are True."""
    return FAISS.IDSelectorBitmap(np.packbits(rows, bitorder="little"))


def parameters(index: Any, selector: Any, wider: int = 1) -> Any:
    """FAISS's search parameters: the index's own, with a selector.

    Args:
        wider: times as many cells and candidates as the index's own.
    """
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        inner = parameters(index.index, selector, wider)
        return FAISS.SearchParametersPreTransform(index_params=inner)
    if isinstance(index, faiss.IndexRefine):
        inner = parameters(index.base_index, selector, wider)
        return FAISS.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=inner)
    if isinstance(index, faiss.IndexIVF):
        return FAISS.SearchParametersIVF(
            sel=selector,
            nprobe=min(index.nlist, index.nprobe * wider),
            max_codes=index.max_codes if wider == 1 else 0,
        )
    if isinstance(index, faiss.IndexHNSW):
        candidates = min(index.ntotal, index.hnsw.efSearch * wider)
        return FAISS.SearchParametersHNSW(sel=selector, efSearch=candidates)
    return FAISS.SearchParameters(sel=selector)


def widest(index: Any) -> int:
    """Return the `wider` from which on `parameters` stay the same: all cells, all candidates."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        return widest(index.index)
    if isinstance(index, faiss.IndexRefine):
        return widest(index.base_index)
    if isinstance(index, faiss.IndexIVF):
        without_limit = 2 if index.max_codes else 1
        return max(without_limit, -(-index.nlist // index.nprobe))
    if isinstance(index, faiss.IndexHNSW):
        return max(1, -(-index.ntotal // index.hnsw.efSearch))
    return 1


def without(index: Any, live: np.ndarray) -> Any:
    """Remove the rows that are not `live` from an index, and number the others anew from 0.

    Codes stay as they are. A graph is built anew, from the vectors that its storage gives back.

    Raises:
        RuntimeError: FAISS cannot do it for this kind of index.
    """
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        index.ntotal = without(index.index, live).ntotal
    elif isinstance(index, faiss.IndexRefine):
        without(index.refine_index, live)
        index.ntotal = without(index.base_index, live).ntotal
    elif isinstance(index, faiss.IndexHNSW):
        vectors = index.reconstruct_n(0, index.ntotal)[live]
        index.reset()
        index.add(vectors)
    else:
        index.remove_ids(bitmap(~live))
        if isinstance(index, faiss.IndexIVF):
            _renumber(index, live)
    return index


def _renumber(index: Any, live: np.ndarray) -> None:
    """Give the rows in an index's cells, which keep their numbers, the next ones from 0."""
    numbers = np.cumsum(live) - 1
    for cell in range(index.nlist):
        size = index.invlists.list_size(cell)
        if size:
            kept = faiss.rev_swig_ptr(index.invlists.get_ids(cell), size)
            kept[:] = numbers[kept]
