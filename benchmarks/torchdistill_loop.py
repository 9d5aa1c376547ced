"""The steps of torchdistill against the same steps written by hand, one JSON line a comparison.

It needs torch and torchdistill alone, and is run by the Python that ``TORCHDISTILL_PYTHON`` names, or this one:
``python benchmarks/torchdistill_loop.py``. Without torchdistill it prints nothing.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import sys
from pathlib import Path


def main() -> None:
    """Print the comparisons."""
    if importlib.util.find_spec("torchdistill") is None:
        return
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import torch
    from torchdistill.core.distillation import get_distillation_box

    from benchmarks.networks import ALPHA, TEMPERATURE, Case, by_hand, cases
    from benchmarks.timing import compare

    logging.disable(logging.INFO)
    torch.set_num_threads(1)

    def torchdistill_step(case: Case) -> None:
        kwargs = {
            "student_module_path": ".",
            "student_module_io": "output",
            "teacher_module_path": ".",
            "teacher_module_io": "output",
            "temperature": TEMPERATURE,
            "alpha": ALPHA,
        }
        kd = {"criterion": {"key": "KDLoss", "kwargs": kwargs}, "weight": 1.0}
        config = {
            "num_epochs": 1,
            "teacher": {"forward_proc": "forward_batch_only", "sequential": [], "requires_grad": False},
            "student": {"forward_proc": "forward_batch_only", "sequential": []},
            "optimizer": {"key": "AdamW", "kwargs": {"lr": 1e-3}},
            "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": kd}}},
        }
        box = get_distillation_box(
            case.teacher, case.student(), {}, config, torch.device("cpu"), None, distributed=False, lr_factor=1
        )
        box.student_model.train()
        for batch in case.batches:
            loss = box.forward_process(batch["x"], batch["target"], None)
            box.post_forward_process(loss)

    for case in cases():
        found = compare(
            f"torchdistill on {case.name}, against the same steps by hand",
            lambda case=case: torchdistill_step(case),  # type: ignore[misc]
            lambda case=case: by_hand(case),  # type: ignore[misc]
        )
        print(json.dumps(dataclasses.asdict(found)), flush=True)


if __name__ == "__main__":
    main()
