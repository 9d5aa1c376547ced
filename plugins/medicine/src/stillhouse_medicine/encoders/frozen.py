"""Pre-trained encoders that do not learn."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Frozen(nn.Module):
    """A pre-trained encoder that does not learn, and sees each distinct input of a batch once.

    While the model around it is in training mode, what it says is remembered from step to step: the same images and
    questions come again in each epoch, and it always says the same of them.
    """

    LIMIT = 8192
    """Inputs that are remembered; augmented images never come again and would fill the memory."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        self._remembered: dict[bytes, Tensor] = {}

    def train(self, mode: bool = True) -> Frozen:
        """The encoder itself stays in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, rows: Tensor) -> Tensor:
        """What the encoder says of ``rows`` ``[B, ...]``."""
        if torch.compiler.is_exporting() or torch.jit.is_tracing():  # type: ignore[no-untyped-call]
            return self.encoder(rows)
        keys = [row.tobytes() for row in rows.detach().cpu().numpy()]
        if len(self._remembered) > self.LIMIT:
            self._remembered = {}
        known = self._remembered if self.training else {}
        new = {key: at for at, key in enumerate(keys) if key not in known}
        if new:
            with torch.no_grad():
                known.update(zip(new, self.encoder(rows[list(new.values())]), strict=True))
        return torch.stack([known[key] for key in keys])
