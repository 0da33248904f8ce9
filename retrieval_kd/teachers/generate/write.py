"""Have a model write about many documents, and keep every answer: nothing is asked twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from retrieval_kd.data.texts import Document, Texts
from retrieval_kd.files import digest_json
from retrieval_kd.progress import bar
from retrieval_kd.store.digests import document_digest
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.usage import Spent, record_usage
from retrieval_kd.store.written import WrittenStore, WrittenText
from retrieval_kd.teachers.generate.queries import (
    SYSTEM,
    Kind,
    WrittenQueries,
    query_prompt,
    read_answer,
    write_queries,
)
from retrieval_kd.teachers.llm.prompts import QUOTING, quote
from retrieval_kd.teachers.llm.protocol import Completion, LanguageModel
from retrieval_kd.teachers.llm.server.call_log import CallLog
from retrieval_kd.teachers.llm.server.model import ServerModel

PART = 64  # documents between two shards: what a kill may lose in this process


@dataclass(frozen=True)
class QueryTask:
    """What is asked about each document. `write_queries` explains the fields."""

    kind: Kind = "queries"
    count: int = 3
    examples: tuple[tuple[str, str], ...] = ()
    passage_tokens: int = 384
    query_tokens: int = 48

    def key(self, model: LanguageModel) -> TeacherKey:
        """The key of the model's answers: everything that changes them but the documents."""
        shown = query_prompt("{document}", self.count, self.examples, self.kind).user
        prompt = digest_json([QUOTING, SYSTEM, shown, self.query_tokens])[:8]
        words = f"up to {self.count} {self.kind}: {len(self.examples)} examples, {prompt}"
        return TeacherKey(
            "queries", model.name, model.digest, words, self.passage_tokens, model.dtype
        )


@dataclass
class WritingReport:
    """What one call of `write_about` did.

    Args:
        answers: one for each document that has text, in the given order, without failed calls.
        reused: documents whose answer was stored before.
        without_text: IDs of documents of which a prompt would show nothing.
        failed: IDs of documents whose call failed; the next call asks about them again.
        failure: the most frequent reason of failed calls, with its count.
        spent: on the calls of this time, and on those that a killed command had logged.
    """

    answers: list[WrittenQueries] = field(default_factory=list)
    reused: int = 0
    without_text: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    failure: str = ""
    spent: Spent = field(default_factory=Spent)


def write_about(
    documents: Texts, ids: Sequence[str], model: LanguageModel, task: QueryTask, store: Path
) -> WritingReport:
    """Have the model write queries about documents, and store its answers word for word.

    An answer is found again by the text of its document, under the key of the model and the task.
    After every 64 documents the answers are on disk; of a server, every single one is in a log.

    Args:
        store: a folder; the answers are in the folder of it that the key's fingerprint names.

    Raises:
        InputError: an ID is unknown, or the store is damaged.
        Stopped: a limit was reached, or the server is gone; the answers so far are stored.
    """
    folder, report = store / task.key(model).fingerprint, WritingReport()
    with ExitStack() as stack:
        if isinstance(model, ServerModel):
            model.calls.reasons.clear()
            stack.callback(model.calls.close)
            model.calls.keep_in(stack.enter_context(CallLog(folder)))
        try:
            _write(documents, ids, model, task, folder, report)
        finally:
            report.spent = _spent(model)
            record_usage(folder, report.spent)
    if isinstance(model, ServerModel):
        if model.calls.reasons:
            report.failure = "{} ({} ×)".format(*model.calls.reasons.most_common(1)[0])
        if model.calls.stopped is not None:
            raise model.calls.stopped
    return report


def _write(
    documents: Texts,
    ids: Sequence[str],
    model: LanguageModel,
    task: QueryTask,
    folder: Path,
    report: WritingReport,
) -> None:
    with (
        WrittenStore(folder, task.key(model)) as store,
        bar(f"writing {task.kind}", len(ids)) as progress,
    ):
        known = store.read()
        for start in range(0, len(ids), PART):
            part = ids[start : start + PART]
            shown = dict(_shown(documents, part, report))
            new = {digest: document for digest, document in shown.values() if digest not in known}
            report.reused += sum(digest in known for digest, _ in shown.values())
            known |= _ask(model, task, store, new)
            for id, (digest, _) in shown.items():
                if (found := known.get(digest)) is None:
                    report.failed.append(id)
                else:
                    answer = Completion(found.text, found.status)  # type: ignore[arg-type]
                    report.answers.append(read_answer(id, answer, task.count))
            progress.advance(len(part))


def _shown(
    documents: Texts, ids: Sequence[str], report: WritingReport
) -> Iterator[tuple[str, tuple[str, Document]]]:
    """Yield ID → digest and document of those that have text."""
    for id in ids:
        document = documents[id]
        if quote(document.full):
            yield id, (document_digest(document.title, document.text), document)
        else:
            report.without_text.append(id)


def _ask(
    model: LanguageModel, task: QueryTask, store: WrittenStore, new: dict[str, Document]
) -> dict[str, WrittenText]:
    """Ask about documents of distinct texts, and store the answers that came."""
    if not new:
        return {}
    settings = {name: value for name, value in asdict(task).items() if name != "examples"}
    texts = {digest: document.full for digest, document in new.items()}
    written = write_queries(model, texts, examples=task.examples, **settings)
    rows = {
        one.document: WrittenText(
            new[one.document].id,
            one.document,
            one.answer,
            one.problem if one.problem == "cut off" else "ok",
        )
        for one in written
        if one.problem != "failed"
    }
    store.add(list(rows.values()))
    return rows


def _spent(model: LanguageModel) -> Spent:
    usage = model.usage
    tokens = (usage.prompt_tokens, usage.answer_tokens)
    cost = model.calls.settings.cost(*tokens) if isinstance(model, ServerModel) else 0.0
    return Spent(**asdict(usage), cost=cost)
