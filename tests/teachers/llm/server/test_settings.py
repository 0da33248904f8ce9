"""`teacher.server`: language models of `rkd run` on a server: no call twice, complete keys."""

from __future__ import annotations

import shutil

import pytest

from retrieval_kd.config.run import Config
from retrieval_kd.errors import InputError
from retrieval_kd.pipeline.context import RunContext
from retrieval_kd.pipeline.plan import plan
from retrieval_kd.pipeline.stages import choose_queries, retrieve_candidates
from retrieval_kd.schema import validate
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.store.usage import read_usage
from retrieval_kd.teachers.comparing.listwise import ListwiseOptions, ListwiseTeacher
from retrieval_kd.teachers.llm.protocol import Prompt
from retrieval_kd.teachers.llm.server.budget import Stopped
from retrieval_kd.teachers.score import score, scores_of
from retrieval_kd.workspace import Workspace
from tests.teachers.llm.server.echo_server import serving
from tests.teachers.reader import Reader

SPEC = "listwise:served-name?window=3&stride=2"
NOWHERE = "http://127.0.0.1:9/v1"
READ = 300  # tokens of a prompt, by the server's count


@pytest.fixture(scope="module")
def told(tmp_path_factory, tiny_collection, tiny_encoder) -> dict:
    """A configuration whose queries and candidates exist."""
    values = {
        "name": "On a server",
        "collection": str(tiny_collection),
        "out": str(tmp_path_factory.mktemp("served") / "run"),
        "encoder": str(tiny_encoder),
        "splits": {"dev": "dev", "dev_queries": 10},
        "first_stage": {"with": "bm25", "depth": 5},
        "teacher": {"fuse_with": ["bm25", SPEC], "server": {"url": NOWHERE}},
        "student": {"base": str(tiny_encoder), "max_length": 32},
        "students": {"labels": {"objective": "infonce"}, "distilled": {"objective": "kl"}},
    }
    context = context_of(values)
    choose_queries(context)
    retrieve_candidates(context)
    return values


def context_of(values: dict) -> RunContext:
    config = validate(Config, values)
    return RunContext(config, Workspace(config.out))


def with_teacher(values: dict, **settings: object) -> dict:
    return {**values, "teacher": {**values["teacher"], **settings}}


def on(values: dict, url: str = NOWHERE, **settings: object) -> dict:
    return with_teacher(values, server={"url": url, **settings})


def keys(values: dict) -> dict[str, str]:
    return plan(validate(Config, values)).keys


def chat(reader: Reader):
    """The answers of a server whose model is the reader."""

    def answer(body: dict) -> dict:
        assert body["model"] == "served-name" and body["temperature"] == 0
        turns = {turn["role"]: turn["content"] for turn in body["messages"]}
        [written] = reader.generate([Prompt(turns["user"], system=turns.get("system", ""))], 0)
        message = {"role": "assistant", "content": written.text}
        usage = {"prompt_tokens": READ, "completion_tokens": 2}
        return {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}

    return answer


def test_a_member_on_a_server_says_what_it_says_here_and_is_asked_once(told, tmp_path):
    pytest.importorskip("openai")
    reader, here = Reader(), Reader()
    with serving(chat(reader)) as url:
        ensemble = context_of(on(told, url)).ensemble
        asked = ensemble.score(SPEC, ["dev"])
        assert asked["scored"] == len(reader.asked) > 0 and "missing" not in asked
        found = ensemble.scores("dev", SPEC)
        again = context_of(on(told, url)).ensemble  # the same command, started anew
        assert again.score(SPEC, ["dev"])["scored"] == 0
        assert again.scores("dev", SPEC) == found
    assert len(reader.asked) == len(set(reader.asked)) == asked["scored"]
    queries, wanted = ensemble.queries("dev").texts, ensemble.wanted("dev")
    local, store = ListwiseTeacher(here, ListwiseOptions(window=3, stride=2)), ScoreStore(tmp_path)
    score(ensemble.collection, queries, wanted, local, store)
    assert found == scores_of(ensemble.collection, queries, wanted, store, local.key)
    [key] = [key for key in ensemble.store.teachers() if key.kind == "listwise"]
    spent = read_usage(ensemble.store.folder(key))
    assert (spent.calls, spent.prompt_tokens) == (len(reader.asked), READ * len(reader.asked))


def test_a_model_that_runs_here_has_no_price_of_the_servers(told, tiny_decoder, tmp_path):
    here = f"yesno:{tiny_decoder}?passage_tokens=16"
    shutil.copytree(told["out"], tmp_path / "run")
    priced = {"url": NOWHERE, "members": [SPEC], "prompt_price": 5.0, "answer_price": 5.0}
    values = with_teacher(told, fuse_with=[here, SPEC], server=priced)
    ensemble = context_of({**values, "out": str(tmp_path / "run")}).ensemble
    asked = ensemble.score(here, ["dev"])
    spent = read_usage(ensemble.store.path / asked["fingerprint"])
    assert spent.prompt_tokens > 0 and spent.cost == 0


def test_what_the_teacher_that_chooses_did_not_answer_is_in_no_pair(told, tiny_decoder, tmp_path):
    """The other candidates are compared all the same."""
    pytest.importorskip("openai")
    shutil.copytree(told["out"], tmp_path / "run")
    by = "yesno:served-name"
    chosen = f"pairwise:{tiny_decoder}?passage_tokens=16&pairs=uncertain&most=99&by={by}"
    [query, *_], lost = context_of(told).candidates("dev"), []

    def answer(body: dict) -> dict:
        prompt = body["messages"][-1]["content"]
        lost[:] = lost or [prompt]  # the first one never tells
        likely = {"perhaps": -0.1} if prompt in lost else {"yes": -0.2, "no": -1.0 - len(prompt)}
        words = [{"token": word, "logprob": log} for word, log in likely.items()]
        logs = {"content": [{**words[0], "top_logprobs": words}]}
        message = {"role": "assistant", "content": "yes"}
        choice = {"message": message, "finish_reason": "stop", "logprobs": logs}
        return {"choices": [choice], "usage": {"prompt_tokens": READ, "completion_tokens": 1}}

    with serving(answer) as url:
        server = {"url": url, "members": [by], "concurrency": 1}
        values = with_teacher(told, fuse_with=[by, chosen], server=server)
        ensemble = context_of({**values, "out": str(tmp_path / "run")}).ensemble
        wanted = {query: ensemble.candidates("dev")[query]}
        known = ensemble.scores("dev", by, wanted)[query]
        assert len(known) == len(wanted[query]) - 1
        assert ensemble.pairs("dev", 1, wanted)[query][0] == list(known)
        assert ensemble.scores("dev", chosen, wanted)[query].keys() == known.keys()


def test_a_limit_is_of_one_run_and_the_next_goes_on(told, tmp_path):
    pytest.importorskip("openai")
    values, reader = {**told, "out": str(tmp_path / "run")}, Reader()
    context = context_of(values)
    choose_queries(context)
    retrieve_candidates(context)
    with serving(chat(reader)) as url:
        few = on(values, url, max_tokens=9 * READ, concurrency=1)
        with pytest.raises(Stopped):
            context_of(few).ensemble.score(SPEC, ["dev"])
        before = len(reader.asked)
        rest = context_of(on(values, url)).ensemble.score(SPEC, ["dev"])
    assert 0 < before < 9 < before + rest["scored"] == len(reader.asked) == len(set(reader.asked))


def test_keys_hold_what_changes_answers_and_not_where_the_server_is(told, tiny_decoder):
    plain = keys(on(told))
    for same in ({"url": "http://10.0.0.1:80/v1"}, {"concurrency": 2}, {"max_tokens": 9}):
        assert keys(on(told, **same)) == plain
    others = [
        keys(on(told, **other))
        for other in ({"api": "completions"}, {"structured": True}, {"logprobs": 40},
                      {"tokenizer": str(tiny_decoder)})
    ]  # fmt: skip
    other_name = with_teacher(told, fuse_with=["bm25", "listwise:another"])
    asked = [one[f"try:{SPEC}"] for one in (plain, *others)] + [
        keys(other_name)["try:listwise:another"]
    ]
    assert len(set(asked)) == len(asked)
    assert {one["try:bm25"] for one in (plain, *others)} == {plain["try:bm25"]}


def test_a_configuration_without_a_server_keeps_its_keys(told, tiny_decoder):
    """Also the keys of teachers that do not run on the server."""
    here = f"yesno:{tiny_decoder}"
    both = with_teacher(told, fuse_with=["bm25", SPEC, here], server=None)
    with pytest.raises(InputError, match="served-name"):
        plan(validate(Config, both))  # no such model here
    alone = keys(with_teacher(told, fuse_with=["bm25", here], server=None))
    server = {"url": NOWHERE, "members": [SPEC]}
    beside = keys(with_teacher(told, fuse_with=["bm25", here, SPEC], server=server))
    assert {name: beside[name] for name in (f"try:{here}", "try:bm25")} == {
        name: alone[name] for name in (f"try:{here}", "try:bm25")
    }


@pytest.mark.parametrize(
    ("members", "server", "problem"),
    [
        (["bm25"], {}, "it can run none of the teachers"),
        ([SPEC], {"members": ["bm25"]}, "server.members names 'bm25'"),
        ([SPEC + "&layers=3"], {}, "last layer"),
        ([SPEC], {"url": "localhost"}, "not a server's address"),
        ([SPEC], {"url": "http://me:secret@host/v1"}, "RETRIEVAL_KD_API_KEY"),
        ([SPEC], {"max_cost": 1.0}, "give prompt_price and answer_price"),
        ([SPEC], {"modle": "x"}, "unknown key"),
    ],
)
def test_a_server_that_cannot_be_asked_is_refused(members, server, problem, told):
    values = with_teacher(told, fuse_with=members, server={"url": NOWHERE, **server})
    with pytest.raises(InputError, match=problem) as refused:
        validate(Config, values)
    assert "secret" not in str(refused.value) and "secret" not in str(refused.value.__cause__)


def test_the_schema_describes_every_setting():
    described = Config.model_json_schema(by_alias=True)["$defs"]["TeacherServer"]["properties"]
    assert all(setting.get("description") for setting in described.values())
