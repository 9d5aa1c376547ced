"""``core/sequence``: the teacher writes a text for each training row once, and the student learns to write it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field

from stillhouse.errors import IncompatibleError
from stillhouse.forwarding import TOKENS, VALUES, all_rows, to_device
from stillhouse.methods.base import Method
from stillhouse.methods.context import MethodContext
from stillhouse.storage import cache_folder, digest, read_tensors, state_digest, write_tensors
from stillhouse.text.generators import until_end
from stillhouse.text.pairs import Rewritten
from stillhouse.trained import Trained
from stillhouse.types import Split, Writer


class SequenceLevel(Method):
    """Sequence-level distillation: the student's labels are what the teacher writes.

    With ``y'(x)`` the text that a beam search of the frozen teacher finds for a training row x, and
    ``L = alpha * hard + (1 - alpha) * sum_i weight_i * soft_i`` the recipe's loss, the student minimises L on
    ``(x, y'(x))`` in place of ``(x, y)``. With ``alpha: 1`` that is the paper's sequence-level distillation; below it
    the teacher's distribution at each token of its own text counts too. The baseline learns the true texts.

    Source: Kim and Rush, "Sequence-Level Knowledge Distillation" (2016), section 3.2; its interpolation with the true
    text (section 3.3) is not part of it.

    The texts are kept in the user's cache folder by teacher, rows and options, so that all seeds, and other runs with
    the same teacher, share them.

    Args:
        beams: width of the teacher's beam search.
        max_tokens: most tokens that the teacher writes; as many as a target may have by default.
    """

    def __init__(
        self, *, beams: Annotated[int, Field(ge=1)] = 5, max_tokens: Annotated[int, Field(ge=2)] | None = None
    ) -> None:
        self.beams, self.max_tokens = beams, max_tokens

    def check(self, context: MethodContext) -> None:
        """Rows are pairs of texts, all of them labelled."""
        require_pairs(context, "core/sequence")

    def train(self, context: MethodContext, student: Trained) -> Trained:
        """One fit, on what the teacher wrote."""
        rows = self._written(context)
        # Where soft losses weigh nothing the teacher has nothing to say in a step.
        context.fit(context.supervised(student) if context.alpha == 1 else context.distillation(student), rows=rows)
        return student

    def _written(self, context: MethodContext) -> Split:
        teacher, train, facts = writing_teacher(context), context.splits.train, context.splits.info.meta["text"]
        most = self.max_tokens or facts["max_target"]
        key = digest([state_digest(teacher.model), train.fingerprint(), self.beams, most])
        path = cache_folder() / "written" / f"{key}.safetensors"
        if not path.exists() and context.accelerator.is_main_process:
            write_tensors(path, {"written": write_all(teacher, train, context, beams=self.beams, max_tokens=most)})
        context.accelerator.wait_for_everyone()
        written = read_tensors(path)["written"].long()
        texts = [row[: _length(row, facts["end"])].tolist() for row in written]
        context.note(
            texts=len(texts),
            tokens_per_text=sum(map(len, texts)) / len(texts),
            texts_cut=sum(facts["end"] not in row for row in written.tolist()) / len(texts),
            texts_equal_to_the_label=_equal(train, texts, facts) / len(texts),
        )
        return Rewritten(train, texts, start=facts["start"], end=facts["end"], pad=facts["pad"])


def _length(row: torch.Tensor, end: int) -> int:
    """Tokens of a text before its end."""
    return int(until_end(row[None], end).sum()) - int((row == end).any())


def _equal(train: Split, texts: list[list[int]], facts: Mapping[str, Any]) -> int:
    target = train.columns(["target"])["target"]
    true = [[token for token in row if token >= 0 and token != facts["end"]] for row in target.tolist()]
    return sum(one == other for one, other in zip(true, texts, strict=True))


def write_all(teacher: Trained, rows: Split, context: MethodContext, *, beams: int, max_tokens: int) -> torch.Tensor:
    """What a model writes for all rows in order ``[N, max_tokens]``, int32, on the CPU."""
    parts: list[torch.Tensor] = []
    where: list[torch.Tensor] = []
    model = teacher.model.to(context.device).eval()
    # A text goes on from its last token alone: a step holds the logits of one place of each beam, and what the model
    # remembers of the places before it.
    most = max(1, min(VALUES // context.head.outputs, TOKENS // max_tokens) // beams)
    for positions, batch in all_rows(rows, most, tokens=max(1, TOKENS // beams)):
        batch = to_device({name: batch[name] for name in ("source", "source_mask")}, context.device)
        found = model.generate(batch["source"], batch["source_mask"], max_tokens=max_tokens, beams=beams)
        parts.append(found.to(torch.int32).cpu())
        where.append(positions)
    return torch.cat(parts)[torch.argsort(torch.cat(where))]


def require_pairs(context: MethodContext, who: str) -> None:
    """Refuse rows that a model cannot write for.

    Raises:
        IncompatibleError: the dataset has no pairs of texts, or rows without a target.
    """
    splits = context.splits
    if "given" not in splits.info.inputs or "text" not in splits.info.meta:
        raise IncompatibleError(
            f"method '{who}' has texts written, and the dataset has no pairs of texts",
            where="dataset",
            fix="choose a dataset made by stillhouse.text.pair_splits",
        )
    if splits.unlabelled is not None:
        raise IncompatibleError(
            f"method '{who}' takes labelled rows only", where="dataset", fix="leave out rows without labels"
        )


def writing_teacher(context: MethodContext) -> Trained:
    """The recipe's teacher, which must write.

    Raises:
        IncompatibleError: it has several members, or cannot write.
    """
    if len(context.teachers) != 1 or not isinstance(context.teachers[0].model, Writer):
        raise IncompatibleError(
            "the teacher cannot write: it has no generate(), or several members",
            where="teacher",
            fix="use one teacher that writes, such as core/hf-seq2seq",
        )
    return context.teachers[0]
