"""``core/denoised``: a small diffusion model of the teacher's features takes the noise out of the student's first."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from stillhouse.errors import IncompatibleError
from stillhouse.methods.base import Method
from stillhouse.methods.context import MethodContext
from stillhouse.objectives.combine import combined_loss
from stillhouse.ranges import Choices, Range
from stillhouse.trained import Trained
from stillhouse.training.learner import Distillation, Learner
from stillhouse.training.loss import TermValues
from stillhouse.types import Batch, Outputs

STEPS = 1000
"""Steps of the diffusion; its noise grows linearly, from 1e-4 to 2e-2 a step."""


class Denoised(Method):
    """The student's feature is denoised by a diffusion model fitted on the teacher's, then compared with it.

    For each soft term between features, with ``t`` the teacher's feature at mean 0 and variance 1 over its batch, ``s``
    the student's after its adapter in the same units, ``a_n`` the share of signal after n of 1000 steps::

        fit        mean of (eps(sqrt(a_n) t + sqrt(1 - a_n) e, n) - e)^2,        e normal, n uniform
        start      x = c * s + (1 - c) * e,          c in (0, 1) learned, one number for each term
        denoise    steps of DDIM with eps from n = start_step down to 0
        compare    the term's objective of x and t

    The student learns through the denoising, whose model learns from ``fit`` alone. Everything learns in one fit, by
    the recipe's loss with these terms in place of its own, plus ``fit``.

    Source: Huang, Zhang, Zheng, You, Wang, Qian, Xu, "Knowledge Diffusion for Distillation" (2023): equations of the
    diffusion loss and of the adaptive noise matching, five DDIM steps from 500 of 1000. The paper compresses large
    features by an autoencoder first and learns c by row with a network; here there is neither, and predictions are
    compared as they are.

    Cost: ``steps`` + 1 passes of a two-layer network a step for each term, and the teacher's features.

    Args:
        steps: of the denoising.
        start_step: how noisy the student's feature is taken to be, of 1000.
        width: of the denoising network, over the channels of the teacher's feature.
        fit_weight: weight of the diffusion model's own loss.
    """

    def __init__(
        self,
        *,
        steps: Annotated[int, Field(ge=1), Choices(2, 5)] = 5,
        start_step: Annotated[int, Field(ge=1, lt=STEPS), Range(100, 700)] = 500,
        width: Annotated[int, Field(ge=1), Choices(32, 64, 128)] = 64,
        fit_weight: Annotated[float, Field(gt=0)] = 1.0,
    ) -> None:
        if steps > start_step:
            raise ValueError(f"steps ({steps}) must be at most start_step ({start_step})")
        self.steps, self.start_step, self.width, self.fit_weight = steps, start_step, width, fit_weight

    def check(self, context: MethodContext) -> None:
        """Whether there is a feature to denoise.

        Raises:
            IncompatibleError: no term names taps.
        """
        if all(term.student is None for term in context.terms):
            raise IncompatibleError(
                "without a term between features there is nothing to denoise",
                where="objectives.soft",
                fix="add a term with taps: {use: core/hints, student: <path>, teacher: <path>}",
            )

    def step(self, context: MethodContext, student: Trained) -> Learner:
        """See `Denoising`."""
        base = context.distillation(student)
        rows = context.splits.train.batch([0, 1])
        batch = {name: entry.to(context.device) for name, entry in rows.items()}
        with torch.random.fork_rng(), torch.no_grad():
            base.eval()
            features, teacher = base.outputs(batch).features, base.teacher(batch)
        networks: dict[str, Diffusion] = {}
        for number, term in enumerate(base.loss.terms):
            if term.student is None or term.teacher is None:
                continue
            student_features, teacher_features = features[term.student], teacher.features[term.teacher]
            if term.adapter is None and student_features.shape != teacher_features.shape:
                raise IncompatibleError(
                    f"'{term.name}' compares features of unlike shapes, and denoising needs like ones",
                    where=f"objectives.soft.{number}",
                    fix="an objective with an adapter such as core/hints",
                )
            networks[str(number)] = Diffusion(teacher_features, self.width, self.steps, self.start_step)
        return Denoising(base, networks, self.fit_weight)


class Diffusion(nn.Module):
    """A denoising network over channels, and its schedule; see `Denoised`.

    Args:
        example: a teacher's feature ``[B, D]``, ``[B, T, D]`` or ``[B, C, *positions]``.
        width: of the hidden layer.
        steps: of the denoising.
        start: the step that it begins at.
    """

    signal: Tensor

    def __init__(self, example: Tensor, width: int, steps: int, start: int) -> None:
        super().__init__()
        self._last = example.dim() in (2, 3)
        channels = example.shape[-1 if self._last else 1]
        self.hidden, self.out = nn.Linear(channels + 1, width), nn.Linear(width, channels)
        self.match = nn.Parameter(torch.zeros(()))
        self.register_buffer("signal", torch.cumprod(1 - torch.linspace(1e-4, 2e-2, STEPS), 0))
        self._path = torch.linspace(start, 0, steps + 1).round().long().tolist()

    def noise(self, values: Tensor, step: Tensor) -> Tensor:
        """The noise in ``values``, of which each row is at a ``step`` ``[B]``."""
        moved = values if self._last else values.movedim(1, -1)
        time = (step.to(moved.dtype) / STEPS).reshape(-1, *(1 for _ in moved.shape[1:])).expand(*moved.shape[:-1], 1)
        found = self.out(nn.functional.silu(self.hidden(torch.cat((moved, time), dim=-1))))
        noise: Tensor = found if self._last else found.movedim(-1, 1)
        return noise

    def fit(self, teacher: Tensor) -> Tensor:
        """The diffusion loss of standardised teacher features, a scalar."""
        step = torch.randint(STEPS, (len(teacher),), device=teacher.device)
        noise = torch.randn_like(teacher)
        share = self.signal[step].reshape(-1, *(1 for _ in teacher.shape[1:]))
        return (self.noise(share.sqrt() * teacher + (1 - share).sqrt() * noise, step) - noise).square().mean()

    def denoise(self, student: Tensor) -> Tensor:
        """Standardised student features with noise, denoised."""
        share = torch.sigmoid(self.match)
        values = share * student + (1 - share) * torch.randn_like(student)
        for now, then in zip(self._path[:-1], self._path[1:], strict=True):
            at, to = self.signal[now], self.signal[then]
            noise = self._fixed(values, torch.full((len(values),), now, device=values.device))
            clean = (values - (1 - at).sqrt() * noise) / at.sqrt()
            values = to.sqrt() * clean + (1 - to).sqrt() * noise
        return values

    def _fixed(self, values: Tensor, step: Tensor) -> Tensor:
        """`noise` by weights that do not learn from it."""
        weights = {name: each.detach() for name, each in self.named_parameters()}
        found: Tensor = functional_call(
            _Noise(self), {f"of.{name}": each for name, each in weights.items()}, (values, step)
        )
        return found


class _Noise(nn.Module):
    """`Diffusion.noise` as a module's forward."""

    def __init__(self, of: Diffusion) -> None:
        super().__init__()
        self.of = of

    def forward(self, values: Tensor, step: Tensor) -> Tensor:
        return self.of.noise(values, step)


class Denoising(Distillation):
    """The loss of one step; see `Denoised`.

    Args:
        base: the learner of plain distillation; its student, loss and teacher are used.
        networks: by the number of their term.
        fit_weight: weight of their own losses.
    """

    def __init__(self, base: Distillation, networks: dict[str, Diffusion], fit_weight: float) -> None:
        super().__init__(base.student, base.inputs, base.loss, base.teacher)
        self.networks, self._fit_weight = nn.ModuleDict(networks), fit_weight

    def forward(self, batch: Batch, labelled: int) -> tuple[Tensor, TermValues]:
        """See `Learner.forward`."""
        loss, student, teacher = self.loss, self.outputs(batch), self.teacher(batch)
        assert loss.hard_loss is not None
        rows = {name: entry[:labelled] for name, entry in batch.items()}
        terms: list[tuple[str, float, Tensor]] = []
        fits: list[Tensor] = []
        for number, (term, weight) in enumerate(zip(loss.terms, loss.weights, strict=True)):
            if term.student is not None and term.teacher is not None:
                network = self.networks[str(number)]
                assert isinstance(network, Diffusion)
                student_features = student.features[term.student].float()
                teacher_features = teacher.features[term.teacher].float()
                adapted = student_features if term.adapter is None else term.adapter(student_features)
                mean, scale = teacher_features.mean(), teacher_features.std().clamp(min=1e-6)
                target = (teacher_features - mean) / scale
                fits.append(network.fit(target))
                denoised = Outputs(student.prediction, {term.student: network.denoise((adapted - mean) / scale)})
                standard = Outputs(teacher.prediction, {term.teacher: target})
                raw = replace(term, adapter=None)(denoised, standard, batch, labelled)
            else:
                raw = term(student, teacher, batch, labelled)
            terms.append((term.name, weight, raw))
        total, values = combined_loss(loss.hard_loss(student.prediction[:labelled], rows), terms, loss.alpha)
        fit = torch.stack(fits).sum()
        values["diffusion"] = {"raw": fit.detach(), "weighted": self._fit_weight * fit.detach()}
        return total + self._fit_weight * fit, values
