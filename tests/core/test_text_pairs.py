"""Texts that are written: pairs of texts, models that write, and the heads that judge them."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

pytest.importorskip("transformers")

import stillhouse
from stillhouse.errors import DataError, IncompatibleError, OptionError, TrainingError
from stillhouse.forwarding import TOKENS, VALUES, all_rows, most_tokens, predict_split
from stillhouse.kinds import OutputKind
from stillhouse.plugins.manager import default_manager
from stillhouse.recipe.check import resolve
from stillhouse.testing import run_tiny
from stillhouse.text import PairReader, Tokenizer, pair_splits
from stillhouse.text.datasets import synthetic_pairs, text_pairs
from stillhouse.text.generators import hf_causal, hf_seq2seq, until_end
from stillhouse.text.heads import FACTS, Generation, Translation, rouge
from stillhouse.text.pairs import Rewritten, text_bytes, texts_of
from stillhouse.text.ragged import Ragged
from stillhouse.trained import build, load
from stillhouse.types import DataContext, Splits, Task

INPUTS = ("source", "source_mask", "given")
WRITERS = [hf_seq2seq, hf_causal]
T5 = {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
SMALL = {"core/hf-seq2seq": T5, "core/hf-causal": LLAMA}


def made(rows: int = 80) -> Splits:
    return synthetic_pairs(DataContext(root=Path(), base=Path()), rows=rows)


def task(splits: Splits) -> Task:
    return Task(info=splits.info, kind=OutputKind.SEQUENCE, outputs=splits.info.meta["vocabulary"])


def writer(make: Any, splits: Splits, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model: nn.Module = make(task(splits), config=T5 if make is hf_seq2seq else LLAMA)
    return model.eval()


def recipe(model: str = "core/hf-seq2seq", **changes: Any) -> dict[str, Any]:
    return {
        "name": "pairs",
        "head": "core/generation",
        "dataset": {"use": "core/synthetic-pairs", "rows": 80},
        "teacher": {"use": "core/hf-seq2seq", "config": T5},
        "student": {"use": model, "config": SMALL.get(model, T5)},
        **changes,
    }


# Rows ----------------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(rows=st.lists(st.lists(st.integers(0, 99), max_size=7), min_size=1, max_size=9), fill=st.sampled_from([0, -100]))
def test_ragged_rows_come_back_padded_with_their_fill(rows: list[list[int]], fill: int) -> None:
    ragged = Ragged(rows, fill=fill)
    values, there = ragged.batch(torch.arange(len(rows)))
    assert values.shape == there.shape == (len(rows), max(map(len, rows)))
    for row, got, kept in zip(rows, values, there, strict=True):
        assert got[kept].tolist() == row
        assert set(got[~kept].tolist()) <= {fill}


@settings(max_examples=40)
@given(st.lists(st.text(), min_size=1, max_size=5))
def test_texts_go_through_bytes_unchanged(texts: list[str]) -> None:
    texts = [text.replace("\0", "").encode("utf-8", "ignore").decode() for text in texts]
    assert texts_of(text_bytes(texts).batch(torch.arange(len(texts)))[0]) == texts


@pytest.fixture(scope="module")
def byte_bpe() -> Tokenizer:
    return Tokenizer.train(["Die Straße ist naß.", "No acute disease."] * 3, kind="byte-bpe", vocabulary=300)


@settings(max_examples=60)
@given(text=st.text(max_size=60))
def test_a_tokenizer_over_bytes_gives_every_text_back(byte_bpe: Tokenizer, text: str) -> None:
    text = text.encode("utf-8", "ignore").decode()
    if any(token in text for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")):
        return
    (ids,) = byte_bpe.encode([text], max_length=1000, special=False)
    assert byte_bpe.decode(ids) == text or not text


def test_a_tokenizer_over_bytes_is_a_function_of_its_texts_and_has_room_for_every_byte(byte_bpe: Tokenizer) -> None:
    again = Tokenizer.train(["Die Straße ist naß.", "No acute disease."] * 3, kind="byte-bpe", vocabulary=300)
    assert again.state() == byte_bpe.state()
    assert Tokenizer.from_state(json.loads(json.dumps(byte_bpe.state()))).state() == byte_bpe.state()
    (ids,) = byte_bpe.encode(["No acute disease."], max_length=1000)
    assert (ids[0], ids[-1]) == (byte_bpe.start, byte_bpe.end)
    with pytest.raises(OptionError, match="over bytes cannot have 200 tokens"):
        Tokenizer.train(["a"], kind="byte-bpe", vocabulary=200)


def test_a_row_has_what_is_read_what_is_written_and_the_whole_reference() -> None:
    long = "the end of a very long order " * 20
    sources = [f"report {number} of machine {chr(97 + number % 20)}" for number in range(40)]
    targets = [long.strip() if number % 4 == 0 else f"Do {number}." for number in range(40)]
    splits = pair_splits(sources, targets, seed=0, vocabulary=300, max_target=8)
    facts, tokenizer = splits.info.meta["text"], Tokenizer.from_state(splits.info.meta["text"]["state"])
    batch = splits.test.batch(range(len(splits.test)))
    assert batch["target"].shape == batch["given"].shape
    assert batch["target"].shape[1] == 8, "targets are cut"
    assert texts_of(batch["reference"]) == [targets[int(at)] for at in batch["index"]], "references are not"
    for given_ids, target in zip(batch["given"], batch["target"], strict=True):
        valid = target != -100
        assert int(given_ids[0]) == facts["start"]
        assert given_ids[1 : int(valid.sum())].tolist() == target[valid][:-1].tolist()
        assert int(target[valid][-1]) == facts["end"]
        assert set(given_ids[~valid].tolist()) <= {facts["pad"]}
    short = [at for at, text in enumerate(texts_of(batch["reference"])) if len(text) < 8]
    for at in short:
        ids = batch["target"][at][batch["target"][at] >= 0].tolist()
        assert tokenizer.decode(ids) == targets[int(batch["index"][at])]
    training = [targets[int(at)] for at in splits.train.index()]
    assert facts["commonest"] == long.strip()
    assert facts["truncated"] == pytest.approx(np.mean([len(text) > 8 for text in training]), abs=0.2)
    assert set(texts_of(batch["retrieved"])) <= set(training), "retrieved from training rows alone"
    assert texts_of(splits.train.batch([0])["retrieved"]) == [""]


def test_repeated_sources_stay_in_one_split_or_are_told_apart() -> None:
    sources = [f"the lungs are clear {chr(97 + number % 6)}" for number in range(60)]
    targets = ["Normal."] * 60
    drawn = pair_splits(sources, targets, seed=0, vocabulary=300)
    kept = {name: {sources[int(at)] for at in split.index()} for name, split in drawn.named().items()}
    assert not kept["train"] & kept["test"]
    assert bool(drawn.test.columns(["apart"])["apart"].all()), "all sources are new"
    parts = {"train": range(40), "val": range(40, 50), "test": range(50, 60)}
    flags = [number == 55 for number in range(60)]
    told = pair_splits(sources, targets, seed=0, vocabulary=300, parts=parts, apart={"odd": flags})
    assert told.info.meta["text"]["apart"] == ["odd", "new"]
    assert told.test.columns(["apart"])["apart"].tolist() == [[number == 55, False] for number in range(50, 60)]
    assert texts_of(told.test.columns(["retrieved"])["retrieved"]) == ["Normal."] * 10


def test_own_pairs_are_read_and_errors_name_the_column(tmp_path: Path) -> None:
    rows = [f"pump {number} of hall {number % 7} leaks,Mend pump {number}." for number in range(40)]
    (tmp_path / "pairs.csv").write_text("read,write\n" + "\n".join(rows) + "\n")
    context = DataContext(root=tmp_path, base=tmp_path)
    splits = text_pairs(context, path=Path("pairs.csv"), source="read", target="write", vocabulary=300, overlap=1.0)
    assert sum(len(split) for split in splits.named().values()) == 40
    with pytest.raises(DataError, match="target"):
        text_pairs(context, path=Path("pairs.csv"), source="read")
    with pytest.raises(OptionError, match="max_target 1"):
        text_pairs(context, path=Path("pairs.csv"), source="read", target="write", max_target=1)


def test_the_reader_gives_rows_of_which_nothing_is_written(tmp_path: Path) -> None:
    splits = made()
    assert isinstance(splits.reader, PairReader)
    reader = PairReader.from_state(json.loads(json.dumps(splits.reader.state())))
    (tmp_path / "new.txt").write_text("the pump leaks oil\n\nline seven works fine again\n")
    rows, told = reader.read(tmp_path / "new.txt")
    assert told == {"row": [1, 3], "text": ["the pump leaks oil", "line seven works fine again"]}
    assert rows.batch([0, 1])["given"].tolist() == [[reader.tokenizer.start]] * 2


def test_rewritten_rows_have_other_texts_to_write_and_nothing_else() -> None:
    splits = made()
    facts = splits.info.meta["text"]
    ends = {name: facts[name] for name in ("start", "end", "pad")}
    other = Rewritten(splits.train, [[9, 8, 7]] * len(splits.train), **ends)
    before, after = splits.train.batch([3, 1]), other.batch([3, 1])
    assert after["target"].tolist() == [[9, 8, 7, facts["end"]]] * 2
    assert after["given"].tolist() == [[facts["start"], 9, 8, 7]] * 2
    assert all(torch.equal(before[name], after[name]) for name in before if name not in ("given", "target"))
    assert set(other.row(0)) == set(after)
    assert other.columns(["target", "index"])["target"].shape == (len(other), 4)
    again = Rewritten(splits.train, [[9, 8]] * len(splits.train), **ends)
    assert len({splits.train.fingerprint(), other.fingerprint(), again.fingerprint()}) == 3
    with pytest.raises(ValueError, match="1 texts for"):
        Rewritten(splits.train, [[1]], **ends)


# Models --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", WRITERS)
def test_padding_of_what_is_read_and_written_has_no_part_in_the_logits(make: Any) -> None:
    splits = made()
    model = writer(make, splits)
    lengths = splits.train.lengths
    assert lengths is not None
    short, long = int(np.argmin(lengths)), int(np.argmax(lengths))
    batch, alone = splits.train.batch([long, short]), splits.train.batch([short])
    assert batch["source"].shape[1] > alone["source"].shape[1]
    together = model(*(batch[name] for name in INPUTS))[1, : alone["given"].shape[1]]
    torch.testing.assert_close(together, model(*(alone[name] for name in INPUTS))[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", WRITERS)
def test_what_is_written_is_the_likeliest_token_each_time(make: Any) -> None:
    splits = made()
    torch.manual_seed(0)
    config = {**(T5 if make is hf_seq2seq else LLAMA), "tie_word_embeddings": False}
    model = make(task(splits), config=config).eval()
    for each in model.parameters():
        nn.init.normal_(each, std=1.0)  # else it repeats itself from the start
    batch = splits.train.batch(range(6))
    source, mask = batch["source"], batch["source_mask"]
    written = model.generate(source, mask, max_tokens=7)
    assert written.shape == (6, 7)
    assert len(set(written.flatten().tolist())) > 3
    given_ids = torch.cat([torch.full((6, 1), model.start), written[:, :-1]], dim=1)
    kept = until_end(written, model.end)
    assert torch.equal(model(source, mask, given_ids).argmax(dim=2)[kept], written[kept])
    alone = model.generate(*(splits.train.batch([4])[name] for name in INPUTS[:2]), max_tokens=7)
    assert torch.equal(alone[0], written[4]), "a row is written alike whatever it stands beside"


@pytest.mark.parametrize("make", WRITERS)
def test_beams_find_texts_at_least_as_likely_and_draws_follow_the_seed(make: Any) -> None:
    splits = made()
    model = writer(make, splits)
    batch = splits.train.batch(range(8))
    source, mask = batch["source"], batch["source_mask"]

    def likelihood(written: Tensor) -> Tensor:
        given_ids = torch.cat([torch.full((8, 1), model.start), written[:, :-1]], dim=1)
        with torch.no_grad():
            logs = model(source, mask, given_ids).log_softmax(dim=2).gather(2, written.unsqueeze(2)).squeeze(2)
        kept = until_end(written, model.end)
        return (logs * kept).sum(dim=1) / kept.sum(dim=1)

    greedy = likelihood(model.generate(source, mask, max_tokens=5))
    beamed = likelihood(model.generate(source, mask, max_tokens=5, beams=6))
    assert bool((beamed >= greedy - 1e-5).float().mean() > 0.7)
    assert float(beamed.mean()) >= float(greedy.mean()) - 1e-6
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(model.train().generate(source, mask, max_tokens=5, sample=True))
        assert model.training, "the mode is restored"
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_texts_end_at_their_first_end() -> None:
    written = torch.tensor([[5, 9, 2, 2], [2, 5, 5, 5], [5, 5, 5, 5]])
    assert until_end(written, 2).tolist() == [[True, True, True, False], [True, False, False, False], [True] * 4]


@pytest.mark.parametrize("name", SMALL)
def test_a_pretrained_writer_is_built_again_without_what_it_started_from(name: str, tmp_path: Path) -> None:
    splits, registry = made(), default_manager().registry
    make = {"core/hf-seq2seq": hf_seq2seq, "core/hf-causal": hf_causal}[name]
    writer(make, splits).model.save_pretrained(tmp_path / "given")
    trained = build(registry.get("student", name), {"pretrained": str(tmp_path / "given")}, task(splits))
    trained.model.eval()
    trained.save(tmp_path / "kept")
    (tmp_path / "given").rename(tmp_path / "gone")
    again = load(tmp_path / "kept", registry, splits.info)
    batch = splits.train.batch([0, 1])
    assert torch.equal(again.call(batch), trained.call(batch))
    source = writer(make, splits)(*(batch[each] for each in INPUTS))
    torch.testing.assert_close(trained.call(batch), source.detach())  # the weights are those of the folder


@pytest.mark.parametrize("make", WRITERS)
def test_a_writer_says_what_does_not_fit(make: Any, tmp_path: Path) -> None:
    splits = made()
    with pytest.raises(OptionError, match="no model can be made of the configuration"):
        make(task(splits), config={"model_type": "no-such-model"})
    with pytest.raises(DataError, match="cannot be loaded"):
        make(task(splits), pretrained=str(tmp_path))
    writer(make, splits).model.save_pretrained(tmp_path / "model")
    larger = pair_splits([f"row {n} of it" for n in range(60)], ["x"] * 60, seed=0, vocabulary=300)
    larger.info.meta["text"]["vocabulary"] = 9999
    with pytest.raises(IncompatibleError, match="has 9999 tokens"):
        make(task(larger), pretrained=str(tmp_path / "model"))
    words = stillhouse.text.datasets.synthetic_text(DataContext(root=Path(), base=Path()), rows=60)
    with pytest.raises(IncompatibleError, match="takes source, source_mask and given"):
        make(Task(info=words.info, kind=OutputKind.SEQUENCE, outputs=9))
    if make is hf_causal:
        gpt = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 50}
        with pytest.raises(IncompatibleError, match="has 50 positions, the texts up to 112 tokens"):
            make(task(splits), config=gpt)


# Heads ---------------------------------------------------------------------------------------------------------------


def by_hand(written: str, wanted: str) -> dict[str, float]:
    """ROUGE F1 from its definition (Lin 2004): shared n-grams, and the longest common subsequence."""
    one, two = written.lower().split(), wanted.lower().split()

    def score(shared: float, first: int, second: int) -> float:
        return 0.0 if shared == 0 else 2 * (shared / first) * (shared / second) / (shared / first + shared / second)

    found = {}
    for n in (1, 2):
        grams = [Counter(zip(*(words[at:] for at in range(n)), strict=False)) for words in (one, two)]
        found[f"rouge_{n}"] = score((grams[0] & grams[1]).total(), grams[0].total(), grams[1].total())
    table = np.zeros((len(one) + 1, len(two) + 1), dtype=int)
    for a in range(len(one)):
        for b in range(len(two)):
            table[a + 1, b + 1] = table[a, b] + 1 if one[a] == two[b] else max(table[a, b + 1], table[a + 1, b])
    found["rouge_l"] = score(table[-1, -1], len(one), len(two))
    return found


WORDS = st.lists(st.sampled_from(["no", "acute", "disease", "Lungs", "clear"]), min_size=1, max_size=8).map(" ".join)


@settings(max_examples=80)
@given(written=WORDS, wanted=WORDS)
def test_rouge_is_what_its_definition_says(written: str, wanted: str) -> None:
    found = {name: values[0] for name, values in rouge([written], [wanted]).items()}
    assert found == pytest.approx(by_hand(written, wanted))


def answers(head: Generation, texts: list[str]) -> Tensor:
    return head._answers_of_texts(texts)


def test_metrics_of_texts_with_frozen_values() -> None:
    splits = made()
    rows = splits.test.columns(["target", "index", "reference", "retrieved", "apart"])
    wanted = texts_of(rows["reference"])
    head = Generation(splits.info)
    perfect = head.evaluate(answers(head, wanted), rows)
    for name in ("rouge_1", "rouge_l", "exact_match", "rouge_l_orders"):
        assert perfect[name] == pytest.approx(1.0)
    assert perfect["bleu"] == pytest.approx(100.0)
    assert "perplexity" not in perfect, "there were no logits"
    share = np.mean([text != "Nothing to do." for text in wanted])
    assert perfect["share_orders"] == pytest.approx(share)
    constant = head.evaluate(answers(head, ["Nothing to do."] * len(wanted)), rows)
    assert constant["exact_match"] == pytest.approx(1 - share)
    scores = [by_hand("nothing to do", text.lower().replace(".", "").replace(":", ""))["rouge_l"] for text in wanted]
    assert constant["rouge_l"] == pytest.approx(np.mean(scores))
    assert constant["rouge_l_orders"] == 0.0
    few = {name: column[:2] for name, column in rows.items()}
    few["reference"] = text_bytes(["The cat sat on the mat.", "No acute disease."]).batch(torch.arange(2))[0]
    said = ["The cat sat on a mat.", "No disease."]
    # Shared n-grams over written ones for n from 1 to 4, and the brevity penalty of 10 tokens for 11 (Papineni 2002).
    precision = (9 / 10 * 5 / 8 * 2 / 6 * 1 / 4) ** (1 / 4)
    score = Translation(splits.info).evaluate(answers(head, said), few)["bleu"]
    assert score == pytest.approx(100 * precision * math.exp(1 - 11 / 10)) == pytest.approx(42.1023, abs=1e-3)
    assert Translation(splits.info).primary == "bleu"
    assert "bleu_orders" in Translation(splits.info).evaluate(answers(head, wanted), rows)


def test_answers_carry_the_loss_of_the_targets_tokens_and_nothing_of_the_vocabularys_size() -> None:
    splits = made()
    head, model = Generation(splits.info, max_tokens=5), writer(hf_seq2seq, splits)
    found = predict_split(model, splits.test, INPUTS, torch.device("cpu"), head=head)
    assert found.shape == (len(splits.test), FACTS + 5)
    batch = splits.test.batch(range(len(splits.test)))
    with torch.no_grad():
        logits = model(*(batch[name] for name in INPUTS)).double().numpy()
    target = batch["target"].numpy()
    logs = (
        logits
        - np.log(np.exp(logits - logits.max(2, keepdims=True)).sum(2, keepdims=True))
        - logits.max(2, keepdims=True)
    )
    valid = target >= 0
    nll = -np.take_along_axis(logs, np.where(valid, target, 0)[..., None], 2)[..., 0][valid]
    metrics = head.evaluate(found, splits.test.columns(["target", "index", *head.row_entries()]))
    assert metrics["perplexity"] == pytest.approx(math.exp(nll.mean()), rel=1e-4)
    assert metrics["token_accuracy"] == pytest.approx((logits.argmax(2) == target)[valid].mean())
    written = model.generate(batch["source"], batch["source_mask"], max_tokens=5)
    tokenizer = Tokenizer.from_state(splits.info.meta["text"]["state"])
    texts = [
        tokenizer.decode([t for t in row[until_end(row[None], model.end)[0]] if t != model.end]) for row in written
    ]
    assert head.decode(found)["written"] == [text.strip() for text in texts]


def test_batches_shrink_with_the_vocabulary() -> None:
    assert most_tokens(OutputKind.MULTICLASS, 30_522) == TOKENS
    most = most_tokens(OutputKind.SEQUENCE, 30_522)
    assert most * 30_522 <= VALUES
    splits = made()
    lengths = list(splits.train.lengths or ())
    parts = [positions.tolist() for positions, _ in all_rows(splits.train, tokens=200)]
    sizes = [len(part) * max(lengths[at] for at in part) for part in parts]
    assert max(sizes) <= 200
    assert most_tokens(OutputKind.SEQUENCE, 2**40) == 1


def test_heads_refuse_what_cannot_be_judged() -> None:
    splits = made()
    head = Generation(splits.info)
    rows = splits.test.columns(["target", "index", *head.row_entries()])
    bad = answers(head, texts_of(rows["reference"]))
    bad[1, 0] = float("nan")
    with pytest.raises(TrainingError, match="1 of"):
        head.evaluate(bad, rows)
    with pytest.raises(IncompatibleError, match=r"has no generate\(\)"):
        predict_split(nn.Sequential(), splits.test, ("target",), torch.device("cpu"), head=head)
    words = stillhouse.text.datasets.synthetic_text(DataContext(root=Path(), base=Path()), rows=60)
    with pytest.raises(DataError, match="judges texts that are written, and the dataset has none"):
        Generation(words.info)


# Runs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["core/hf-causal"])
def test_a_run_from_pairs_to_predictions(model: str, tmp_path: Path) -> None:
    head = {"use": "core/generation", "max_tokens": 4}
    summary = run_tiny(recipe(model, head=head, teacher="core/hf-causal"), out=tmp_path / "run")
    assert {"rouge_l", "bleu", "exact_match", "perplexity"} <= set(summary["student"]["metrics"]["test"])
    assert set(summary["references"]) == {"target of the nearest training row", "commonest training target"}
    assert summary["references"]["commonest training target"]["exact_match"] > 0
    (tmp_path / "new.csv").write_text("source\nthe pump leaks oil\nline seven works fine\n")
    told = stillhouse.predict(tmp_path / "run", tmp_path / "new.csv")
    assert told["text"] == ["the pump leaks oil", "line seven works fine"]
    assert all(isinstance(text, str) for text in told["written"])
    kept = (tmp_path / "run" / "student" / "seed-0" / "predictions" / "test.safetensors").stat().st_size
    assert kept < 40_000, "no logits are kept"


def test_recipes_that_do_not_fit_are_refused_when_they_are_read(tmp_path: Path) -> None:
    registry = default_manager().registry
    with pytest.raises(
        IncompatibleError, match="judges texts that a model writes, and 'core/text-encoder' writes none"
    ):
        resolve(recipe("core/text-encoder", student="core/text-encoder"), registry)
    two = {"members": [{"use": "core/hf-seq2seq", "config": T5}] * 2}
    with pytest.raises(IncompatibleError, match="of which there is neither a mean"):
        run_tiny(recipe(teacher=two), out=tmp_path / "run")
