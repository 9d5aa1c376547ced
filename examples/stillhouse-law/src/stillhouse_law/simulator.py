"""Made-up civil cases: facts in a few sentences, what a court of strict rules decides, and the reasons it gives."""

from __future__ import annotations

import random
from dataclasses import dataclass

OUTCOMES = ("dismissed", "settled", "partly allowed", "allowed")

CLAIMS = (
    "unpaid rent for a flat",
    "a defective machine",
    "an unfair dismissal",
    "late delivery of goods",
    "damage to a roof",
    "an unpaid invoice",
)
PARTIES = ("tenant", "company", "employee", "buyer", "contractor", "owner")
# Whether a fact holds is said by a phrase, not by a word: "did not answer" and "did answer" share theirs.
IN_TIME = {
    True: ("The action was brought in time", "The action was not brought too late", "No limitation period had run"),
    False: ("The action was brought too late", "The action was not brought in time", "The limitation period had run"),
}
PROVEN = {
    True: ("the contract was signed", "two witnesses confirmed it", "it was not disputed that the debt arose"),
    False: ("the contract was not signed", "no witness confirmed it", "it was disputed that the debt arose"),
}
PAID = {
    True: ("A part of the sum had been paid", "The claimant had not refused a first payment"),
    False: ("No part of the sum had been paid", "The claimant had refused a first payment"),
}
OFFERED = {
    True: ("the parties agreed before judgment", "an offer was made and was not declined"),
    False: ("the parties did not agree before judgment", "an offer was made and was declined"),
}
ASIDE = (
    "The hearing took place in spring.",
    "Costs were reserved.",
    "The file has several hundred pages.",
    "Both parties were represented.",
    "The judge inspected the place.",
)
REASONS = {
    "offered": ("A settlement ends the dispute", "There is nothing left to decide", "The parties found terms"),
    "late": ("The defence of limitation succeeds", "Delay bars the claim", "It is statute barred"),
    "unproven": ("The burden of proof was not met", "The evidence falls short", "The court is not convinced"),
    "paid": ("The sum is reduced accordingly", "Only the remainder is owed", "Payment counts against the claim"),
    "owed": ("The claim is well founded", "The whole sum is owed", "Judgment follows the application"),
}


@dataclass(frozen=True)
class Case:
    """A case: its facts, the reasons of the judgment, and its outcome as a position in `OUTCOMES`."""

    facts: str
    reasons: str
    outcome: int


def decide(*, in_time: bool, proven: bool, paid: bool, offered: bool) -> tuple[str, str]:
    """Outcome, and the reason for it, by the court's rules in their order."""
    if offered:
        return "settled", "offered"
    if not in_time:
        return "dismissed", "late"
    if not proven:
        return "dismissed", "unproven"
    return ("partly allowed", "paid") if paid else ("allowed", "owed")


def make_case(draw: random.Random) -> Case:
    """One case."""
    facts = {
        "in_time": draw.random() < 0.75,
        "proven": draw.random() < 0.75,
        "paid": draw.random() < 0.5,
        "offered": draw.random() < 0.25,
    }
    claim, claimant, defendant = draw.choice(CLAIMS), *draw.sample(PARTIES, 2)
    sentences = [
        f"{draw.choice(IN_TIME[facts['in_time']])}, and {draw.choice(PROVEN[facts['proven']])}.",
        f"{draw.choice(PAID[facts['paid']])}, and {draw.choice(OFFERED[facts['offered']])}.",
        draw.choice(ASIDE),
    ]
    draw.shuffle(sentences)
    outcome, reason = decide(**facts)
    return Case(
        facts=" ".join([f"The {claimant} sued the {defendant} over {claim}.", *sentences]),
        reasons=f"{draw.choice(ASIDE)} {draw.choice(REASONS[reason])}.",
        outcome=OUTCOMES.index(outcome),
    )
