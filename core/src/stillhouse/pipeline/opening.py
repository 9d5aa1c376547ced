"""A recipe's rows and head as the context of a run, and what is held against each other before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from stillhouse.errors import IncompatibleError, StillhouseError
from stillhouse.methods.losses import check_taps, check_teacher_taps
from stillhouse.pipeline.context import RunContext
from stillhouse.pipeline.data import check_splits, check_targets, fingerprint, make_splits
from stillhouse.pipeline.extra_rows import make_extra_rows, with_extra_rows
from stillhouse.pipeline.sizes import check_sizes
from stillhouse.pipeline.student import check_method
from stillhouse.pipeline.teacher import folds_of
from stillhouse.plugins.manager import Manager, default_manager
from stillhouse.plugins.registry import Registry
from stillhouse.plugins.specs import HeadSpec
from stillhouse.progress import Reporter, collect_warnings
from stillhouse.recipe.check import resolve
from stillhouse.recipe.resolved import Bound, ResolvedRecipe
from stillhouse.trained import Trained, build, is_asked
from stillhouse.training.threads import share

FEW_TEST_ROWS = 30
"""Of fewer a run warns."""


def open_context(
    resolved: ResolvedRecipe, folder: Path, registry: Registry, reporter: Reporter, *, download: bool
) -> RunContext:
    """Make the rows and the head, and hold them against each other.

    Args:
        resolved: the recipe.
        folder: of the run; nothing is written to it here.
        registry: the components.
        reporter: receives what happens.
        download: missing datasets may be downloaded.

    Raises:
        StillhouseError: what is wrong with the rows or the head.
    """
    reporter.stage("data", resolved.dataset.id)
    with collect_warnings() as messages:
        splits = make_splits(resolved, download=download)
    spec = resolved.head.component.spec
    assert isinstance(spec, HeadSpec)
    head = resolved.head.component.load()(splits.info, **resolved.head.options)
    if head.kind != spec.output or head.primary != spec.primary or head.higher_is_better != spec.higher_is_better:
        raise IncompatibleError(
            f"head '{resolved.head.id}' is not what its spec says (output, primary metric or its direction)",
            where=spec.target,
            fix="make HeadSpec and the class agree",
        )
    check_targets(splits, head, name=resolved.dataset.id)
    data = fingerprint(splits)
    with collect_warnings() as messages_of_extra_rows:
        extra = make_extra_rows(resolved, splits)
    if extra is not None:
        assert resolved.extra_rows is not None
        made = f"{len(extra.rows)} by {resolved.extra_rows.id} from {len(splits.train)} training rows"
        reporter.stage("extra rows", f"{made}, in {extra.seconds:.1f} s")
        splits = with_extra_rows(splits, extra)
        check_splits(splits, name=resolved.dataset.id)
    resolved = resolved.for_rows(len(splits.train))
    context = RunContext(resolved, registry, folder, reporter, splits, head, data, extra)
    for message in (*messages, *messages_of_extra_rows):
        context.warn(message)
    if len(splits.test) < FEW_TEST_ROWS:
        context.warn(
            f"the test has {len(splits.test)} rows: with others its figures may be quite different, and intervals over "
            "seeds do not show that"
        )
    if extra is not None:
        context.guard("extra rows", "made from training rows alone; no label, and ids that no other row has")
    context.guard("splits disjoint", "no row id and no group (patient, machine, card, speaker) is in two splits")
    return context


def reopen_context(
    *,
    manager: Mapping[str, Any] | None,
    recipe: Mapping[str, Any],
    base: str,
    folder: str,
    reporter: Reporter,
    settled: bool = False,
) -> RunContext:
    """The context of a run in another process, equal to that of the process which began it, with its share of the CPU
    threads.

    Args:
        manager: arguments of the plugin manager; None for the installed plugins.
        recipe: plain values.
        base: folder that the recipe's paths are relative to.
        folder: of the run.
        reporter: receives what happens.
        settled: see `RunContext`.

    Raises:
        StillhouseError: the recipe cannot be opened in this process.
    """
    torch.set_num_threads(share())
    registry = (Manager(**manager) if manager is not None else default_manager()).registry
    resolved = replace(resolve(dict(recipe), registry), base=Path(base))
    context = open_context(resolved, Path(folder), registry, reporter, download=False)
    context.manager, context.settled = manager, settled
    return context


def untrained(context: RunContext, bound: Bound, *, seed: int | None = None) -> Trained:
    """A model of the recipe as it is before its training."""
    return build(
        bound.component, bound.options, context.task(context.resolved.recipe.seeds[0] if seed is None else seed)
    )


def checks_before_training(context: RunContext) -> Iterator[tuple[str, Callable[[], None]]]:
    """What can be told before the teacher is trained, as a name and a function that raises what is wrong.

    Each builds models and looks at them; none trains.
    """
    resolved = context.resolved
    yield "student", lambda: check_taps(untrained(context, resolved.student), resolved.terms)
    for position, bound in enumerate(resolved.controls):
        yield f"control {position}", partial(_build, context, bound)
    yield "sizes", lambda: check_sizes(context)
    yield "method", lambda: check_method(context)
    if resolved.recipe.teacher.out_of_fold:
        yield "teacher.out_of_fold", partial(_check_folds, context)
    if resolved.recipe.teacher.checkpoint is None:
        seen: list[Bound] = []
        for bound in resolved.teachers:
            if not any((bound.id, bound.options) == (other.id, other.options) for other in seen):
                seen.append(bound)
                yield "teacher", partial(_check_teacher, context, bound)


def _build(context: RunContext, bound: Bound) -> None:
    untrained(context, bound)


def _check_folds(context: RunContext) -> None:
    folds_of(context)


def _check_teacher(context: RunContext, bound: Bound) -> None:
    if is_asked(bound.component):
        return  # it may be a service; it is made when it is asked
    try:
        check_teacher_taps(untrained(context, bound), context.resolved.terms)
    except StillhouseError as error:
        where = error.where if "teacher" in error.where else f"teacher ({error.where})"
        raise type(error)(error.what, where=where, fix=error.fix) from error
