"""`teacher.server` of a configuration with embeddings and a re-ranker among the teachers."""

from __future__ import annotations

import pytest

from retrieval_kd.config.run import Config
from retrieval_kd.errors import InputError
from retrieval_kd.pipeline.context import RunContext
from retrieval_kd.pipeline.plan import plan
from retrieval_kd.pipeline.stages import choose_queries, retrieve_candidates
from retrieval_kd.schema import validate
from retrieval_kd.workspace import Workspace
from tests.teachers.llm.server.proxy import Proxy

DENSE, RERANK = "dense:server:some/encoder?query_prompt=query: ", "rerank:some/reranker"
NOWHERE = "http://127.0.0.1:9/v1"


@pytest.fixture
def values(tmp_path, tiny_collection, tiny_encoder) -> dict:
    return {
        "name": "On a server",
        "collection": str(tiny_collection),
        "out": str(tmp_path / "run"),
        "encoder": str(tiny_encoder),
        "splits": {"dev": "dev", "dev_queries": 10},
        "first_stage": {"with": "bm25", "depth": 5},
        "teacher": {"fuse_with": ["bm25", DENSE, RERANK], "server": {"url": NOWHERE}},
        "student": {"base": str(tiny_encoder), "max_length": 32},
        "students": {"labels": {"objective": "infonce"}, "distilled": {"objective": "kl"}},
    }


def context_of(values: dict, **server: object) -> RunContext:
    teacher = {**values["teacher"], "server": {**values["teacher"]["server"], **server}}
    config = validate(Config, {**values, "teacher": teacher})
    return RunContext(config, Workspace(config.out))


def test_a_run_scores_with_both_and_no_call_is_made_twice(values, served):
    with Proxy(served) as proxy:
        context = context_of(values, url=proxy.url, batch=4)
        choose_queries(context)
        retrieve_candidates(context)
        for teacher in (DENSE, RERANK):
            facts = context.ensemble.score(teacher, ["dev"])
            assert facts["scored"] == facts["pairs"] > 0
        calls = proxy.calls.total()
        weights = context.ensemble.tune()["weights"]
        assert set(weights) == {"bm25", DENSE, RERANK} and proxy.calls.total() == calls
        assert set(proxy.answered.values()) == {1}


def test_keys_cover_the_options_and_not_the_address_or_the_load(values):
    def keys(**server: object) -> dict[str, str]:
        kept = plan(context_of(values, **server).config).keys
        return {name: key for name, key in kept.items() if name.startswith("try:")}

    plain = keys()
    assert plain == keys(url="http://127.0.0.1:10/v1", batch=8, concurrency=1)
    values["teacher"]["fuse_with"][2] = f"{RERANK}?revision=2"
    assert set(keys()) - set(plain) == {f"try:{RERANK}?revision=2"}


@pytest.mark.parametrize("member", [DENSE, RERANK])
def test_without_a_server_such_a_teacher_is_refused(member, values):
    values["teacher"] = {"fuse_with": ["bm25", member]}
    with pytest.raises(InputError, match="on a server; give `server"):
        validate(Config, values)
    values["teacher"] |= {"server": {"url": NOWHERE, "members": [member]}}
    validate(Config, values)
