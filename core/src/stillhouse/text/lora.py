"""Low-rank adapters in the linear layers of a pretrained model, and their end: one matrix again. Needs ``peft``."""

from __future__ import annotations

from typing import Any

from torch import nn

from stillhouse.errors import OptionError, require_package


def add_adapters(model: nn.Module, rank: int, who: str) -> None:
    """Put a low-rank adapter beside every linear layer of a model, and let nothing else of it learn: LoRA (Hu, Shen,
    Wallis, Allen-Zhu, Li, Wang, Wang, Chen, 2021). The scale is 2 (``lora_alpha`` twice the rank); at the start an
    adapter adds nothing.

    Args:
        model: of transformers; changed in place.
        rank: of the adapters; 0 adds none.
        who: the component, for errors.

    Raises:
        OptionError: the rank is negative.
        MissingDependencyError: peft is not installed.
    """
    if rank < 0:
        raise OptionError(f"lora_rank is {rank}", where=who, fix="1 or more; 0 trains all weights")
    if not rank:
        return
    require_package(
        "peft",
        "lora_rank needs the package 'peft'",
        where=who,
        fix="pip install 'stillhouse[lora]', or set lora_rank to 0",
    )
    from peft import LoraConfig, inject_adapter_in_model

    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=linear), model)


def merge_adapters(model: nn.Module) -> bool:
    """Add what the adapters have learnt to the weights beside them, and take them away: same outputs up to rounding,
    modules by their names of before, no further cost. False where there are none."""
    adapters = {name: module for name, module in model.named_modules() if _is_adapter(module)}
    for name, adapter in adapters.items():
        adapter.merge()
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, adapter.get_base_layer())
    return bool(adapters)


def _is_adapter(module: Any) -> bool:
    return hasattr(module, "lora_A") and hasattr(module, "get_base_layer")
