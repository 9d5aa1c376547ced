"""The core's methods: how a student learns."""

from __future__ import annotations

from collections.abc import Iterable

from stillhouse.components.builtin.kinds import (
    BINARY,
    GAUSSIAN,
    MULTICLASS,
    MULTILABEL,
    REGRESSION,
    SEGMENTATION,
    SEQUENCE,
)
from stillhouse.plugins.hookspecs import hookimpl
from stillhouse.plugins.specs import MethodSpec


@hookimpl
def stillhouse_methods() -> Iterable[MethodSpec]:
    """How a student learns."""
    yield MethodSpec(
        name="offline",
        target="stillhouse.methods.offline:Offline",
        summary="One student learns from labels and a frozen teacher in one fit",
        estimators=True,
    )
    yield MethodSpec(
        name="born-again",
        target="stillhouse.methods.born_again:BornAgain",
        summary="Generations of one architecture: each learns from the one before, the first from the teacher",
        taps=False,
    )
    yield MethodSpec(
        name="mutual",
        target="stillhouse.methods.mutual:Mutual",
        summary="Peers learn from labels and from each other, without the teacher; the best one is deployed",
        uses_teacher=False,
        taps=False,
        students=("others",),
    )
    yield MethodSpec(
        name="staged",
        target="stillhouse.methods.staged:Staged",
        summary="Stages on the same weights, each with its own losses: features first, predictions second",
    )
    yield MethodSpec(
        name="assistant",
        target="stillhouse.methods.assistant:Assistant",
        summary="Assistants of intermediate size hand on what the teacher knows, from large to small",
        taps=False,
        students=("assistants",),
    )
    yield MethodSpec(
        name="adversarial",
        target="stillhouse.methods.adversarial:Adversarial",
        summary="The student learns the teacher's answers under the worst small change of its inputs (ARD, RSLAD)",
        taps=False,
        tags=("robust",),
    )
    yield MethodSpec(
        name="adaptive",
        target="stillhouse.methods.adaptive:Adaptive",
        summary="The teacher's share follows the difficulty of each row (AdaKD), or falls in two phases (Annealing KD)",
        taps=False,
        tags=("difficulty", "annealing", "search"),
    )
    yield MethodSpec(
        name="noisy-teachers",
        target="stillhouse.methods.noisy:NoisyTeachers",
        summary="Teachers on overlapping parts of noisy rows; the student learns from those that have not seen a row",
        uses_teacher=False,
        taps=False,
        students=("teacher",),
        tags=("noise",),
    )
    yield MethodSpec(
        name="confident-teachers",
        target="stillhouse.methods.confident:ConfidentTeachers",
        summary="Several teachers, weighted row by row by their loss or their entropy",
        several_teachers=True,
        taps=False,
        tags=("ensemble",),
    )
    yield MethodSpec(
        name="spot-adaptive",
        target="stillhouse.methods.spots:SpotAdaptive",
        summary="A policy network decides row by row at which tapped modules the student is distilled",
        tags=("feature",),
    )
    yield MethodSpec(
        name="condensed",
        target="stillhouse.methods.condensed:Condensed",
        summary="Stages on fewer and fewer rows: those on which the student still differs from the teacher",
        taps=False,
        tags=("compute",),
    )
    yield MethodSpec(
        name="denoised",
        target="stillhouse.methods.denoised:Denoised",
        summary="A small diffusion model of the teacher's features denoises the student's before they are compared",
        tags=("feature",),
    )
    yield MethodSpec(
        name="self-supervised",
        target="stillhouse.methods.self_supervised:SelfSupervised",
        summary="Which rows look alike after a change, as the teacher sees it, is distilled beside its answers (SSKD)",
        changes_inputs=True,
        tags=("augmentation",),
    )
    yield MethodSpec(
        name="missing-modality",
        target="stillhouse.methods.missing:MissingModality",
        summary="The student lacks inputs that the teacher sees, and learns how near each row is to each class",
        kinds=(MULTICLASS, BINARY),
        tags=("modality",),
    )
    yield MethodSpec(
        name="stream",
        target="stillhouse.methods.stream:Stream",
        summary="Rows in order of time: each chunk is predicted, scored, then learned; replay against forgetting",
        kinds=(MULTICLASS, BINARY, MULTILABEL, REGRESSION, GAUSSIAN, SEGMENTATION),
        taps=False,
        students=("prior",),
        estimator_options=("prior",),
        tags=("online", "continual", "drift"),
    )
    yield MethodSpec(
        name="federated",
        target="stillhouse.methods.federated.method:Federated",
        summary="Clients keep their rows; predictions of public rows travel (FedMD, FedDF), or weights (FedAvg)",
        kinds=(MULTICLASS, BINARY, MULTILABEL, REGRESSION),
        uses_teacher=False,
        taps=False,
        students=("students",),
        baseline="the best client alone",
        tags=("federated", "privacy"),
    )
    yield MethodSpec(
        name="sequence",
        target="stillhouse.methods.sequence:SequenceLevel",
        summary="The teacher writes a text for each training row once, and the student learns to write it",
        kinds=(SEQUENCE,),
        changes_inputs=True,
        tags=("text", "writes"),
    )
    yield MethodSpec(
        name="on-policy",
        target="stillhouse.methods.on_policy:OnPolicy",
        summary="The student writes, and the teacher judges each token of it (GKD)",
        kinds=(SEQUENCE,),
        changes_inputs=True,
        taps=False,
        tags=("text", "writes"),
    )
