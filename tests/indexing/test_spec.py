from __future__ import annotations

from pathlib import Path

import pytest

from retrieval_kd.errors import InputError
from retrieval_kd.indexing.dense import centres_to_train, make_index, set_parameters
from retrieval_kd.indexing.faiss_import import faiss
from retrieval_kd.indexing.spec import IndexSpec, load_spec

SHIPPED = sorted((Path(__file__).parents[2] / "indexes").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_shipped_specifications_make_an_index_of_a_usual_size(path: Path) -> None:
    spec = load_spec(path)
    if spec.kind != "faiss":
        return
    index = make_index(spec, 384, 100_000)
    assert index.d == 384 and index.metric_type == faiss.METRIC_INNER_PRODUCT


def test_these_specifications_are_shipped() -> None:
    dense = {"flat", "fp16", "sq8", "hnsw", "ivf", "ivfpq", "ivfpq-rerank", "rabitq",
             "binary", "matryoshka"}  # fmt: skip
    names = {*dense, "multivector", "multivector-small", "sparse", "sparse-fast"}
    assert {path.stem for path in SHIPPED} == names


def test_every_field_is_described() -> None:
    assert all(field.description for field in IndexSpec.model_fields.values())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nprobe: 3", "nprobe: unknown key"),
        ("factry: Flat", "did you mean 'factory'?"),
        ("metric: l2", "metric: Input should be 'auto', 'cosine' or 'dot'"),
        ("train_documents: 0", "train_documents: Input should be greater than or equal to 1"),
        ("- Flat", "is a mapping of keys"),
        ("factory: [", "not YAML"),
        ("search: efSearch=-1", "parameter 'efSearch=-1': write name=number, a number of 1 or"),
        ("search: nprobe=0", "parameter 'nprobe=0'"),
        ("search: nprobe=nan", "parameter 'nprobe=nan'"),
        ("search: 'nprobe=4,efSearch=99999999999'", "parameter 'efSearch=99999999999'"),
        ("build: efConstruction=0", "build: parameter 'efConstruction=0'"),
        ("build: efConstruction", "parameter 'efConstruction'"),
        ("factory: HNSW99999999", "HNSW99999999 in factory 'HNSW99999999': give 4 to 512 links"),
        ("factory: IVF4_HNSW0,Flat", "HNSW0 in factory"),
        ("factory: NSG99999,Flat", "NSG99999 in factory"),
        ("factory: IVF0,Flat", "IVF0 in factory 'IVF0,Flat': give 1 to"),
        ("factory: IVF99999999999,Flat", "IVF99999999999 in factory"),
        ("factory: 'PCA8,IDMap,Flat'", "leave IDMap out"),
        ("factory: IDMap2,HNSW8", "leave IDMap out"),
        ("engine: seismic", "engine is for kind: sparse"),
        ("{kind: sparse, search: query_cut=3}", "search needs engine: seismic"),
        ("{kind: sparse, engine: fast}", "engine: Input should be 'seismic'"),
        ("{kind: sparse, engine: seismic, bits: 2}", "an index of kind sparse has no bits"),
        (
            "{kind: sparse, engine: seismic, search: nprobe=3}",
            "parameter 'nprobe=3': a fast sparse index has query_cut=…, heap_factor=… here",
        ),
        ("{kind: sparse, engine: seismic, search: query_cut=2.5}", "give an integer"),
        ("{kind: sparse, engine: seismic, search: heap_factor=1.5}", "give 0 to 1"),
        ("{kind: sparse, engine: seismic, build: kept=2}", "give 0 to 1"),
        ("threads: 100000", "threads: Input should be less than or equal to 1024"),
    ],
)
def test_a_wrong_specification_is_one_clear_error(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(InputError, match=r"spec\.yaml") as error:
        load_spec(tmp_path / "spec.yaml")
    assert problem in str(error.value)


def test_a_missing_specification_is_an_error() -> None:
    with pytest.raises(InputError, match="no such file"):
        load_spec("nowhere.yaml")


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (IndexSpec(factory="IVF64,Flat"), "trains 64 centres, but there are 60 documents"),
        (IndexSpec(factory="PQ4"), "trains 256 centres, but there are 60 documents"),
        (IndexSpec(factory="OPQ4,IVF4,PQ4,RFlat"), "trains 256 centres"),
        (IndexSpec(factory="IVF4,Flat", train_documents=3), "there are 3 documents"),
        (IndexSpec(factory="IVF4,PQ7"), "7 codes do not divide .* use PQ4 or PQ8"),
        (IndexSpec(factory="First16,PQ7"), "7 codes do not divide 16 .* use PQ4 or PQ8"),
        (IndexSpec(factory="Flatt"), "could not parse index string Flatt"),
        (IndexSpec(factory="HNSW8", search="nprobe=4"), "search parameters 'nprobe=4' do not fit"),
        (IndexSpec(factory="IVF9999999,Flat"), "trains 9999999 centres"),
        (IndexSpec(factory="HNSW8", build="ef=1"), "build parameters"),
        (IndexSpec(factory="PCA99999,Flat"), "makes 99999 dimensions of 32"),
        (IndexSpec(factory="OPQ4_99999,Flat"), "makes 99999 dimensions of 32"),
    ],
)
def test_a_factory_that_faiss_cannot_build_is_refused_before_encoding(
    spec: IndexSpec, problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        make_index(spec, 32, 60)


def test_a_factory_that_cannot_be_filled_is_refused_before_encoding() -> None:
    spec = IndexSpec.model_construct(factory="IDMap,Flat")  # another kind that nobody knows of
    with pytest.raises(InputError, match="cannot add documents to factory 'IDMap,Flat'"):
        make_index(spec, 32, 60)


def test_search_parameters_from_python_have_the_same_bounds() -> None:
    index = make_index(IndexSpec(factory="HNSW8"), 32, 60)
    with pytest.raises(InputError, match="search parameters 'efSearch=-1' do not fit this index"):
        set_parameters(index, "efSearch=-1", "search")


@pytest.mark.parametrize(
    ("factory", "centres"),
    [
        ("Flat", 0),
        ("HNSW8", 0),
        ("SQ8", 0),
        ("IVF5,Flat", 5),
        ("IVF5,PQ4x4", 16),
        ("PQ8", 256),
        ("OPQ4,SQ8", 256),
    ],
)
def test_centres_are_counted(factory: str, centres: int) -> None:
    index = faiss.index_factory(32, factory, faiss.METRIC_INNER_PRODUCT)
    assert centres_to_train(index) == centres
