"""Heads of texts whose predictions are too large to keep: texts that are written, and labels of tokens.

What is kept of a row is its answer (`stillhouse.types.Head.answer`), of one width for all rows: the loss and the number
of tokens that it was computed on, and ids. No ``[rows, T, V]`` tensor outlives its batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Sequence as Many
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from stillhouse.errors import DataError, IncompatibleError
from stillhouse.heads.checks import judged, labels_in_range
from stillhouse.heads.dense import Sequence
from stillhouse.kinds import SEQUENCE_IGNORE
from stillhouse.text.pairs import texts_of
from stillhouse.text.pretrained import require
from stillhouse.text.tokenizer import Tokenizer
from stillhouse.types import Batch, DataInfo, ReportFigure, Writer

FACTS = 3
"""First numbers of an answer: summed loss, number of tokens that it is of, and how many of them are right."""
SCORES = {"f1": "f1-score", "precision": "precision", "recall": "recall"}
NOTHING = -1.0
"""What an answer has behind its last id."""


def answers_of(logits: Tensor, target: Tensor | None, ids: Tensor, width: int) -> Tensor:
    """Answers ``[B, 3 + width]`` float32, which holds ids below 2^24 exactly.

    Args:
        logits: ``[B, T, V]``.
        target: ``[B, T]``, -100 is left out; without one there is no loss.
        ids: what a row says, ``[B, L]``; -1 where there is nothing.
        width: ids that are kept, at least L.
    """
    facts = logits.new_zeros(len(logits), FACTS)
    if target is not None:
        valid = target != SEQUENCE_IGNORE
        loss = F.cross_entropy(logits.movedim(2, 1), target, ignore_index=SEQUENCE_IGNORE, reduction="none")
        right = (logits.argmax(dim=2) == target) & valid
        facts = torch.stack([loss.sum(dim=1), valid.sum(dim=1).to(loss), right.sum(dim=1).to(loss)], dim=1)
    return torch.cat([facts, F.pad(ids.to(logits), (0, width - ids.shape[1]), value=NOTHING)], dim=1)


def token_metrics(answers: Tensor) -> dict[str, float]:
    """``token_accuracy`` and ``perplexity`` of the targets' tokens, each after the true ones before it; nothing where
    no loss was computed."""
    loss, tokens, right = answers[:, :FACTS].double().sum(dim=0).tolist()
    if tokens == 0:
        return {}
    return {"token_accuracy": right / tokens, "perplexity": math.exp(min(loss / tokens, 700.0))}


class Generation(Sequence):
    """A text that is written; logits ``[B, L, V]`` in training, target ``[B, L]`` where -100 is ignored.

    Judged is what the model writes by itself, against the whole reference. `evaluate` and `decode` take answers
    ``[N, 3 + max_tokens]``, or logits, of which the likeliest tokens are then the text.

    Args:
        data: a dataset of pairs of texts, see `stillhouse.text.pair_splits`.
        label_smoothing: probability mass spread evenly over the vocabulary in the hard loss.
        beams: width of the beam search; 1 takes the likeliest token each time.
        max_tokens: most tokens to write; as many as a target may have by default.
        bleu_tokenizer: of sacreBLEU: 13a (the default of WMT), intl, char, zh, ja-mecab, ko-mecab, none.

    Raises:
        DataError: the dataset has no pairs of texts.
        OptionError: label_smoothing is outside [0, 1).
        MissingDependencyError: the extra ``text`` is not installed.
    """

    primary = "rouge_l"
    bounds = (0.0, 1.0)

    def __init__(
        self,
        data: DataInfo,
        *,
        label_smoothing: float = 0.0,
        beams: Annotated[int, Field(ge=1)] = 1,
        max_tokens: Annotated[int, Field(ge=1)] | None = None,
        bleu_tokenizer: Literal["13a", "intl", "char", "zh", "ja-mecab", "ko-mecab", "none"] = "13a",
    ) -> None:
        facts = data.meta.get("text")
        if not isinstance(facts, dict) or "state" not in facts:
            raise DataError(
                f"head '{type(self).__name__.lower()}' judges texts that are written, and the dataset has none",
                where="DataInfo.meta",
                fix="choose a dataset of pairs of texts, made by stillhouse.text.pair_splits",
            )
        for package in ("rouge_score", "sacrebleu"):
            require(package, "judging texts")
        super().__init__(data, label_smoothing=label_smoothing)
        self.facts, self.beams, self.bleu_tokenizer = facts, beams, bleu_tokenizer
        self.max_tokens: int = facts["max_target"] if max_tokens is None else max_tokens
        self.tokenizer = Tokenizer.from_state(facts["state"])

    def row_entries(self) -> Many[str]:
        """References, what was retrieved, and which rows are judged by themselves."""
        return ("reference", "retrieved", *(["apart"] if self.facts["apart"] else []))

    def answer(self, prediction: Tensor, batch: Batch, model: nn.Module) -> Tensor:
        """The text that the model writes; see `stillhouse.types.Head.answer`.

        Raises:
            IncompatibleError: the model cannot write.
        """
        if not isinstance(model, Writer):
            raise IncompatibleError(
                f"{type(model).__name__} has no generate(), and the head judges what a model writes",
                where="model",
                fix="choose a model that writes, such as core/hf-seq2seq or core/hf-causal",
            )
        written = model.generate(batch["source"], batch["source_mask"], max_tokens=self.max_tokens, beams=self.beams)
        return answers_of(prediction, batch.get("target"), self._ids(written), self.max_tokens)

    def _ids(self, written: Tensor) -> Tensor:
        """Ids of a text, without its end and what is behind it."""
        kept = (written == self.facts["end"]).cumsum(dim=1) == 0
        return torch.where(kept, written, int(NOTHING))

    def _answers(self, prediction: Tensor, target: Tensor | None = None) -> Tensor:
        if prediction.ndim == 2:
            return prediction
        width = max(self.max_tokens, prediction.shape[1])
        return answers_of(prediction.float(), target, self._ids(prediction.argmax(dim=2)), width)

    def _texts(self, answers: Tensor) -> list[str]:
        rows = answers[:, FACTS:].long()
        return [self.tokenizer.decode(row[row >= 0].tolist()).strip() for row in rows]

    def evaluate(self, prediction: Tensor, rows: Batch) -> dict[str, float]:
        """``rouge_1``, ``rouge_2``, ``rouge_l``: mean F1 of rows (rouge-score, its own tokenizer: lower case, ASCII
        letters and digits; no stemming), in [0, 1]. ``bleu``: of the corpus (sacreBLEU, cased), in [0, 100].
        ``exact_match``: share of rows written as their reference, but for blanks at the ends. ``token_accuracy`` and
        ``perplexity`` of the targets' tokens, where there are logits of them. The primary metric once more, and the
        share of rows, for each kind of row that the dataset sets apart.

        Raises:
            DataError: the split is empty.
            TrainingError: a prediction is not finite.
        """
        judged(prediction, rows, head=type(self).__name__.lower())
        target = labels_in_range(rows["target"].long(), self.outputs, head="generation", ignore=SEQUENCE_IGNORE)
        answers = self._answers(prediction, target)
        written, wanted = self._texts(answers), [text.strip() for text in texts_of(rows["reference"])]
        per_row = rouge(written, wanted)
        found = {self.primary: 0.0}  # shown first
        found |= {name: sum(values) / len(values) for name, values in per_row.items()}
        found["bleu"] = bleu(written, wanted, self.bleu_tokenizer)
        found["exact_match"] = sum(a == b for a, b in zip(written, wanted, strict=True)) / len(wanted)
        found |= token_metrics(answers)
        for number, name in enumerate(self.facts["apart"]):
            chosen = rows["apart"][:, number].nonzero().flatten().tolist()
            found[f"share_{name}"] = len(chosen) / len(wanted)
            if chosen:
                found[f"{self.primary}_{name}"] = (
                    bleu([written[at] for at in chosen], [wanted[at] for at in chosen], self.bleu_tokenizer)
                    if self.primary == "bleu"
                    else sum(per_row[self.primary][at] for at in chosen) / len(chosen)
                )
        return found

    def decode(self, prediction: Tensor) -> dict[str, list[Any]]:
        """``written``: the text."""
        return {"written": self._texts(self._answers(prediction))}

    def references(self, rows: Batch) -> dict[str, Tensor]:
        """The target of the training row with the nearest source, and the training target that occurs most often."""
        count = len(rows["reference"])
        texts = {
            "target of the nearest training row": texts_of(rows["retrieved"]),
            "commonest training target": [self.facts["commonest"]] * count,
        }
        return {name: self._answers_of_texts(each) for name, each in texts.items()}

    def _answers_of_texts(self, texts: Many[str]) -> Tensor:
        ids = [self.tokenizer.encode([text], max_length=1_000_000, special=False)[0] if text else [] for text in texts]
        width = max(self.max_tokens, *(len(each) for each in ids))
        found = torch.full((len(ids), FACTS + width), NOTHING)
        found[:, :FACTS] = 0
        for row, each in enumerate(ids):
            found[row, FACTS : FACTS + len(each)] = torch.tensor(each, dtype=torch.float32)
        return found

    def figures(self, predictions: Mapping[str, Tensor], rows: Batch) -> list[ReportFigure]:
        """None: answers have no positions to compare."""
        return []


class Translation(Generation):
    """As `Generation`, with BLEU as primary metric."""

    primary = "bleu"
    bounds = (0.0, 100.0)


class Tagging(Sequence):
    """Spans of a text, by a label for each word; logits ``[B, T, V]``, target ``[B, T]`` where -100 is ignored: all but
    the first token of a word.

    `evaluate` and `decode` take answers ``[N, 3 + max_length]`` or logits ``[N, T, V]``.

    Args:
        data: a dataset whose classes are ``O``, and ``B-`` and ``I-`` of each kind of span (IOB2), see
            `stillhouse.text.tagged_splits`.
        label_smoothing: probability mass spread evenly over the labels in the hard loss.

    Raises:
        DataError: the classes are not labels of spans, or rows have no greatest length.
        OptionError: label_smoothing is outside [0, 1).
        MissingDependencyError: the extra ``text`` is not installed.
    """

    primary = "f1"
    bounds = (0.0, 1.0)

    def __init__(self, data: DataInfo, *, label_smoothing: float = 0.0) -> None:
        facts, names = data.meta.get("text"), data.classes or ()
        kinds = [name[2:] for name in names if name.startswith("B-")]
        if not isinstance(facts, dict) or set(names) != {"O", *(f"{part}-{kind}" for kind in kinds for part in "BI")}:
            raise DataError(
                f"head 'tagging' needs the classes O, B-... and I-... (IOB2), the dataset has {', '.join(names[:5])}",
                where="DataInfo.classes",
                fix="choose a dataset of marked spans, made by stillhouse.text.tagged_splits",
            )
        require("seqeval", "judging spans")
        super().__init__(data, label_smoothing=label_smoothing)
        self.names, self.kinds, self.max_length = names, kinds, int(facts["max_length"])

    def answer(self, prediction: Tensor, batch: Batch, model: nn.Module) -> Tensor:
        """The likeliest label of each token; see `stillhouse.types.Head.answer`."""
        choice = torch.where(batch["mask"], prediction.argmax(dim=2), int(NOTHING))
        return answers_of(prediction, batch.get("target"), choice, self.max_length)

    def _answers(self, prediction: Tensor, target: Tensor | None = None) -> Tensor:
        if prediction.ndim == 2:
            return prediction
        return answers_of(
            prediction.float(), target, prediction.argmax(dim=2), max(self.max_length, prediction.shape[1])
        )

    def evaluate(self, prediction: Tensor, rows: Batch) -> dict[str, float]:
        """``f1``, ``precision``, ``recall``: of spans, which count only with the right kind, begin and end, all kinds
        together (seqeval, strict, IOB2); ``f1_<kind>`` of each kind; ``token_accuracy`` and ``perplexity`` of words.

        Raises:
            DataError: the split is empty, or has no span.
            TrainingError: a prediction is not finite.
        """
        from seqeval.metrics import classification_report
        from seqeval.scheme import IOB2

        judged(prediction, rows, head="tagging")
        target = labels_in_range(rows["target"].long(), self.outputs, head="tagging", ignore=SEQUENCE_IGNORE)
        answers = self._answers(prediction, target)
        chosen = answers[:, FACTS:].long()
        true, said = [], []
        for row, answer in zip(target, chosen, strict=True):
            at = (row != SEQUENCE_IGNORE).nonzero().flatten()
            true.append([self.names[label] for label in row[at].tolist()])
            said.append([self.names[label] for label in answer[at].tolist()])
        if all(label == "O" for row in true for label in row):
            raise DataError(
                "no word of the split is part of a span", where="metrics of head 'tagging'", fix="split otherwise"
            )
        report = classification_report(true, said, output_dict=True, mode="strict", scheme=IOB2, zero_division=0)
        found = {name: float(report["micro avg"][key]) for name, key in SCORES.items()}
        found |= {f"f1_{kind}": float(report[kind]["f1-score"]) for kind in self.kinds if kind in report}
        return found | token_metrics(answers)

    def decode(self, prediction: Tensor) -> dict[str, list[Any]]:
        """``labels``: of each token; that of a word's first token holds for the word."""
        rows = self._answers(prediction)[:, FACTS:].long().tolist()
        return {"labels": [[self.names[label] for label in row if label >= 0] for row in rows]}

    def figures(self, predictions: Mapping[str, Tensor], rows: Batch) -> list[ReportFigure]:
        """F1 of each kind of span."""
        from stillhouse.heads import figures

        metrics = {name: self.evaluate(values, rows) for name, values in predictions.items()}
        by_kind = {name: [found.get(f"f1_{kind}", 0.0) for kind in self.kinds] for name, found in metrics.items()}
        return [figures.by_name(tuple(self.kinds), by_kind, measure="F1", title="F1 by kind of span")]


def rouge(written: Many[str], wanted: Many[str]) -> dict[str, list[float]]:
    """F1 of ROUGE-1, ROUGE-2 and ROUGE-L (of the whole text) of each row, by rouge-score: ``rouge_1``, ``rouge_2``,
    ``rouge_l``.

    Args:
        written: the texts to judge.
        wanted: the references.
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)
    scores = [scorer.score(reference, text) for text, reference in zip(written, wanted, strict=True)]
    names = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}
    return {name: [float(each[key].fmeasure) for each in scores] for name, key in names.items()}


def bleu(written: Many[str], wanted: Many[str], tokenizer: str) -> float:
    """BLEU of a corpus by sacreBLEU, cased, with exponential smoothing, in [0, 100].

    Args:
        written: the texts to judge.
        wanted: a reference for each.
        tokenizer: of sacreBLEU.
    """
    from sacrebleu.metrics.bleu import BLEU

    return float(BLEU(tokenize=tokenizer).corpus_score(list(written), [list(wanted)]).score)
