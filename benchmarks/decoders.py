"""A small decoder teacher, trained here: Llama's architecture, its own tokenizer, real collections.

    python -m benchmarks.decoders --out models/decoder [--minutes 30] [--seed 0]

Where no language model can be downloaded, this makes one that ranks clearly better than chance when
asked as the real teachers ask: yes or no, which of two, in what order, and by likelihood. It is
trained on the train splits of squad and wikiqa and on their passages' own words; it is measured
on test questions, against chance in the same run, and saved as a transformers folder.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.decoder_lessons import TASKS, Known, TrainingStage, known_of, lessons, texts_of
from benchmarks.decoder_measure import ASKED, TASK_OF, measured
from benchmarks.measure import save
from retrieval_kd.data.collection import open_collection
from retrieval_kd.teachers.comparing.set_prompts import ORDER_TEMPLATES, PAIR_TEMPLATES
from retrieval_kd.teachers.llm.decoder import LocalModel
from retrieval_kd.teachers.pointwise.likelihood import TEMPLATES as LIKELIHOOD
from retrieval_kd.teachers.pointwise.yes_no import TEMPLATES as YES_NO

SPECIAL = ["<|pad|>", "<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
CHAT = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>\n"
    "{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def main() -> None:
    """Train, measure, save; write results/decoder-FOLDER.json."""
    arguments = parse()
    collections = [open_collection(name) for name in ("squad", "wikiqa")]
    known = [known_of(collection, "train") for collection in collections]
    texts = [text for collection in collections for text in texts_of(collection, 20_000)]
    folder = Path(arguments.out)
    torch.manual_seed(arguments.seed)
    if arguments.go_on is None:
        begin(folder, texts, known, arguments)
    else:
        shutil.copytree(arguments.go_on, folder, dirs_exist_ok=True)
    started = time.monotonic()
    losses = train(folder, [one for part in known for one in part], texts, arguments)
    took = time.monotonic() - started
    asked = {way: spec for way, spec in ASKED.items() if TASK_OF[way] in arguments.tasks}
    found = measured(folder, collections, arguments.queries, seed=arguments.seed, asked=asked)
    begun = arguments.go_on and Path(arguments.go_on).name
    settings = vars(arguments) | {"out": folder.name, "go_on": begun}
    record = {"settings": settings, "seconds": round(took), "losses": losses, "ranking": found}
    print(save(f"decoder-{folder.name}", record))


def begin(
    folder: Path, texts: Sequence[str], known: Sequence[Sequence[Known]], arguments: Any
) -> None:
    """Write an untrained decoder and its tokenizer."""
    tokenizer = make_tokenizer(texts, known, arguments.vocabulary)
    width, heads = arguments.width, arguments.width // HEAD
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=arguments.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=2 * width,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},  # most pairs hardly turn
        attention_bias=True,
        initializer_range=0.04,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    look_at_the_same(model, tokenizer.bos_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@torch.no_grad()
def look_at_the_same(model: Any, begin: int, turning: int = 6) -> None:
    """Let the second layer begin by looking at earlier tokens that are like the one at hand.

    Whether a passage has the query's words is most of what so small a model can learn, and to find
    out by itself that queries and keys must be alike takes it thousands of steps. Of a head's pairs
    of dimensions, which rotary positions turn at falling speeds, the slow ones begin with queries
    and keys of one projection; the `turning` fast ones with constants that sum to a penalty on
    distance 0, and cancel out at larger ones. Where nothing is alike a token looks at the first,
    which has a direction of its own.
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
    texts: Sequence[str], known: Sequence[Sequence[Known]], vocabulary: int
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of the collections' texts and of the teachers' own words."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    queries = [one.query for part in known for one in part]
    tok.train_from_iterator([*texts, *queries, *OWN_WORDS * 1_000], trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=tok,
        pad_token=SPECIAL[0],
        bos_token=SPECIAL[1],
        eos_token=SPECIAL[2],
        additional_special_tokens=SPECIAL[3:],
        model_max_length=4096,
    )
    made.chat_template = CHAT
    return made


def train(
    folder: Path, known: Sequence[Known], texts: Sequence[str], arguments: Any
) -> list[dict[str, float]]:
    """Train what lies in `folder` until the time is over; the losses of each task on the way."""
    reader = LocalModel(str(folder), dtype=torch.float32)
    model = reader.model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=arguments.rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    single = [task for task in arguments.tasks if task in FIRST] or arguments.tasks
    drawn = lessons(known, texts, reader, arguments.seed, tasks=single, hard=arguments.hard)
    easy = EASY if arguments.go_on is None else 0.0
    later = lessons(
        known, texts, reader, arguments.seed + 1, tasks=arguments.tasks, hard=arguments.hard
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
        for kind, one, first in zip(kinds, losses.tolist(), firsts.tolist(), strict=True):
            recent.setdefault(kind, []).append(first if kind in CHOICES else one)
        if step % 50 == 0:
            means = {kind: round(float(np.mean(v)), 3) for kind, v in sorted(recent.items())}
            history.append({"step": step, "minutes": round((now - started) / 60, 1), **means})
            print(history[-1], flush=True)
            recent.clear()
        if step % 100 == 0:
            model.save_pretrained(folder)
    model.save_pretrained(folder)
    return history


OWN_WORDS = [
    f"{t.system} {t.user} {' '.join(t.answers)}\nyes\nno\nA\nB\n[1] > [2] > [3] > [4]"
    for t in (YES_NO[0], LIKELIHOOD[0], PAIR_TEMPLATES[0], ORDER_TEMPLATES[0])
]
HEAD = 32  # dimensions of a head
CHOICES = (
    "yes/no",
    "pair",
    "first",
)  # of these the first word's loss is reported, else the whole answer's
FIRST = ("yes/no", "likelihood")  # of one passage: these tasks alone for the first part, `EASY`
EASY = 0.3
WEIGHT = {"yes/no": 1.0, "pair": 1.0, "order": 3.0, "first": 1.0, "likelihood": 0.5}


def answer_losses(
    model: Any, reader: LocalModel, batch: Sequence[TrainingStage]
) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Mean loss of each lesson's answer, its end included, (B,); its first token's; its task."""
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
    wanted = targets[:, 1:] != -100
    logits = model.lm_head(states[wanted])  # (answer tokens, V)
    each = cross_entropy(logits.float(), targets[:, 1:][wanted], reduction="none")
    rows = torch.arange(len(batch))[:, None].expand_as(wanted)[wanted]
    sums = torch.zeros(len(batch)).index_add(0, rows, each)
    firsts = rows.diff(prepend=torch.tensor([-1])) > 0  # of a choice, what decides it
    counts = torch.bincount(rows, minlength=len(batch))
    return sums / counts, each[firsts].detach(), [one.task for one in batch]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="folder for the model")
    parser.add_argument("--go-on", help="folder of a decoder made here, to be trained further")
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
        help="named twice, it comes twice as often",
    )
    parser.add_argument("--queries", type=int, default=60, help="of each test split")
    return parser.parse_args()


if __name__ == "__main__":
    main()
