"""Tiny real models and a tiny collection, built on the spot: nothing is downloaded or mocked."""

from __future__ import annotations

import json
import random
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

TOPICS = {
    "birds": "sparrow wing feather nest song migrate beak egg flock hawk",
    "ships": "harbour sail mast anchor cargo captain keel voyage deck tide",
    "music": "violin chord tempo melody concert rhythm sonata organ choir pitch",
    "stars": "orbit telescope nebula comet galaxy planet eclipse light dust moon",
    "bread": "flour yeast oven crust dough knead bakery rye loaf salt",
    "chess": "pawn bishop rook castle gambit board queen check mate knight",
}


def write_collection(folder: Path, documents_per_topic: int = 10) -> Path:
    """A BEIR folder: 60 documents, 36 queries (18 train, 9 dev, 9 test), graded judgments."""
    rng = random.Random(7)
    folder.mkdir(parents=True, exist_ok=True)
    documents, queries = [], []
    qrels: dict[str, list[tuple[str, str, int]]] = {"train": [], "dev": [], "test": []}
    for topic, words in TOPICS.items():
        for i in range(documents_per_topic):
            chosen = rng.sample(words.split(), 5)
            text = " ".join(rng.choices(chosen, k=14))
            documents.append({"_id": f"{topic}{i}", "title": f"{topic} {chosen[0]}", "text": text})
        for i in range(6):
            target = documents[-1 - i]
            query = " ".join(rng.sample(target["text"].split(), 3))
            queries.append({"_id": f"q-{topic}{i}", "text": query})
            split = ("train", "train", "train", "dev", "test", "test")[i]
            if split == "test" and i == 5 and topic in ("birds", "ships", "music"):
                split = "dev"
            qrels[split].append((f"q-{topic}{i}", target["_id"], 2))
            qrels[split].append((f"q-{topic}{i}", documents[-2 - i]["_id"], 1))
    (folder / "corpus.jsonl").write_text("".join(json.dumps(d) + "\n" for d in documents))
    (folder / "queries.jsonl").write_text("".join(json.dumps(q) + "\n" for q in queries))
    (folder / "qrels").mkdir(exist_ok=True)
    for split, rows in qrels.items():
        lines = ["query-id\tcorpus-id\tscore", *(f"{q}\t{d}\t{g}" for q, d, g in rows)]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def tokenizer() -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer of letters, pairs of letters and the topic words.

    It is written down, not trained: the trainer breaks ties differently in every process, so that
    models with the same seed would differ from run to run.
    """
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = sorted({word for topic, text in TOPICS.items() for word in [topic, *text.split()]})
    pairs = sorted({"##" + word[i : i + 2] for word in words for i in range(1, len(word) - 1)})
    pieces = [*ascii_lowercase, *("##" + letter for letter in ascii_lowercase), *pairs, *words]
    vocabulary = {piece: position for position, piece in enumerate([*special, *pieces])}
    tok = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tok.normalizer = normalizers.BertNormalizer(lowercase=True)
    tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tok.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(s, special.index(s)) for s in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tok,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    )


def _config(tok: PreTrainedTokenizerFast, layers: int, **more: int) -> BertConfig:
    return BertConfig(
        vocab_size=len(tok),
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        **more,
    )


def _save(folder: Path, *parts: Any) -> Path:
    """Save a transformer and its tokenizer."""
    for part in parts:
        part.save_pretrained(folder)
    return folder


def write_encoder(folder: Path, *, layers: int = 4, normalise: bool = True, seed: int = 0) -> Path:
    """A dense encoder of 32 dimensions; `normalise=False` makes a dot-product model."""
    torch.manual_seed(seed)
    tok = tokenizer()
    base = folder.parent / f"{folder.name}-transformer"
    _save(base, BertModel(_config(tok, layers)), tok)
    modules: list[torch.nn.Module] = [Transformer(str(base)), Pooling(32)]
    if normalise:
        modules.append(Normalize())
    model = SentenceTransformer(
        modules=modules, device="cpu", similarity_fn_name="cosine" if normalise else "dot"
    )
    model.max_seq_length = 32
    model.save(str(folder))
    return folder


def write_masked_lm(folder: Path) -> BertForMaskedLM:
    """A 2-layer transformer with its word head, as SPLADE models are published, without modules."""
    torch.manual_seed(0)
    tok = tokenizer()
    model = BertForMaskedLM(_config(tok, 2)).eval()
    _save(folder, model, tok)
    return model


def write_cross_encoder(folder: Path, *, layers: int = 2, seed: int = 0) -> Path:
    """A cross-encoder with one logit."""
    torch.manual_seed(seed)
    tok = tokenizer()
    base = folder.parent / f"{folder.name}-transformer"
    _save(base, BertForSequenceClassification(_config(tok, layers, num_labels=1)), tok)
    model = CrossEncoder(str(base), device="cpu")
    model.max_seq_length = 64
    model.save(str(folder))
    return folder


CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>\n"
    "{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def decoder_tokenizer(*, chat: bool = True) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer, as Llama-style models have it: any text, any token boundary."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = "yes no true false passage query relevant answer the of is a"
    lines = [" ".join([topic, words]) for topic, words in TOPICS.items()]
    tok.train_from_iterator([line for line in [*lines, words] for _ in range(3)], trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=tok,
        pad_token="<|pad|>",
        bos_token="<|begin|>",
        eos_token="<|end|>",
        additional_special_tokens=special[3:],
        model_max_length=1024,
    )
    if chat:
        made.chat_template = CHAT_TEMPLATE
    return made


def write_decoder(
    folder: Path, *, layers: int = 2, chat: bool = True, seed: int = 0, spread: float = 0.3
) -> Path:
    """A Llama-style decoder of 32 dimensions with its tokenizer, and a chat template if `chat`.

    `spread` is the standard deviation of its random weights. At the library's 0.02 all answers are
    nearly equally likely, and no test could distinguish a right number from a wrong one.
    """
    torch.manual_seed(seed)
    tok = decoder_tokenizer(chat=chat)
    config = LlamaConfig(
        vocab_size=len(tok),
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=1024,
        initializer_range=spread,
        pad_token_id=tok.pad_token_id,
        bos_token_id=tok.bos_token_id,
        eos_token_id=tok.eos_token_id,
    )
    return _save(folder, LlamaForCausalLM(config), tok)


def write_seq2seq(folder: Path, *, seed: int = 0) -> Path:
    """A T5-style encoder–decoder of 32 dimensions; its tokenizer ends every text with `<|end|>`."""
    torch.manual_seed(seed)
    tok = decoder_tokenizer(chat=False)
    tok.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|end|>", special_tokens=[("<|end|>", tok.eos_token_id)]
    )
    config = T5Config(
        vocab_size=len(tok),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        initializer_factor=2.0,
        pad_token_id=tok.pad_token_id,
        eos_token_id=tok.eos_token_id,
        decoder_start_token_id=tok.pad_token_id,
    )
    return _save(folder, T5ForConditionalGeneration(config), tok)
