"""Checks that let an augmenter make rows of a small dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from stillhouse.errors import IncompatibleError, PluginError, ServiceError
from stillhouse.kinds import OutputKind
from stillhouse.pipeline.extra_rows import check_made, check_suits
from stillhouse.plugins.checks import Planned, Skipped, label
from stillhouse.plugins.registry import Component
from stillhouse.plugins.specs import AugmenterSpec, DatasetSpec
from stillhouse.testing.rows import few, unpadded
from stillhouse.testing.workbench import SYNTHETIC, Workbench
from stillhouse.types import Batch, DataInfo, Split, Splits, TensorSplit

ROWS = 48
"""Training rows that an augmenter is given."""
COUNT = 70
"""Rows that it is asked for: no multiple of `ROWS`."""


def plan_augmenter(bench: Workbench, component: Component) -> Iterator[Planned]:
    """``rows``, ``same-seed`` and ``training-rows``."""
    checks, where = _Augmenters(bench, component), label(component)
    yield Planned(id=f"rows[{where}]", verify=checks.rows)
    yield Planned(id=f"same-seed[{where}]", verify=checks.same_seed)
    yield Planned(id=f"training-rows[{where}]", verify=checks.training_rows)


class _Augmenters:
    def __init__(self, bench: Workbench, component: Component) -> None:
        self._bench, self._component = bench, component
        spec = component.spec
        assert isinstance(spec, AugmenterSpec)
        self._spec = spec

    def rows(self) -> str:
        """As many as asked for, with the declared inputs, finite, without a label; a row is that of a batch."""
        splits, name = self._given()
        info, made = splits.info, self._make(splits, seed=3)
        check_made(made, info, COUNT, name=self._component.id, fewer=self._spec.asked)
        last = len(made) - 1
        batch, row = made.batch([0, last, min(1, last)]), made.row(min(1, last))
        for input_name in info.inputs:
            values = batch[input_name]
            if values.is_floating_point() and not bool(values.isfinite().all()):
                raise PluginError(
                    f"input '{input_name}' of the rows made of '{name}' is not finite",
                    where=self._spec.target,
                    fix="look for a division by a spread of 0, or a logarithm of one",
                )
            if not made.stochastic and not torch.equal(unpadded(values[2], row[input_name]), row[input_name]):
                raise PluginError(
                    f"input '{input_name}' of a row is another one alone than in a batch",
                    where=self._spec.target,
                    fix="draw each row's numbers once, or from a generator seeded with the seed and the row's number",
                )
        return f"{len(made)} rows of {ROWS} of {name}"

    def same_seed(self) -> None:
        """The seed decides, and nothing else."""
        self._bench.require(self._component, "rows")
        made = []
        for seed, elsewhere in ((3, 11), (3, 12), (4, 11)):
            splits, _ = self._given()
            with torch.random.fork_rng(devices=[]):
                before = np.random.get_state()
                torch.manual_seed(elsewhere)
                np.random.seed(elsewhere)  # what others do with the global generators is not to matter
                split = self._make(splits, seed=seed)
                np.random.set_state(before)
                made.append((split.fingerprint(), self._inputs(split, splits.info)))
        (first, inputs), (again, same), (other, different) = made
        if not _equal(inputs, same) or first != again:
            raise PluginError(
                "two calls with the same seed make different rows, or rows of different fingerprints",
                where=self._spec.target,
                fix="draw from np.random.default_rng(seed), never from a global generator",
            )
        if _equal(inputs, different) or first == other:
            raise PluginError(
                "another seed makes the same rows, or rows of the same fingerprint",
                where=self._spec.target,
                fix="draw from np.random.default_rng(seed); the fingerprint covers what was drawn",
            )

    def training_rows(self) -> None:
        """They are what they were, and what is made depends on them alone."""
        self._bench.require(self._component, "rows")
        splits, _ = self._given()
        before = self._inputs(splits.train, splits.info)
        self._inputs(self._make(splits, seed=3), splits.info)
        if not _equal(before, self._inputs(splits.train, splits.info)):
            raise PluginError(
                "the training rows are others after rows were made of them",
                where=self._spec.target,
                fix="copy a tensor before it is changed: no operation in place on what train.batch gives",
            )

    def _make(self, splits: Splits, *, seed: int) -> Split:
        augmenter: Any = self._component.load()(**self._options)
        if self._spec.asked:
            augmenter.prepare(splits.reader)
        try:
            made: Split = augmenter(splits.train, splits.info, COUNT, seed)
        except ServiceError as error:
            raise Skipped(f"the service that it asks is not there: {error.what}", error.fix) from error
        return made

    @staticmethod
    def _inputs(split: Split, info: DataInfo) -> Batch:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            batch = split.batch(range(len(split)))
        return {name: batch[name].clone() for name in info.inputs}

    @property
    def _options(self) -> Mapping[str, Any]:
        return self._bench.component_options(self._component)

    def _given(self) -> tuple[Splits, str]:
        """A dataset that the augmenter suits, with few training rows: of the plugin's own, or else of the core's.

        Raises:
            Skipped: there is none here, or the augmenter asks a service that nobody named.
        """
        self._bench.require(self._component, "target", "shape", "options")
        if self._spec.asked:
            self._bench.require_service(self._component)
        kinds = self._spec.kinds or tuple(OutputKind)
        datasets = [each for each in self._bench.components("dataset") if each.id != SYNTHETIC]
        for dataset in (*datasets, self._bench.manager.registry.get("dataset", SYNTHETIC)):
            spec = dataset.spec
            assert isinstance(spec, DatasetSpec)
            fitting = [kind for kind in kinds if not spec.kinds or kind in spec.kinds]
            try:
                if not fitting:
                    continue
                options = self._bench.usable(dataset)
                if dataset.id == SYNTHETIC:
                    options |= {"kind": str(fitting[0]), "rows": 120}
                self._bench.require(dataset, "data")
                splits = self._bench.make(dataset, options)
                check_suits(self._component, splits.info)
            except (Skipped, IncompatibleError):
                continue
            train = few(splits.train, ROWS)
            if not train.stochastic:  # tensors of its own, which an operation in place would change
                whole = train.batch(range(len(train)))
                train = TensorSplit({name: values.clone() for name, values in whole.items()})
            return replace(splits, train=train), dataset.id
        raise Skipped(
            "no dataset of the plugin or the core that it suits can be made here",
            "contract(..., options=...) can point one to a small sample",
        )


def _equal(one: Batch, other: Batch) -> bool:
    return all(torch.equal(values, other[name]) for name, values in one.items())
