"""Names that the core's registrations share: kinds of output, inputs of texts, and the packages that texts need."""

from __future__ import annotations

from stillhouse.kinds import OutputKind

MULTICLASS, BINARY, MULTILABEL = OutputKind.MULTICLASS, OutputKind.BINARY, OutputKind.MULTILABEL
REGRESSION, GAUSSIAN = OutputKind.REGRESSION, OutputKind.GAUSSIAN
SEGMENTATION, SEQUENCE = OutputKind.SEGMENTATION, OutputKind.SEQUENCE
OF_TEXT = (MULTICLASS, BINARY, MULTILABEL, REGRESSION, GAUSSIAN, SEQUENCE)
TEXT_INPUTS = ("tokens", "mask")
PAIR_INPUTS = ("source", "source_mask", "given")
TEXT_PACKAGES = ("transformers", "tokenizers")
"""What the extra ``text`` brings."""
