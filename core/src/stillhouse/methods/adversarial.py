"""``core/adversarial``: a student that keeps the teacher's answer under the worst small change of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from stillhouse.errors import IncompatibleError
from stillhouse.forwarding import in_order, predict, to_device
from stillhouse.methods.base import Method
from stillhouse.methods.context import MethodContext
from stillhouse.objectives.combine import combined_loss
from stillhouse.trained import Trained
from stillhouse.training.learner import Distillation, Learner
from stillhouse.training.loss import TermValues
from stillhouse.types import Batch, Outputs

ON_PERTURBED, ON_CLEAN = 5 / 6, 1 / 6
"""RSLAD's weights of the soft loss on perturbed and on clean inputs."""
JUDGE_STEPS = 20
"""Steps of the attack that models are judged under."""


def perturb(
    loss: Callable[[Batch], Tensor],
    batch: Batch,
    names: Sequence[str],
    *,
    epsilon: float,
    steps: int,
    step_size: float,
    low: float | None = None,
    high: float | None = None,
    start: Mapping[str, Tensor] | None = None,
) -> Batch:
    """Projected gradient ascent on a loss within ``epsilon`` of the inputs, by the largest change of any element.

    ``x_0 = x + start``, ``x_(k+1) = clip(x_k + step_size * sign(d loss / d x_k))``, where clip keeps every element
    within ``epsilon`` of ``x`` and, where bounds are given, within ``[low, high]``; an element of ``x`` that lies
    outside of the bounds does not move further out.

    Source: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks" (2018). One step of size
    epsilon without a start is FGSM (Goodfellow et al. 2015).

    Args:
        loss: what to raise, a scalar that is a function of the batch.
        batch: the rows; entries are not changed in place.
        names: entries to perturb, floats ``[B, ...]`` of any shape.
        epsilon: largest change of an element, in the unit of the prepared inputs.
        steps: number of steps.
        step_size: change of an element in one step.
        low: least value of a perturbed element; no bound when None.
        high: largest value of a perturbed element; no bound when None.
        start: change to begin with, by name; zero when None.

    Returns:
        the batch with perturbed entries, detached.
    """
    bounds = {}
    for name in names:
        least, most = batch[name] - epsilon, batch[name] + epsilon
        if low is not None:
            least = torch.minimum(least.clamp_min(low), batch[name])
        if high is not None:
            most = torch.maximum(most.clamp_max(high), batch[name])
        bounds[name] = (least, most)
    current = {
        name: torch.clamp(batch[name] + (0 if start is None else start[name]), *bounds[name]).detach() for name in names
    }
    for _ in range(steps):
        moved = {name: entry.clone().requires_grad_() for name, entry in current.items()}
        # Fused recurrent kernels of an accelerator cannot go backward in eval mode.
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
            value = loss({**batch, **moved})
            gradients = torch.autograd.grad(value, list(moved.values()), allow_unused=True)
        for name, gradient in zip(moved, gradients, strict=True):
            if gradient is not None:
                current[name] = torch.clamp(current[name] + step_size * gradient.sign(), *bounds[name])
    return {**batch, **current}


class RobustDistillation(Distillation):
    """The loss of one step of ARD or RSLAD: an attack on the student, then losses on clean and perturbed inputs.

    Args:
        base: the learner of plain distillation; its student, loss and teacher are used.
        method: the method, with its options.
        names: inputs to perturb.
    """

    def __init__(self, base: Distillation, method: Adversarial, names: Sequence[str]) -> None:
        super().__init__(base.student, base.inputs, base.loss, base.teacher)
        self._method, self._names = method, tuple(names)

    def forward(self, batch: Batch, labelled: int) -> tuple[Tensor, TermValues]:
        """See `Learner.forward`."""
        loss, teacher = self.loss, self.teacher(batch)
        perturbed = self.outputs(self.attack(batch, labelled, teacher))
        clean = self.outputs(batch)
        shares = {"perturbed": (perturbed, 1.0)}
        if self._method.objective == "rslad":
            shares = {"perturbed": (perturbed, ON_PERTURBED), "clean": (clean, ON_CLEAN)}
        terms = [
            (f"{term.name}, {name}", share * weight, term(student, teacher, batch, labelled))
            for term, weight in zip(loss.terms, loss.weights, strict=True)
            for name, (student, share) in shares.items()
        ]
        assert loss.hard_loss is not None
        hard = loss.hard_loss(clean.prediction[:labelled], _first(batch, labelled))
        return combined_loss(hard, terms, loss.alpha)

    def attack(self, batch: Batch, labelled: int, teacher: Outputs) -> Batch:
        """The batch, perturbed against the student as it is, in eval mode: the attack neither moves the statistics of
        normalisation layers nor meets dropout.

        Args:
            batch: the rows, clean.
            labelled: number of labelled rows, which come first.
            teacher: what the teacher says of the clean rows.
        """
        method, loss = self._method, self.loss

        def soft(student: Outputs) -> Tensor:
            parts = [
                weight * term(student, teacher, batch, labelled)
                for term, weight in zip(loss.terms, loss.weights, strict=True)
            ]
            return torch.stack(parts).sum()

        def raised(moved: Batch) -> Tensor:
            prediction = predict(self.student, moved, self.inputs).float()
            if method.objective == "rslad":
                return soft(Outputs(prediction))
            assert loss.hard_loss is not None
            value = loss.hard_loss(prediction[:labelled], _first(batch, labelled))
            if len(prediction) == labelled:
                return value
            # A row without a label is attacked by what the teacher says of it.
            return value + soft(Outputs(torch.cat([prediction[:labelled].detach(), prediction[labelled:]])))

        start = None
        if method.random_start:
            start = {
                name: torch.empty_like(batch[name]).uniform_(-method.epsilon, method.epsilon) for name in self._names
            }
        training = [module for module in self.student.modules() if module.training]
        self.student.eval()
        try:
            return method.perturb(raised, batch, self._names, steps=method.steps, start=start)
        finally:
            for module in training:
                module.training = True


class Adversarial(Method):
    """Adversarially robust distillation: the student meets, in every step, the inputs on which it errs most within
    ``epsilon`` of the real ones, and learns there what the teacher says of the real ones.

    With S the student, T the teacher, x' = x + d the perturbed input, ``|d| <= epsilon`` for every element, soft(., .)
    the recipe's soft losses and alpha its share of the hard loss:

    - ``"ard"``: ``alpha * hard(S(x), y) + (1 - alpha) * soft(S(x'), T(x))``, d raises ``hard(S(x'), y)``.
    - ``"rslad"``: ``alpha * hard(S(x), y) + (1 - alpha) * (5/6 * soft(S(x'), T(x)) + 1/6 * soft(S(x), T(x)))``, d
      raises ``soft(S(x'), T(x))``.

    Source: Goldblum et al., "Adversarially Robust Distillation" (AAAI 2020), whose alpha is ``1 - alpha`` here; Zi et
    al., "Revisiting Adversarial Robustness Distillation: Robust Soft Labels Make Student Better" (ICCV 2021), which has
    no hard loss (``alpha: 0``) and temperature 1. Differences: ARD's public code attacks in train mode and RSLAD's in
    eval mode, here both attack in eval mode; RSLAD's public code begins at normal noise of 0.001, here both begin
    uniformly within epsilon; rows without labels are attacked by the soft loss in ARD too. The sources have images in
    [0, 1] and the softmax of classes; any head works here, by its own hard and soft loss: for values the attack raises
    the squared error.

    The teacher is asked about clean inputs only, so that its outputs are cached and estimators and ensembles teach too.
    A teacher that is not robust itself teaches less of it, as both sources find.

    The report has the head's primary metric of teacher (a single network), baseline and student on the test rows as
    they are, under FGSM, and under PGD of 20 steps of ``2.5 * epsilon / 20`` from a random start, each white-box
    against the model's own hard loss.

    Cost: ``steps + 2`` forward and backward passes of the student in each step, where plain distillation has one.

    Args:
        objective: "rslad" or "ard", see above.
        epsilon: largest change of an element of the input, in the unit of the prepared inputs (after scaling); 8/255 is
            usual for images in [0, 1].
        steps: steps of the attack in training.
        step_size: change of an element in one step; 2.5 * epsilon / steps when left out.
        random_start: begin at a random point within epsilon.
        inputs: inputs to perturb; all inputs of floats when left out. Name them where some are masks or lengths.
        low: least value that a perturbed element may have; no bound when left out.
        high: largest value that a perturbed element may have; no bound when left out.

    Raises:
        ValueError: low is not below high.
    """

    def __init__(
        self,
        *,
        objective: Literal["rslad", "ard"] = "rslad",
        epsilon: Annotated[float, Field(gt=0)] = 8 / 255,
        steps: Annotated[int, Field(ge=1)] = 10,
        step_size: Annotated[float, Field(gt=0)] | None = None,
        random_start: bool = True,
        inputs: Sequence[str] = (),
        low: float | None = None,
        high: float | None = None,
    ) -> None:
        if low is not None and high is not None and low >= high:
            raise ValueError(f"low must be below high, not {low} and {high}")
        self.objective, self.epsilon, self.steps = objective, epsilon, steps
        self.step_size, self.random_start = step_size, random_start
        self.inputs, self.low, self.high = tuple(inputs), low, high

    def check(self, context: MethodContext) -> None:
        """There must be something to perturb.

        Raises:
            IncompatibleError: an input that is named is no input of floats of the student, or it has none.
        """
        self._names(context, context.build())

    def step(self, context: MethodContext, student: Trained) -> Learner:
        """See `RobustDistillation`."""
        return RobustDistillation(context.distillation(student), self, self._names(context, student))

    def perturb(
        self,
        loss: Callable[[Batch], Tensor],
        batch: Batch,
        names: Sequence[str],
        *,
        steps: int,
        step_size: float | None = None,
        start: Mapping[str, Tensor] | None = None,
    ) -> Batch:
        """`perturb` with the options of the method."""
        chosen = step_size or self.step_size or 2.5 * self.epsilon / steps
        low, high = self.low, self.high
        return perturb(
            loss, batch, names, epsilon=self.epsilon, steps=steps, step_size=chosen, low=low, high=high, start=start
        )

    def evaluate(self, context: MethodContext, models: Mapping[str, Trained]) -> dict[str, Any]:
        """``<metric>_clean``, ``<metric>_fgsm`` and ``<metric>_pgd20`` of each network, on test rows."""
        metric = context.head.primary
        found: dict[str, dict[str, float]] = {f"{metric}_{name}": {} for name in ("clean", "fgsm", "pgd20")}
        for name, trained in models.items():
            if not trained.is_network or not (names := self._floats(context, trained)):
                continue
            predictions = self._attacked(context, trained, names)
            for attack, prediction in predictions.items():
                found[f"{metric}_{attack}"][name] = context.judge("test", prediction)[metric]
        return found

    def _attacked(self, context: MethodContext, trained: Trained, names: Sequence[str]) -> dict[str, Tensor]:
        """Predictions of all test rows: as they are, under FGSM, under PGD."""
        model: nn.Module = trained.model.eval()
        generator = torch.Generator().manual_seed(context.derived_seed("pgd20"))
        parts: dict[str, list[Tensor]] = {"clean": [], "fgsm": [], "pgd20": []}
        for rows in in_order(context.splits.test):
            batch = to_device(rows, context.device)
            start = {
                name: ((2 * torch.rand(rows[name].shape, generator=generator) - 1) * self.epsilon).to(batch[name])
                for name in names
            }

            def hard(moved: Batch, batch: Batch = batch) -> Tensor:
                return context.head.hard_loss(predict(model, moved, trained.inputs).float(), batch)

            attacked = {
                "clean": batch,
                "fgsm": self.perturb(hard, batch, names, steps=1, step_size=self.epsilon),
                "pgd20": self.perturb(
                    hard, batch, names, steps=JUDGE_STEPS, step_size=2.5 * self.epsilon / JUDGE_STEPS, start=start
                ),
            }
            with torch.no_grad():
                for name, each in attacked.items():
                    parts[name].append(predict(model, each, trained.inputs).float().cpu())
        return {name: torch.cat(found) for name, found in parts.items()}

    def _floats(self, context: MethodContext, trained: Trained) -> list[str]:
        """Inputs of floats that the model takes and that the options name."""
        row = context.splits.train.batch([0])
        return [
            name
            for name in trained.inputs
            if row[name].is_floating_point() and (not self.inputs or name in self.inputs)
        ]

    def _names(self, context: MethodContext, student: Trained) -> list[str]:
        names = self._floats(context, student)
        missing = [name for name in self.inputs if name not in names]
        if missing or not names:
            raise IncompatibleError(
                f"'{missing[0]}' is no input of floats of the student, and cannot be perturbed"
                if missing
                else "the student has no input of floats, and nothing can be perturbed",
                where="method.inputs" if missing else "method",
                fix="name inputs of floats, or choose another method",
            )
        return names


def _first(batch: Batch, labelled: int) -> Batch:
    return {name: entry[:labelled] for name, entry in batch.items()}
