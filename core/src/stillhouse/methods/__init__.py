"""Methods: how a student learns, from one fit against a frozen teacher to several fits, peers or stages.

A method is a component (hook ``stillhouse_methods``); a recipe names exactly one, ``core/offline`` by default. It owns
the student stage of one seed: what is built, what one step minimises, which fits there are, and what is deployed. The
framework keeps what no method may lose: seeds, order of rows, checkpoints, the choice of epochs on validation, the
watch for losses that are not finite, and the frozen teacher::

    class Annealed(Method):
        def train(self, context, student):
            context.fit(context.distillation(student, alpha=0.0), phase="soft")
            context.fit(context.supervised(student), phase="hard")
"""

from stillhouse.methods.base import Method
from stillhouse.methods.context import MethodContext
from stillhouse.trained import Trained
from stillhouse.training.learner import Distillation, Learner, Supervised

__all__ = ["Distillation", "Learner", "Method", "MethodContext", "Supervised", "Trained"]
