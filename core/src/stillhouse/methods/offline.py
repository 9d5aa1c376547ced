"""``core/offline``: one student, one frozen teacher, one fit; networks and estimators."""

from __future__ import annotations

import numpy as np
import torch

from stillhouse.errors import IncompatibleError
from stillhouse.kinds import DEFAULT_SOFT_LOSS
from stillhouse.methods.base import Method
from stillhouse.methods.context import MethodContext
from stillhouse.objectives.schedule import parse_schedule
from stillhouse.trained import Trained
from stillhouse.training.estimators import fit_distilled
from stillhouse.training.threads import limited_threads, share


class Offline(Method):
    """Distillation from a frozen teacher: the hard loss and the soft losses of the recipe under one alpha.

    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (2015); Zhang et al.,
        "Distilling Wisdom" (2025), equation 2.
    """

    def check(self, context: MethodContext) -> None:
        """Hold the recipe's losses against a student that is an estimator.

        Raises:
            IncompatibleError: it is one, and the recipe asks for more than mixed targets.
        """
        if not context.build().is_network:
            _check_estimator(context)

    def train(self, context: MethodContext, student: Trained) -> Trained:
        """One fit. An estimator is fitted once, on targets mixed from labels and teacher outputs."""
        if student.is_network:
            return super().train(context, student)
        _fit_estimator(context, student)
        return student


def _check_estimator(context: MethodContext) -> None:
    default = DEFAULT_SOFT_LOSS[context.head.kind]
    if len(context.terms) != 1 or context.terms[0].bound.id != default or isinstance(context.alpha, dict):
        raise IncompatibleError(
            f"an estimator such as '{context.student.component.id}' learns from mixed targets: one soft term "
            f"'{default}' and a constant alpha",
            where="objectives",
            fix="objectives: {alpha: 0.5, soft: [soft]}",
        )


def _fit_estimator(context: MethodContext, student: Trained) -> None:
    _check_estimator(context)
    context.reporter.model(context.label, 0)
    source = context.signal()
    parts = [context.splits.train] + ([context.splits.unlabelled] if context.splits.unlabelled is not None else [])
    columns = [part.columns([*student.inputs, "index"]) for part in parts]
    features = np.concatenate([student.features(each) for each in columns])
    predictions = torch.cat([source({**each}).prediction.cpu() for each in columns])
    with limited_threads(share()):
        fit_distilled(
            student.model,
            features,
            context.splits.train.columns(["target"])["target"],
            predictions,
            kind=context.head.kind,
            alpha=parse_schedule(context.alpha).value(1.0),
            temperature=float(context.terms[0].bound.options.get("temperature", 1.0)),
        )
    context.reporter.model_done("fitted")
