"""Objectives that contrast a row with what is remembered of the other rows of the training data, by their ids."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillhouse.objectives.functional import (
    Objective,
    full_precision,
    kl_elements,
    no_relations,
    require_rows,
    unit_rows,
    unit_scale,
)
from stillhouse.ranges import Choices, Range


class Remembering(Objective):
    """Base of objectives with a memory bank: for each training row the last embedding of student and of teacher.

    An embedding is a learned linear map of a feature, flattened, to ``width`` numbers at L2 norm 1, one map for each of
    the two models; they are trained with the student and never saved with it. The bank is written while the objective
    is in train mode, after the loss of the step; it is part of a checkpoint. With several processes it has the rows of
    the first one.

    Args:
        width: of the embeddings.
        candidates: rows of the training data that are drawn for each row of a batch, with replacement.
        temperature: of the cosines between embeddings.
        momentum: share of its old embedding that a remembered row keeps.
    """

    positive: ClassVar[tuple[str, ...]] = ("temperature",)
    ids: Tensor
    classes: Tensor
    known: Tensor
    student_bank: Tensor
    teacher_bank: Tensor
    normaliser: Tensor

    def __init__(self, *, width: int, candidates: int, temperature: float, momentum: float) -> None:
        super().__init__()
        for name, value in (("width", width), ("candidates", candidates)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        self.width, self.candidates, self.temperature, self.momentum = width, candidates, temperature, momentum
        self.student_map, self.teacher_map = nn.LazyLinear(width), nn.LazyLinear(width)
        self.register_buffer("normaliser", torch.zeros(2))
        self.check_options()

    def check_options(self) -> None:
        """As of any objective; and ``momentum`` lies in [0, 1)."""
        super().check_options()
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), not {self.momentum}")

    def prepare(self, info: Any, rows: Any) -> None:
        """Make the bank for the training rows; the framework calls it before the first step.

        Args:
            info: a `stillhouse.types.DataInfo`.
            rows: the training split.

        Raises:
            ValueError: see `make_bank`.
        """
        self.make_bank(rows.index(), rows.columns(["target"])["target"])

    def make_bank(self, index: Tensor, target: Tensor) -> None:
        """An empty bank; for loops of your own, before the first step.

        Args:
            index: ids of all training rows, ``[N]``.
            target: their classes, ``[N]``.

        Raises:
            ValueError: there are classes needed, and the target has none.
        """
        self._check_target(target)
        size = int(index.max()) + 1
        classes = torch.full((size,), -1)
        if target.dim() == 1:
            classes[index] = target.long()
        self.register_buffer("ids", index.clone())
        self.register_buffer("classes", classes)
        self.register_buffer("known", torch.zeros(size, dtype=torch.bool))
        for name in ("student_bank", "teacher_bank"):
            self.register_buffer(name, torch.zeros(size, self.width))

    def _check_target(self, target: Tensor) -> None:
        if target.dim() != 1 or (target.is_floating_point() and bool((target != target.round()).any())):
            raise ValueError(
                f"{type(self).__name__} needs one class a row, and the target {tuple(target.shape)} has none"
            )

    def _embedded(
        self, student: Tensor, teacher: Tensor, index: Tensor, target: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings ``[B, width]`` of the two, and the rows of which both have a direction ``[B]``.

        Raises:
            ValueError: shapes that do not fit, or there is no bank.
        """
        require_rows(student, teacher)
        if index.shape != student.shape[:1] or len(target) != len(index):
            raise ValueError(
                f"index {tuple(index.shape)} and target {tuple(target.shape)} must be [B], as the rows of features "
                f"{tuple(student.shape)}"
            )
        if not hasattr(self, "student_bank"):
            raise ValueError(
                f"{type(self).__name__} has no memory: a recipe makes it; in a loop of your own call make_bank first"
            )
        found = []
        for features, mapping in ((student, self.student_map), (teacher, self.teacher_map)):
            # The largest magnitude goes first: squares of large embeddings would leave float32.
            mapped = mapping(features.flatten(1).to(mapping.weight.dtype))
            found.append(unit_rows(unit_scale(mapped.to(features.dtype), 1)))
        (student, student_active), (teacher, teacher_active) = found
        return student, teacher, student_active & teacher_active

    def _draw(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Ids of ``candidates`` rows for each of a batch ``[B, K]``, and which are remembered and another row."""
        drawn = self.ids[torch.randint(len(self.ids), (len(index), self.candidates), device=self.ids.device)]
        return drawn, self.known[drawn] & (drawn != index.unsqueeze(1))

    def _against(
        self, side: int, anchor: Tensor, own: Tensor, bank: Tensor, drawn: Tensor, negative: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits that a pair is a true one: with a row's own, with the drawn ones, and the loss of the negatives.

        ``log(h / (1 - h)) = cos / T - log Z - log(negatives)`` for ``h = e / (e + Z * negatives)``, e = exp(cos / T).
        """
        scores = torch.einsum("bw,bkw->bk", anchor, bank[drawn].to(anchor.dtype)) / self.temperature
        number = negative.sum(1, keepdim=True)
        lowest = torch.where(negative, scores.detach(), -torch.inf)
        mean = lowest.flatten().logsumexp(0) - negative.sum().clamp(min=1).log()
        mean = torch.where(negative.any(), mean, 0.0)
        fixed = self.normaliser[side]
        scale = torch.where(fixed != 0, fixed.to(mean.dtype), mean)
        if self.training:
            with torch.no_grad():
                chosen = torch.where(negative.any(), scale, 0.0).to(self.normaliser.dtype)
                self.normaliser = torch.where(torch.arange(2, device=chosen.device) == side, chosen, self.normaliser)
        shift = scale + number.clamp(min=1).log()
        own_logit = (anchor * own).sum(1) / self.temperature - shift.squeeze(1)
        logits = scores - shift
        loss = -torch.where(negative, F.logsigmoid(-torch.where(negative, logits, 0.0)), 0.0).sum(1)
        return own_logit, logits, loss

    @torch.no_grad()
    def _remember(self, index: Tensor, student: Tensor, teacher: Tensor, active: Tensor) -> None:
        """The new embeddings of a batch, mixed with the old ones; rows without a direction are left as they were."""
        keep = torch.where(self.known[index], self.momentum, 0.0).unsqueeze(1)
        for bank, new in ((self.student_bank, student), (self.teacher_bank, teacher)):
            mixed, _ = unit_rows(keep * bank[index] + (1 - keep) * new.to(bank.dtype))
            bank[index] = torch.where(active.unsqueeze(1), mixed, bank[index])
        self.known[index] = self.known[index] | active


class CRD(Remembering):
    """Contrastive representation distillation: student and teacher have the same row in mind, not another one.

    With embeddings ``g_S, g_T`` at norm 1, the row's own pair and ``K`` negatives drawn from the memory::

        -log h(g_S(i), g_T(i)) - sum over negatives j of log(1 - h(g_S(i), bank_T(j)))       the student's anchor
        -log h(g_T(i), g_S(i)) - sum over negatives j of log(1 - h(g_T(i), bank_S(j)))       the teacher's anchor
        h(u, v) = e / (e + K_i * Z),   e = exp(<u, v> / temperature)

    ``K_i`` is the number of candidates of row i that are negatives: rows of another class, or any other row, that
    are remembered already. ``Z`` is the mean of e over the negatives of the first step, one for each anchor, without
    gradient. Like other contrastive losses it is not zero, nor its gradient, where student and teacher agree.

    Shapes: ``[B, ...]``, flattened; widths may differ. ``target`` ``[B]``, classes;
    ``index`` ``[B]``, row ids. Reduction: sum over negatives, mean
    over rows, sum of the two anchors. A row whose feature is embedded at zero adds 0; without a remembered negative a
    row learns from its own pair alone.

    Source: Tian, Krishnan, Isola, "Contrastive Representation Distillation" (2020), equations 17 to 19, whose ``N / M``
    stands where ``K_i * Z`` does: with ``Z`` as their code has it, which divides by it. That code takes the row's own
    pair from the memory too (here it is what the two models say now), and negatives that no step has seen yet, which
    are random vectors.

    Args:
        negatives: ``"classes"``: rows of another class; ``"rows"``: any other row, also where there are no classes.
        width: of the embeddings.
        candidates: rows that are drawn for each row of a batch, with replacement.
        temperature: of the cosines.
        momentum: share of its old embedding that a remembered row keeps.
    """

    def __init__(
        self,
        *,
        negatives: Literal["classes", "rows"] = "classes",
        width: Annotated[int, Choices(32, 64, 128)] = 128,
        candidates: Annotated[int, Choices(64, 256, 1024)] = 256,
        temperature: Annotated[float, Range(0.05, 0.5, log=True)] = 0.07,
        momentum: float = 0.5,
    ) -> None:
        if negatives not in ("classes", "rows"):
            raise ValueError(f"negatives must be 'classes' or 'rows', not {negatives!r}")
        super().__init__(width=width, candidates=candidates, temperature=temperature, momentum=momentum)
        self.negatives = negatives

    def _check_target(self, target: Tensor) -> None:
        if self.negatives == "classes":
            try:
                super()._check_target(target)
            except ValueError as error:
                raise ValueError(f"{error}; set negatives to 'rows'") from error

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor, *, target: Tensor, index: Tensor) -> Tensor:
        """Loss of features ``[B, ...]`` of the rows ``index``, whose classes ``target`` says."""
        if not student.numel() or not teacher.numel():
            return no_relations(student)
        student, teacher, active = self._embedded(student, teacher, index, target)
        drawn, negative = self._draw(index)
        if self.negatives == "classes":
            negative = negative & (self.classes[drawn] != target.unsqueeze(1))
        loss = student.new_zeros(len(student))
        sides = (student, teacher, self.teacher_bank), (teacher, student, self.student_bank)
        for side, (anchor, own, bank) in enumerate(sides):
            own_logit, _, of_negatives = self._against(side, anchor, own, bank, drawn, negative)
            loss = loss - F.logsigmoid(own_logit) + of_negatives
        if self.training:
            self._remember(index, student, teacher, active)
        return torch.where(active, loss, 0.0).mean()


class CRCKD(Remembering):
    """Class-guided contrast, and the same relations to the centres of the classes.

    ``contrast_weight * contrast + relation_weight * relation``. The contrast is that of `CRD` with more than one
    positive a row: beside its own pair, the candidates of its class (``-log h`` is the mean over all of them). The
    relation is ``KL(r_T || r_S)`` of how near a row is to each class::

        r(k) = softmax over classes k of <g(i), c(k)> / temperature,   c(k) the direction of the mean of bank rows of k

    each model with centres of its own. Classes of which no row is remembered have no part in it.

    Shapes: ``[B, ...]``, flattened; widths may differ. ``target`` ``[B]``, classes;
    ``index`` ``[B]``, row ids. Reduction: sum over negatives and
    classes, mean over rows, sum of the two anchors.

    Source: Xing, Hou, Li, Yuan, Li, Meng, "Categorical Relation-Preserving Contrastive Knowledge Distillation for
    Medical Image Classification" (2021): its losses CCD and CRP. The authors' teacher is a moving average of the
    student; here it is the recipe's. Their code takes centres of the positive parts of embeddings, has a fixed number
    of positives a row, and its noise term leaves out the constant Z.

    Args:
        contrast_weight: weight of the contrast.
        relation_weight: weight of the relation.
        width: of the embeddings.
        candidates: rows that are drawn for each row of a batch, with replacement.
        temperature: of the cosines.
        momentum: share of its old embedding that a remembered row keeps.
    """

    not_negative: ClassVar[tuple[str, ...]] = ("contrast_weight", "relation_weight")

    def __init__(
        self,
        *,
        contrast_weight: Annotated[float, Range(0.02, 1.0, log=True)] = 0.1,
        relation_weight: Annotated[float, Range(0.2, 10.0, log=True)] = 1.0,
        width: Annotated[int, Choices(32, 64, 128)] = 128,
        candidates: Annotated[int, Choices(64, 256, 1024)] = 256,
        temperature: Annotated[float, Range(0.05, 0.5, log=True)] = 0.07,
        momentum: float = 0.5,
    ) -> None:
        self.contrast_weight, self.relation_weight = contrast_weight, relation_weight
        super().__init__(width=width, candidates=candidates, temperature=temperature, momentum=momentum)

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor, *, target: Tensor, index: Tensor) -> Tensor:
        """Loss of features ``[B, ...]`` of the rows ``index``, whose classes ``target`` says."""
        if not student.numel() or not teacher.numel():
            return no_relations(student)
        student, teacher, active = self._embedded(student, teacher, index, target)
        drawn, remembered = self._draw(index)
        alike = self.classes[drawn] == target.unsqueeze(1)
        positive = remembered & alike
        contrast = student.new_zeros(len(student))
        sides = (student, teacher, self.teacher_bank), (teacher, student, self.student_bank)
        for side, (anchor, own, bank) in enumerate(sides):
            own_logit, logits, of_negatives = self._against(side, anchor, own, bank, drawn, remembered & ~alike)
            log = torch.where(positive, F.logsigmoid(torch.where(positive, logits, 0.0)), 0.0).sum(1)
            contrast = contrast - (F.logsigmoid(own_logit) + log) / (1 + positive.sum(1)) + of_negatives
        student_log, teacher_log = (
            self._relation(student, self.student_bank),
            self._relation(teacher, self.teacher_bank),
        )
        relation = kl_elements(student_log, teacher_log.detach()).sum(1)
        loss = self.contrast_weight * contrast + self.relation_weight * relation
        if self.training:
            self._remember(index, student, teacher, active)
        return torch.where(active, loss, 0.0).mean()

    def _relation(self, embedded: Tensor, bank: Tensor) -> Tensor:
        """Log-probabilities of the classes by how near their centres are, ``[B, C]``."""
        rows = bank[self.ids] * self.known[self.ids].unsqueeze(1)
        sums = bank.new_zeros(self._number, self.width).index_add(0, self.classes[self.ids], rows)
        centres, there = unit_rows(sums)
        there = there | ~there.any()
        near = embedded @ centres.to(embedded.dtype).T / self.temperature
        return F.log_softmax(torch.where(there, near, -torch.inf), dim=1)

    def make_bank(self, index: Tensor, target: Tensor) -> None:
        """See `Remembering.make_bank`."""
        super().make_bank(index, target)
        self._number = int(target.max()) + 1
