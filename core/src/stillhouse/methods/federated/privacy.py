"""What may be learned of one client or row: clipping and noise on what is sent, their epsilon, and an attack."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stillhouse.errors import require_package
from stillhouse.methods.by_row import row_losses
from stillhouse.training.loss import HardLoss
from stillhouse.types import Batch

Protect = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], dict[str, Tensor]]
"""From arrays and what was received, to the arrays that are sent."""


@dataclass(frozen=True)
class Protection:
    """The Gaussian mechanism on what a client sends, all arrays of a message as one vector.

    ``v`` is the change of the weights against those received, or the predictions of the public rows themselves::

        sent = v * min(1, clip / |v|_2) + N(0, (noise * clip)^2)

    Sources: Dwork and Roth, "The Algorithmic Foundations of Differential Privacy" (2014), appendix A; McMahan et al.,
    "Learning Differentially Private Recurrent Language Models" (2018), for clients as units. There a trusted server
    adds the noise to the sum; here each client adds its own before it sends, so that the server need not be trusted.

    Args:
        clip: largest L2 norm of ``v``; None leaves it as it is.
        noise: noise multiplier, standard deviation of the noise over ``clip``; 0 without noise.
        delta: of (epsilon, delta).
    """

    clip: float | None
    noise: float
    delta: float

    def of(self, seed: int) -> Protect:
        """The mechanism with noise from a seed."""

        def protect(arrays: Mapping[str, Tensor], received: Mapping[str, Tensor]) -> dict[str, Tensor]:
            if self.clip is None:
                return {name: tensor.detach().cpu() for name, tensor in arrays.items()}
            changes = {
                name: tensor.detach().cpu().double() - (received[name].double() if name in received else 0.0)
                for name, tensor in arrays.items()
                if tensor.is_floating_point()
            }
            norm = torch.linalg.vector_norm(torch.cat([change.flatten() for change in changes.values()]))
            scale = min(1.0, self.clip / max(float(norm), 1e-12))
            generator = torch.Generator().manual_seed(seed)
            sent = {}
            for name, tensor in arrays.items():
                if name not in changes:
                    sent[name] = tensor.detach().cpu()
                    continue
                drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
                change = scale * changes[name] + self.noise * self.clip * drawn
                base = received[name].double() if name in received else torch.zeros_like(change)
                sent[name] = (base + change).to(tensor.dtype)
            return sent

        return protect

    def epsilon(self, times: int) -> float | None:
        """Epsilon of a client that has sent so many messages, for neighbours that differ in whether the client takes
        part; None without noise or messages.

        By dp-accounting's privacy loss distribution of the Gaussian mechanism. It counts no amplification by sampling
        clients: the server knows who answers.
        """
        if not self.noise or not times:
            return None
        from dp_accounting import dp_event
        from dp_accounting.pld import PLDAccountant

        # T messages with noise s are one with noise s / sqrt(T) (Dong, Roth and Su 2022, corollary 3.3), which takes a
        # thousandth of the time. Its losses lie around T / (2 s^2): steps that grow with it bound the memory.
        noise = self.noise / math.sqrt(times)
        accountant = PLDAccountant(value_discretization_interval=max(1e-4, 1e-5 / noise**2))
        accountant.compose(dp_event.GaussianDpEvent(noise))
        return float(accountant.get_epsilon(self.delta))


def require_accounting() -> None:
    """Refuse to go on without dp-accounting.

    Raises:
        MissingDependencyError: it is not installed; with the command that installs it.
    """
    require_package(
        "dp_accounting",
        "the epsilon of noise is accounted by the package 'dp-accounting'",
        where="method.noise",
        fix="pip install dp-accounting (or 'stillhouse[federated]', which has Flower, too)",
    )


def membership_auc(hard_loss: HardLoss, seen: tuple[Tensor, Batch], unseen: tuple[Tensor, Batch]) -> float:
    """Area under the ROC curve of an attack that takes rows with a small loss for training rows: 0.5 knows nothing.

    Source: Yeom, Giacomelli, Fredrikson and Jha, "Privacy Risk in Machine Learning: Analyzing the Connection to
    Overfitting" (2018), adversary 2, at every threshold.

    Args:
        hard_loss: a head's ``hard_loss``.
        seen: predictions and entries of training rows.
        unseen: those of rows that the model was not trained on.
    """
    from sklearn.metrics import roc_auc_score

    losses = [row_losses(hard_loss, prediction, rows).double().numpy() for prediction, rows in (seen, unseen)]
    member = np.repeat([1, 0], [len(each) for each in losses])
    most = np.finfo(float).max
    return float(roc_auc_score(member, -np.nan_to_num(np.concatenate(losses), nan=most, posinf=most)))
