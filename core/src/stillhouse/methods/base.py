"""The base class of methods; every default is the behaviour of ``core/offline``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stillhouse.methods.context import MethodContext
from stillhouse.trained import Trained
from stillhouse.training.learner import Learner


class Method:
    """How a student learns: ``target(*, options) -> Method``.

    The baseline shares `build` and `finish`, never `step` and `train`: a pruned student is compared with a pruned
    baseline. It learns by `train_baseline`, on labels alone. A method keeps no state between calls beside its options;
    everything random comes from ``context.seed`` and `MethodContext.fit`, so that a run repeats to the bit.
    """

    def check(self, context: MethodContext) -> None:
        """Called once before anything is trained, for options that do not fit the recipe or its student.

        Args:
            context: what the framework gives, for the first seed; there is no teacher yet.

        Raises:
            StillhouseError: what is wrong, where, and how to fix it.
        """

    def build(self, context: MethodContext) -> Trained:
        """The model to train: the recipe's student with its initial weights, or what is made of it (cut, wrapped)."""
        return context.build()

    def step(self, context: MethodContext, student: Trained) -> Learner:
        """What one fit trains: a module whose forward is the loss of a step. The recipe's hard and soft losses against
        its teacher by default."""
        return context.distillation(student)

    def train(self, context: MethodContext, student: Trained) -> Trained:
        """One fit or several: generations, peers, stages.

        Args:
            context: what the framework gives.
            student: what `build` made.

        Returns:
            the trained student; `build`'s own, or another of the same component.
        """
        context.fit(self.step(context, student))
        return student

    def train_baseline(self, context: MethodContext, student: Trained) -> Trained:
        """How the baseline learns: on labels alone, in one fit. A method whose rows come in another way than all at
        once gives the baseline the same rows in the same way.

        Args:
            context: what the framework gives; there is no teacher.
            student: what `build` made.
        """
        context.fit(context.supervised(student), unlabelled=None)
        return student

    def finish(self, context: MethodContext, student: Trained) -> Trained:
        """What is deployed: converted, masks removed. It runs before predictions, cost and export, so that every
        number is that of the deployed model."""
        return student

    def evaluate(self, context: MethodContext, models: Mapping[str, Trained]) -> dict[str, Any]:
        """Results of the method's own, JSON-ready, from the finished models of one seed.

        Args:
            context: what the framework gives.
            models: ``teacher`` (when it is a single model), ``baseline`` and ``student``.

        Returns:
            numbers by name, or mappings of numbers by model, e.g. ``{"accuracy_pgd20": {"baseline": 0.1, ...}}``.
        """
        return {}
