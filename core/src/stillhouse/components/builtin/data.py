"""The core's datasets, the augmenters that make more rows of them, and its recipe."""

from __future__ import annotations

from collections.abc import Iterable

from stillhouse.components.builtin.kinds import MULTICLASS, SEQUENCE, TEXT_INPUTS, TEXT_PACKAGES
from stillhouse.plugins.hookspecs import hookimpl
from stillhouse.plugins.specs import AugmenterSpec, DatasetSpec, RecipeSpec

FLOATS = ("float32", "float64", "float16")


@hookimpl
def stillhouse_datasets() -> Iterable[DatasetSpec]:
    """Simulated data, and the user's own arrays and texts."""
    yield DatasetSpec(
        name="synthetic",
        target="stillhouse.components.datasets:synthetic",
        summary="Simulated rows of numbers with a known rule, for first steps and tests",
        licence="simulated, no rights reserved",
        offline=True,
        simulated=True,
        tags=("tabular",),
    )
    yield DatasetSpec(
        name="arrays",
        target="stillhouse.data.arrays:arrays",
        summary="Your own rows as NumPy files, read batch by batch: they need not fit into memory",
        licence="yours",
        tags=("own-data", "large"),
    )
    yield DatasetSpec(
        name="parquet",
        target="stillhouse.data.parquet:parquet",
        summary="Your own table as Parquet files, read piece by piece: it need not fit into memory",
        licence="yours",
        reader="stillhouse.data.readers:ColumnsReader",
        requires=("pyarrow",),
        extra="parquet",
        tags=("tabular", "own-data", "large"),
    )
    yield DatasetSpec(
        name="synthetic-text",
        target="stillhouse.text.datasets:synthetic_text",
        summary="Simulated short reports in three classes, for first steps and tests with texts",
        licence="simulated, no rights reserved",
        offline=True,
        simulated=True,
        kinds=(MULTICLASS,),
        reader="stillhouse.text:TextReader",
        requires=TEXT_PACKAGES,
        extra="text",
        tags=("text",),
    )
    yield DatasetSpec(
        name="texts",
        target="stillhouse.text.datasets:texts",
        summary="Your own texts from CSV, Parquet or JSON Lines: a text column and a label column",
        licence="yours",
        kinds=(MULTICLASS,),
        reader="stillhouse.text:TextReader",
        requires=TEXT_PACKAGES,
        extra="text",
        tags=("text", "own-data"),
    )
    yield DatasetSpec(
        name="synthetic-pairs",
        target="stillhouse.text.datasets:synthetic_pairs",
        summary="Simulated short reports and the orders that follow, for first steps and tests with models that write",
        licence="simulated, no rights reserved",
        offline=True,
        simulated=True,
        kinds=(SEQUENCE,),
        reader="stillhouse.text:PairReader",
        requires=TEXT_PACKAGES,
        extra="text",
        tags=("text",),
    )
    yield DatasetSpec(
        name="synthetic-spans",
        target="stillhouse.text.datasets:synthetic_spans",
        summary="Simulated short reports whose machines and faults are marked, for first steps and tests with tagging",
        licence="simulated, no rights reserved",
        offline=True,
        simulated=True,
        kinds=(SEQUENCE,),
        reader="stillhouse.text:TagReader",
        requires=TEXT_PACKAGES,
        extra="text",
        tags=("text",),
    )
    yield DatasetSpec(
        name="text-pairs",
        target="stillhouse.text.datasets:text_pairs",
        summary="Your own pairs of texts from CSV, Parquet or JSON Lines: one column is read, one is to be written",
        licence="yours",
        kinds=(SEQUENCE,),
        reader="stillhouse.text:PairReader",
        requires=TEXT_PACKAGES,
        extra="text",
        tags=("text", "own-data"),
    )


@hookimpl
def stillhouse_augmenters() -> Iterable[AugmenterSpec]:
    """Rows that only the teacher labels."""
    yield AugmenterSpec(
        name="munge",
        target="stillhouse.components.augmenters:munge",
        summary="Training rows, some of their values replaced by ones near a neighbour's (MUNGE)",
        dtypes=FLOATS,
        tags=("tables", "windows"),
    )
    yield AugmenterSpec(
        name="mixup",
        target="stillhouse.components.augmenters:mixup",
        summary="Convex combinations of two training rows",
        dtypes=FLOATS,
        tags=("signals", "images"),
    )
    yield AugmenterSpec(
        name="jitter",
        target="stillhouse.components.augmenters:jitter",
        summary="Training rows with noise, and signals scaled and moved in time",
        dtypes=FLOATS,
        tags=("tables", "signals"),
    )
    yield AugmenterSpec(
        name="mask-replace",
        target="stillhouse.text.augmenters:mask_replace",
        summary="Training texts, some of their tokens masked and some replaced by others",
        inputs=TEXT_INPUTS,
        tags=("text",),
    )
    yield AugmenterSpec(
        name="chat-texts",
        target="stillhouse.chat.writers:ChatTexts",
        summary="Texts that a language model behind HTTP writes: training texts in other words, or of rare classes",
        requires=("httpx",),
        extra="chat",
        inputs=TEXT_INPUTS,
        asked=True,
        tags=("text",),
    )


@hookimpl
def stillhouse_recipes() -> Iterable[RecipeSpec]:
    """Recipes on the simulated data."""
    yield RecipeSpec(
        name="quickstart",
        target="stillhouse:recipes/quickstart.yaml",
        summary="A small network distilled from a large one on simulated rows",
        dataset="core/synthetic",
        offline=True,
        minutes=1.0,
    )
    yield RecipeSpec(
        name="federated-demo",
        target="stillhouse:recipes/federated-demo.yaml",
        summary="Five clients with unlike shares of the classes; predictions of public rows travel",
        dataset="core/synthetic",
        offline=True,
        minutes=0.5,
        tags=("federated",),
    )
    yield RecipeSpec(
        name="stream-demo",
        target="stillhouse:recipes/stream-demo.yaml",
        summary="Rows in order of time whose rule changes half-way: predicted, scored, then learned",
        dataset="core/synthetic",
        offline=True,
        minutes=1.0,
        tags=("online", "drift"),
    )
