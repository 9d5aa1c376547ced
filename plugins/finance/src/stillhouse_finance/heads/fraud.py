"""Head for card fraud."""

from __future__ import annotations

from typing import Literal

import numpy as np
from sklearn.metrics import roc_curve
from torch import Tensor

from stillhouse.errors import OptionError
from stillhouse.heads import Binary
from stillhouse.types import Batch, DataInfo


def card_precision(score: np.ndarray, fraud: np.ndarray, card: np.ndarray, day: np.ndarray, top: int) -> float:
    """Share of compromised cards among the ``top`` cards that are checked each day, mean over days.

    As in the Fraud Detection Handbook (chapter 4, card precision top-k): a card's score on a day is the largest of its
    transactions; a card that was checked and found compromised is blocked, and not checked again on later days. A day
    with fewer cards still counts ``top`` checks. Cards with equal scores are taken in the order of their ids.

    Args:
        score: of each transaction ``[N]``.
        fraud: label 0 or 1 ``[N]``.
        card: id of the card ``[N]``.
        day: number of the day ``[N]``.
        top: cards that can be checked a day.
    """
    blocked = np.zeros(0, dtype=card.dtype)
    found = []
    for each in np.unique(day):
        today = (day == each) & ~np.isin(card, blocked)
        cards, of_card = np.unique(card[today], return_inverse=True)
        best = np.full(len(cards), -np.inf)
        np.maximum.at(best, of_card, score[today])
        compromised = np.zeros(len(cards), dtype=bool)
        np.logical_or.at(compromised, of_card, fraud[today] == 1)
        checked = np.argsort(-best, kind="stable")[:top]
        hits = cards[checked][compromised[checked]]
        found.append(len(hits) / top)
        blocked = np.concatenate([blocked, hits])
    return float(np.mean(found))


def recall_at_fpr(score: Tensor, target: Tensor, fpr: float) -> float:
    """Largest share of positives at or above a threshold that at most ``fpr`` of the negatives reach; both ``[N]``."""
    false_alarms, recall, _ = roc_curve(target.numpy(), score.numpy(), drop_intermediate=False)
    return float(recall[false_alarms <= fpr].max())


class Fraud(Binary):
    """Fraud or not: one logit a transaction.

    Metrics: ``average_precision`` (primary), ``roc_auc``, ``recall`` and ``f1`` at a probability of one half,
        ``recall_at_fpr``, ``ece``, ``nll``, and, where the dataset knows cards and days, ``card_precision_<cards>``
        (see `card_precision`).

    Args:
        data: the dataset; ``meta["by_card"]`` says that rows have ``card`` and ``day``.
        pos_weight: factor on the loss of frauds; "balanced" is negatives / positives of the training rows.
        label_smoothing: moves the targets 0 and 1 towards one half by this share, in the hard loss only.
        cards: cards that can be checked a day.
        fpr: share of genuine rows that may be false alarms, for ``recall_at_fpr``.

    Raises:
        OptionError: cards is below one, or fpr is outside (0, 1).
    """

    def __init__(
        self,
        data: DataInfo,
        *,
        pos_weight: float | Literal["balanced"] | None = None,
        label_smoothing: float = 0.0,
        cards: int = 100,
        fpr: float = 0.01,
    ) -> None:
        super().__init__(data, pos_weight=pos_weight, label_smoothing=label_smoothing)
        if cards < 1 or not 0 < fpr < 1:
            raise OptionError(
                f"cards is {cards} and fpr {fpr}", where="head 'fraud'", fix="cards from 1 upwards, fpr between 0 and 1"
            )
        self.cards, self.fpr, self.by_card = cards, fpr, bool(data.meta.get("by_card"))

    def row_entries(self) -> tuple[str, ...]:
        """``card`` and ``day`` where the dataset knows them."""
        return ("card", "day") if self.by_card else ()

    def evaluate(self, prediction: Tensor, rows: Batch) -> dict[str, float]:
        """See the class, and `Binary.evaluate` for errors."""
        found = super().evaluate(prediction, rows)
        score, target = prediction.reshape(-1).double(), rows["target"].reshape(-1).long()
        found["recall_at_fpr"] = recall_at_fpr(score, target, self.fpr)
        if self.by_card:
            found[f"card_precision_{self.cards}"] = card_precision(
                score.numpy(), target.numpy(), rows["card"].numpy(), rows["day"].numpy(), self.cards
            )
        return found
