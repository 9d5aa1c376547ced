"""What ``python -m benchmarks.methods`` tries: real tasks, and the settings of every method and objective."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

TRIALS = 4
"""Settings that are tried for each entry."""


@dataclass(frozen=True)
class Task:
    """A task.

    Args:
        recipe: the recipe.
        kind: output kind of its head.
        taps: modules of student and teacher whose features are compared; None where the teacher has none to tap.
        changes: of the recipe, for all entries.
        several: what makes its teacher one of several members; none where it has several.
        one_term: what leaves one soft term of its recipe; none where there is one.
    """

    recipe: str
    kind: str
    taps: tuple[str, str] | None = None
    changes: tuple[str, ...] = ()
    several: tuple[str, ...] = ()
    one_term: tuple[str, ...] = ()


TWO_RESNETS = "teacher={members: [{use: medicine/resnet, width: 24, blocks: 2, stages: 3, count: 2}]}"
TWO_CNNS = "teacher={members: [{use: audio_vision/cnn, width: 16, blocks: 4, count: 2}]}"
TASKS: dict[str, Task] = {
    "rul-fd001": Task("industrial/rul-fd001", "regression"),
    "rul-fd002": Task("industrial/rul-fd002", "regression", changes=("train.student.epochs=4",)),
    "faults": Task(
        "industrial/tep-faults",
        "multiclass",
        changes=("train.student.epochs=15",),
        one_term=("objectives.soft=[{use: soft, temperature: 3.0}]",),
    ),
    "fraud": Task("finance/fraud-handbook", "binary", changes=("train.student.epochs=8",)),
    "pneumonia": Task(
        "medicine/pneumonia",
        "binary",
        taps=("features", "features"),
        changes=("train.student.epochs=4", "dataset.augment={}"),
        several=(TWO_RESNETS,),
    ),
    "spoken-digits": Task(
        "audio_vision/fsdd-speakers",
        "multiclass",
        taps=("features", "features"),
        changes=("train.student.epochs=5", "dataset.augment={}"),
        several=(TWO_CNNS,),
    ),
    "news": Task("finance/news-small", "multiclass", changes=("train.student.epochs=5", "extra_rows=null")),
}
"""By name. Students of all but the first learn for fewer epochs than in their recipes, and from rows that are not
augmented at random, so that what a teacher says of them is stored: the whole takes hours even so."""


@dataclass(frozen=True)
class Entry:
    """A method or an objective.

    Args:
        settings: changes that are tried; each is a list for ``overrides``.
        kinds: output kinds that it is tried on; all when empty.
        taps: it compares features.
        several: it needs several teachers.
        one_term: it weighs rows, by a single soft term.
    """

    settings: tuple[tuple[str, ...], ...]
    kinds: tuple[str, ...] = ()
    taps: bool = False
    several: bool = False
    one_term: bool = False


def _method(use: str, options: Sequence[dict[str, Any]], alphas: Sequence[float] = (0.1, 0.5), **given: Any) -> Entry:
    """Each of two settings of options with each of two shares of the labels."""
    written = [_written("method", {"use": use, **each}) for each in options]
    return Entry(tuple((each, f"objectives.alpha={alpha}") for each in written for alpha in alphas), **given)


def _objective(use: str, options: Sequence[dict[str, Any]], *, beside: bool = True, **given: Any) -> Entry:
    """Each of two settings of options with each of two shares of the labels; ``beside`` the default soft loss."""
    terms = [[*([{"use": "soft"}] if beside else []), {"use": use, **each}] for each in options]
    written = [_written("objectives.soft", each) for each in terms]
    return Entry(tuple((each, f"objectives.alpha={alpha}") for each in written for alpha in (0.1, 0.5)), **given)


def _written(field: str, value: Any) -> str:
    return f"{field}={json.dumps(value)}"


CLASSES = ("multiclass",)
TWO = ({"weight": 0.1}, {"weight": 1.0})
TAPS = {"student": "<student>", "teacher": "<teacher>"}
FEATURE = [{**TAPS, **each} for each in TWO]
SOFTNESS = ({"temperature": 1.5}, {"temperature": 4.0})
ENTRIES: dict[str, Entry] = {
    "core/offline": Entry(tuple((f"objectives.alpha={alpha}",) for alpha in (0.0, 0.1, 0.3, 0.5))),
    "core/born-again": _method("core/born-again", [{"generations": 2}, {"generations": 3}]),
    "core/mutual": _method("core/mutual", [{"weight": 0.5}, {"weight": 2.0}]),
    "core/adaptive, difficulty": _method("core/adaptive", [{"tau": 0.5}, {"tau": 2.0}], one_term=True),
    "core/adaptive, annealing": Entry(
        tuple(
            (_written("method", {"use": "core/adaptive", "mode": "annealing", "soft_epochs": share}),)
            for share in (0.2, 0.4, 0.6, 0.8)
        )
    ),
    "core/noisy-teachers": _method("core/noisy-teachers", [{"share": 0.5}, {"share": 0.7}]),
    "core/confident-teachers": _method(
        "core/confident-teachers", [{"by": "loss"}, {"by": "entropy"}], kinds=("multiclass", "binary"), several=True
    ),
    "core/condensed": _method("core/condensed", [{"keep": 0.3}, {"keep": 0.7}]),
    "core/missing-modality": _method(
        "core/missing-modality", [{"weight": 0.3}, {"weight": 3.0}], kinds=("multiclass", "binary")
    ),
    "core/staged": Entry(
        tuple(
            ("method=core/staged", _written("objectives.soft", [{"use": "core/hints", **TAPS}, {"use": "soft"}]), each)
            for each in ("objectives.alpha=0.0", "objectives.alpha=0.1", "objectives.alpha=0.3", "objectives.alpha=0.5")
        ),
        taps=True,
    ),
    **{
        f"core/{name}": Entry(
            tuple(
                (
                    f"method=core/{name}",
                    _written("objectives.soft", [{"use": "core/hints", **TAPS, "weight": weight}, {"use": "soft"}]),
                    f"objectives.alpha={alpha}",
                )
                for weight in (0.1, 1.0)
                for alpha in (0.1, 0.5)
            ),
            taps=True,
        )
        for name in ("spot-adaptive", "denoised")
    },
    **{
        f"objective {name}": _objective(f"core/{name}", FEATURE, taps=True)
        for name in ("hints", "attention-transfer", "similarity-preserving", "relational", "pkt", "nst", "vid")
    },
    **{
        f"objective {name}": _objective(f"core/{name}", [{**each, "width": 32} for each in FEATURE], taps=True)
        for name in ("crd", "crckd")
    },
    "objective dkd": _objective("core/dkd", [{"beta": 2.0}, {"beta": 8.0}], beside=False, kinds=CLASSES),
    "objective dist": _objective("core/dist", SOFTNESS, beside=False, kinds=CLASSES),
    "objective standardised-logits": _objective("core/standardised-logits", SOFTNESS, beside=False, kinds=CLASSES),
    "objective normalised-kd": _objective("core/normalised-kd", SOFTNESS, beside=False, kinds=CLASSES),
    "objective supervised-contrastive": _objective("core/supervised-contrastive", TWO, kinds=CLASSES),
    "objective supervised-contrastive, memory": _objective(
        "core/supervised-contrastive", [{**each, "memory": 256, "hard": 0.5} for each in TWO], kinds=CLASSES
    ),
    "objective teacher-bounded": _objective(
        "core/teacher-bounded", [{"margin": 0.0}, {"margin": 10.0}], beside=False, kinds=("regression",)
    ),
    "core/self-supervised": _method("core/self-supervised", [{"weight": 0.3}, {"weight": 3.0}]),
    "core/assistant": _method(
        "core/assistant", [{"assistants": ["core/mlp"]}, {"assistants": ["core/mlp", "core/mlp"]}]
    ),
    "core/adversarial": _method("core/adversarial", [{"epsilon": 0.01, "steps": 3}, {"epsilon": 0.05, "steps": 3}]),
}
"""By name; ``core/offline`` comes first, as all are held against it, and what takes longest last."""
assert all(len(entry.settings) == TRIALS for entry in ENTRIES.values())
