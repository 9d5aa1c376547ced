"""What a recipe's method asks of the teacher, found out by a rehearsal with the finished teacher on a few rows."""

from __future__ import annotations

from collections.abc import Sequence

from stillhouse.errors import IncompatibleError, StillhouseError
from stillhouse.pipeline.context import RunContext
from stillhouse.pipeline.rehearsal import RehearsalContext, StandIn, few_rows, prediction_shape
from stillhouse.pipeline.signal import is_stored
from stillhouse.pipeline.student import make_method, method_context
from stillhouse.pipeline.teacher import Teacher
from stillhouse.progress import collect_warnings
from stillhouse.teachers import TeacherSource
from stillhouse.teachers.cached import entries_of


class _Enough(Exception):
    """All is known that a rehearsal would tell."""


def asked_entries(context: RunContext, teacher: Teacher) -> tuple[str, ...]:
    """What is to be stored of each row so that no student asks the teacher; see
    `stillhouse.teachers.cached.entries_of`.

    Raises:
        IncompatibleError: the students ask the teacher in every step, or not at all.
    """
    taps: list[str] = []
    members, asked, live = False, False, False
    resolved, config = context.resolved, context.resolved.recipe.train.student
    few = few_rows(context.splits, config.batch_size)
    given = method_context(
        context,
        resolved.student,
        teacher,
        config=config,
        seed=resolved.recipe.seeds[0],
        label="student",
        tags={"stage": "student"},
        folder=context.folder / "student" / "rehearsal",
    )
    method = make_method(context)
    student = method.build(given)

    def ask(wanted: Sequence[str], of_members: bool) -> TeacherSource:
        nonlocal members, asked, live
        taps.extend(wanted)
        members, asked = members or of_members, True
        live = live or not is_stored(context, wanted)
        if live or not student.is_network:
            raise _Enough  # an estimator is fitted at once
        if any(member.is_asked for member in teacher.members):  # its answers may cost something
            return StandIn(prediction_shape(student, few, context.device), len(teacher.members))
        return teacher.source(wanted)

    rehearsed = RehearsalContext.of(given, few, teacher_source=ask, teacher_on=lambda _: teacher.source())
    with collect_warnings():
        try:
            method.train(rehearsed, student)
        except _Enough:
            pass
        except StillhouseError:
            if not asked:  # what few rows do not allow is none of our business afterwards
                raise
    if live:
        raise IncompatibleError(
            "a run of this recipe asks the teacher in every step and stores nothing: its rows are augmented at random "
            "or differ in length, its method changes them, or teacher.cache is false",
            where="teacher.cache",
            fix="run it as it is; for rows that are always the same, set teacher.cache: true",
        )
    if not asked:
        raise IncompatibleError(
            f"students of method '{resolved.method.id}' do not ask for stored outputs of the recipe's teacher",
            where="method",
            fix="run it as it is",
        )
    return entries_of(tuple(dict.fromkeys(taps)), members and len(teacher.members) > 1)
