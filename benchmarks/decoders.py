"""Trains a small decoder teacher: Llama's architecture, its own tokenizer, real collections.

    python -m benchmarks.decoders --out models/decoder [--minutes 30] [--seed 0]

For machines that cannot download a language model. The decoder ranks clearly better than chance
with the prompts of the real teachers: yes/no, pairs, orders and likelihood. It is trained on the
train splits of squad and wikiqa and on queries made of passages, measured on test questions
against chance, and saved as a transformers folder.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import ttest_1samp
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.decoder_examples import (
    TASKS,
    Example,
    JudgedQuery,
    examples,
    judged_queries,
    texts_of,
)
from benchmarks.measure import save
from retrieval_kd import Collection, Run, ScoreStore, evaluate, open_collection, open_teacher
from retrieval_kd.retrieval.bm25 import bm25_run
from retrieval_kd.teachers.comparing.set_prompts import ORDER_TEMPLATES, PAIR_TEMPLATES
from retrieval_kd.teachers.llm.decoder import LocalModel
from retrieval_kd.teachers.pointwise.likelihood import TEMPLATES as LIKELIHOOD
from retrieval_kd.teachers.pointwise.yes_no import TEMPLATES as YES_NO
from retrieval_kd.teachers.score import score, scores_of

SPECIAL = ["<|pad|>", "<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
CHAT = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>\n"
    "{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
OWN_WORDS = [
    f"{t.system} {t.user} {' '.join(t.answers)}\nyes\nno\nA\nB\n[1] > [2] > [3] > [4]"
    for t in (YES_NO[0], LIKELIHOOD[0], PAIR_TEMPLATES[0], ORDER_TEMPLATES[0])
]  # the teachers' own words, for the tokenizer
HEAD = 32  # dimensions of a head
CHOICES = ("yes/no", "pair", "first")  # the reported loss is the first token's, not the answer's
FIRST = ("yes/no", "likelihood")  # tasks with one passage, the only ones at the start
EASY = 0.3  # share of the training time with the tasks in FIRST alone
WEIGHT = {"yes/no": 1.0, "pair": 1.0, "order": 3.0, "first": 1.0, "likelihood": 0.5}
MEASURE = "ndcg@10"
TEACHERS = {
    "yes/no": "yesno:{model}?passage_tokens={tokens}",
    "query likelihood": "likelihood:{model}?passage_tokens={tokens}",
    "pairs, both orders": "pairwise:{model}?passage_tokens={tokens}",
    "lists": "listwise:{model}?window=4&stride=2&passage_tokens={tokens}",
    "lists by first logits": "listwise:{model}?answer=logits&window=4&stride=2"
    "&passage_tokens={tokens}",
}
TASK_OF = {  # the training task of each kind of teacher
    "yes/no": "yes/no",
    "query likelihood": "likelihood",
    "pairs, both orders": "pair",
    "lists": "order",
    "lists by first logits": "first",
}


def main() -> None:
    """Train, measure, save; write results/decoder-FOLDER.json."""
    arguments = parse()
    collections = [open_collection(name) for name in ("squad", "wikiqa")]
    judged = [judged_queries(collection, "train") for collection in collections]
    texts = [text for collection in collections for text in texts_of(collection, 20_000)]
    folder = Path(arguments.out)
    torch.manual_seed(arguments.seed)
    if arguments.go_on is None:
        begin(folder, texts, judged, arguments)
    else:
        shutil.copytree(arguments.go_on, folder, dirs_exist_ok=True)
    started = time.monotonic()
    losses = train(folder, [one for part in judged for one in part], texts, arguments)
    took = time.monotonic() - started
    teachers = {way: spec for way, spec in TEACHERS.items() if TASK_OF[way] in arguments.tasks}
    ranking = measured(
        folder, collections, arguments.queries, seed=arguments.seed, teachers=teachers
    )
    start = arguments.go_on and Path(arguments.go_on).name
    settings = vars(arguments) | {"out": folder.name, "go_on": start}
    record = {"settings": settings, "seconds": round(took), "losses": losses, "ranking": ranking}
    print(save(f"decoder-{folder.name}", record))


def begin(
    folder: Path, texts: Sequence[str], judged: Sequence[Sequence[JudgedQuery]], arguments: Any
) -> None:
    """Write an untrained decoder and its tokenizer."""
    tokenizer = make_tokenizer(texts, judged, arguments.vocabulary)
    width, heads = arguments.width, arguments.width // HEAD
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=arguments.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=2 * width,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},  # most pairs hardly rotate
        attention_bias=True,
        initializer_range=0.04,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    attend_to_equal_tokens(model, tokenizer.bos_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@torch.no_grad()
def attend_to_equal_tokens(model: Any, begin: int, turning: int = 6) -> None:
    """Initialise the second layer so that tokens attend to earlier tokens like themselves.

    Whether a passage has the query's words is most of what so small a model can learn, but it takes
    thousands of steps to learn that queries and keys must be alike. Rotary positions rotate a
    head's pairs of dimensions at falling speeds. The slow pairs start with the same projection for
    queries and keys. The `turning` fast pairs start with constants that add up to a penalty at
    distance 0 and cancel out at larger distances. A token without a match attends to the first
    token, which has a direction of its own.
    """
    half = HEAD // 2
    query, key = (getattr(model.model.layers[1].self_attn, n) for n in ("q_proj", "k_proj"))
    torch.nn.init.orthogonal_(query.weight)
    query.weight *= 2.1
    fast = torch.arange(len(query.weight)) % half < turning
    query.weight[fast] = 0
    key.weight.copy_(query.weight)
    first = torch.arange(len(fast)) % HEAD < turning  # one dimension of each fast pair
    query.bias[first], key.bias[first] = 3.0, -3.0
    words = model.model.embed_tokens.weight  # (V, D)
    words *= 3
    words[:, 0] = 0
    words[begin] = 0
    words[begin, 0] = 1
    query.weight[:, 0] = key.weight[:, 0] = 0
    slowest = torch.arange(len(fast)) % HEAD == half - 1
    query.weight[slowest] = key.weight[slowest] = 0
    query.bias[slowest] = 7.0
    key.weight[slowest, 0] = 1.0  # of a normalised state: sqrt(D) at the first token


def make_tokenizer(
    texts: Sequence[str], judged: Sequence[Sequence[JudgedQuery]], vocabulary: int
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on the collections' texts and the teachers' own words."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    queries = [one.query for part in judged for one in part]
    tok.train_from_iterator([*texts, *queries, *OWN_WORDS * 1_000], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tok,
        pad_token=SPECIAL[0],
        bos_token=SPECIAL[1],
        eos_token=SPECIAL[2],
        additional_special_tokens=SPECIAL[3:],
        model_max_length=4096,
    )
    tokenizer.chat_template = CHAT
    return tokenizer


def train(
    folder: Path, judged: Sequence[JudgedQuery], texts: Sequence[str], arguments: Any
) -> list[dict[str, float]]:
    """Train the model in `folder` until time is up. Returns each task's loss, every 50 steps."""
    reader = LocalModel(str(folder), dtype=torch.float32)
    model = reader.model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=arguments.rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    single = [task for task in arguments.tasks if task in FIRST] or arguments.tasks
    drawn = examples(judged, texts, reader, arguments.seed, tasks=single, hard=arguments.hard)
    easy = EASY if arguments.go_on is None else 0.0
    later = examples(
        judged, texts, reader, arguments.seed + 1, tasks=arguments.tasks, hard=arguments.hard
    )
    end = time.monotonic() + 60 * arguments.minutes
    history: list[dict[str, float]] = []
    recent: dict[str, list[float]] = {}
    step = 0
    started = time.monotonic()
    while (now := time.monotonic()) < end:
        step += 1
        done = (now - started) / (end - started)
        warm = min(1.0, step / 50)
        for group in optimizer.param_groups:
            group["lr"] = arguments.rate * warm * (1 - 0.9 * done)
        batch = [next(drawn if done < easy else later) for _ in range(arguments.batch)]
        losses, firsts, kinds = answer_losses(model, reader, batch)
        weights = torch.tensor([WEIGHT[kind] for kind in kinds])
        loss = (losses * weights).sum() / weights.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        for kind, whole, first in zip(kinds, losses.tolist(), firsts.tolist(), strict=True):
            recent.setdefault(kind, []).append(first if kind in CHOICES else whole)
        if step % 50 == 0:
            means = {kind: round(float(np.mean(v)), 3) for kind, v in sorted(recent.items())}
            history.append({"step": step, "minutes": round((now - started) / 60, 1), **means})
            print(history[-1], flush=True)
            recent.clear()
        if step % 100 == 0:
            model.save_pretrained(folder)
    model.save_pretrained(folder)
    return history


def answer_losses(
    model: Any, reader: LocalModel, batch: Sequence[Example]
) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Return each example's mean loss `(B,)` over its answer and end token, its first token's loss
    `(B,)`, and its task."""
    texts = [reader.renderer.render(one.prompt) for one in batch]
    sequences, lengths = reader.renderer.continued(texts, [one.answer for one in batch])
    end = reader.tokenizer.eos_token_id
    sequences = [[*sequence, end] for sequence in sequences]
    longest = max(map(len, sequences))
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    targets = torch.full((len(batch), longest), -100)
    for row, (sequence, length) in enumerate(zip(sequences, lengths, strict=True)):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        targets[row, len(sequence) - length - 1 : len(sequence)] = torch.tensor(
            sequence[-length - 1 :]
        )
    states = model.model(input_ids=ids).last_hidden_state[:, :-1]  # (B, L-1, D)
    in_answer = targets[:, 1:] != -100  # (B, L-1)
    logits = model.lm_head(states[in_answer])  # (answer tokens, V)
    each = cross_entropy(logits.float(), targets[:, 1:][in_answer], reduction="none")
    rows = torch.arange(len(batch))[:, None].expand_as(in_answer)[in_answer]
    sums = torch.zeros(len(batch)).index_add(0, rows, each)
    firsts = rows.diff(prepend=torch.tensor([-1])) > 0  # the token that decides a choice
    counts = torch.bincount(rows, minlength=len(batch))
    return sums / counts, each[firsts].detach(), [one.task for one in batch]


def measured(
    folder: Path,
    collections: Sequence[Collection],
    queries: int,
    *,
    seed: int,
    depth: int = 8,
    tokens: int = 96,
    teachers: Mapping[str, str] = TEACHERS,
) -> dict[str, Any]:
    """Measure nDCG@10 of re-ranking `depth` shuffled candidates of test queries.

    Candidates are the relevant documents and BM25's first other documents. Chance is the mean over
    random orders of the same candidates.
    """
    results: dict[str, Any] = {}
    for collection in collections:
        candidates = candidates_of(collection, queries, depth, seed)
        texts, qrels = collection.query_texts("test"), collection.qrels("test")
        judged = {query: qrels[query] for query in candidates}
        chance = chance_of(judged, candidates, seed)
        name = Path(collection.spec).stem
        results[name] = {"queries": len(candidates), "chance": round(float(chance.mean()), 4)}
        for way, spec in teachers.items():
            with tempfile.TemporaryDirectory() as store:
                teacher = open_teacher(spec.format(model=folder, tokens=tokens), collection)
                score(collection, texts, candidates, teacher, ScoreStore(store))
                scores = scores_of(collection, texts, candidates, ScoreStore(store), teacher.key)
            run = Run(way, {query: scores.get(query, {}) for query in candidates})
            values = evaluate(judged, [run], [MEASURE]).per_query[way][MEASURE]
            own = np.array([values[query] for query in judged])
            usage = teacher.model.usage  # type: ignore[union-attr]
            results[name][way] = {
                MEASURE: round(float(own.mean()), 4),
                "p against chance": float(ttest_1samp(own - chance, 0).pvalue),
                "documents ranked": sum(map(len, scores.values())),
                "calls": usage.calls,
                "tokens": usage.prompt_tokens + usage.answer_tokens,
                "seconds": round(usage.seconds, 1),
            }
            print(name, way, results[name][way], "chance", results[name]["chance"], flush=True)
    return results


def candidates_of(collection: Collection, most: int, depth: int, seed: int) -> dict[str, list[str]]:
    """Draw test queries, each with its relevant documents and BM25's first others, shuffled."""
    rng = np.random.default_rng(seed)
    texts, qrels = collection.query_texts("test"), collection.qrels("test")
    drawn = sorted(rng.permutation(sorted(texts))[:most].tolist())
    run = bm25_run(collection, {query: texts[query] for query in drawn}, 2 * depth)
    candidates = {}
    for query in drawn:
        right = [d for d, gain in qrels[query].items() if gain > 0][: depth // 2]
        others = [d for d in run.results.get(query, {}) if d not in qrels[query]]
        documents = [*right, *others][:depth]
        candidates[query] = [documents[i] for i in rng.permutation(len(documents))]
    return candidates


def chance_of(
    judged: Mapping[str, Mapping[str, int]], candidates: Mapping[str, Sequence[str]], seed: int
) -> np.ndarray:
    """Each query's mean nDCG@10 over 50 random orders of its candidates: `(queries,)`."""
    rng = np.random.default_rng(seed)
    runs = [
        Run(
            str(i),
            {q: dict(zip(ids, rng.random(len(ids)), strict=True)) for q, ids in candidates.items()},
        )
        for i in range(50)
    ]
    evaluation = evaluate(judged, runs, [MEASURE])
    orders = [[evaluation.per_query[run.name][MEASURE][q] for q in judged] for run in runs]
    return np.mean(orders, axis=0)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="folder for the model")
    parser.add_argument("--go-on", help="folder of a decoder from this program to train further")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--hard", type=float, default=0.3, help="share of BM25's among negatives")
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--vocabulary", type=int, default=6_000)
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=TASKS,
        choices=TASKS,
        help="a task named twice is drawn twice as often",
    )
    parser.add_argument("--queries", type=int, default=60, help="queries per test split")
    return parser.parse_args()


if __name__ == "__main__":
    main()
