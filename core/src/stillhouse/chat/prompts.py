"""What a language model is asked about a row: a template over the row in words, and examples from training rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from stillhouse.errors import DataError, IncompatibleError, OptionError
from stillhouse.types import Batch, DataInfo, DescribingReader, Reader, Split

TEMPLATE = """\
{% macro words(row) %}{% for name, value in row | items %}{{ name }}: {{ value }}
{% endfor %}{% endmacro -%}
Which of these does the case belong to?
{% for answer, name in choices %}- {{ answer }}{% if answer != name %}: {{ name }}{% endif %}
{% endfor %}Reply with one of them and nothing else.

{% for example in examples %}{{ words(example.row) }}Answer: {{ example.answer }}

{% endfor %}{{ words(row) }}Answer:"""
"""The default prompt: the classes, the examples, the row."""
MOST_NUMBERS = 512
"""Numbers of a row beyond which it is no table that a language model could read."""

Row = Mapping[str, Any]


class Template:
    """A Jinja template; it runs in a sandbox, and what it names must exist.

    Raises:
        OptionError: the text is not Jinja.
    """

    def __init__(self, text: str) -> None:
        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
        try:
            self._template = environment.from_string(text)
        except TemplateSyntaxError as error:
            raise OptionError(
                f"the prompt is not a Jinja template: {error.message}",
                where=f"prompt, line {error.lineno}",
                fix="correct the template; docs/chat.md has examples",
            ) from error

    def render(self, about: str, **names: Any) -> str:
        """The prompt.

        Args:
            about: what it is about, for errors.
            names: what the template sees.

        Raises:
            OptionError: the template names what there is not, or fails.
        """
        try:
            return self._template.render(**names)
        except UndefinedError as error:
            row = names.get("row")
            beside = ", ".join(name for name in names if name != "row")
            raise OptionError(
                f"the prompt names what there is not: {error.message}",
                where=f"prompt, {about}",
                fix=f"the row has {', '.join(row)}; beside it there are {beside}"
                if row and beside
                else f"there are {', '.join(row) if row else beside}",
            ) from error
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise OptionError(
                f"the prompt cannot be filled in: {type(error).__name__}: {error}",
                where=f"prompt, {about}",
                fix="correct the template; docs/chat.md has examples",
            ) from error


class Prompts:
    """Prompts for rows, from a Jinja template that sees

    - ``row``: the row in words, a mapping (``{{ row.text }}``, ``{{ row.amount }}``),
    - ``choices``: pairs of the reply wanted and the name of its class,
    - ``examples``: training rows, each with ``row`` and ``answer``.

    Args:
        template: text of a `Template`.
        info: of the dataset.
        answers: the reply wanted for each class.
        columns: names of the numbers of all inputs, flattened in order; empty means as the dataset's reader says, and
            inputs by name without one.

    Raises:
        OptionError: the template is not Jinja.
    """

    def __init__(self, template: str, *, info: DataInfo, answers: Sequence[str], columns: Sequence[str] = ()) -> None:
        names = info.classes or tuple(answers)
        self._info, self._answers, self._columns = info, list(answers), list(columns)
        self._choices = list(zip(answers, names, strict=True))
        self._reader: Reader | None = None
        self._examples: list[list[tuple[int, dict[str, Any]]]] = []
        self._order: list[int] = []
        self._template = Template(template)

    def prepare(self, train: Split, reader: Reader | None, *, shots: int, seed: int) -> None:
        """Read rows as the dataset's reader does from now on, and draw examples.

        One more is drawn of each class than is shown, so that a training row is never its own example and is
        shown as many as any other.

        Args:
            train: the training rows; examples are of these alone.
            reader: that of the dataset.
            shots: examples of each class.
            seed: of the draw and of the order that they are shown in.

        Raises:
            DataError: a class has too few training rows.
        """
        self._reader, self._examples = reader, []
        if not shots:
            return
        target = train.columns(["target"])["target"].numpy().reshape(-1)
        random = np.random.default_rng(seed)
        for position, answer in enumerate(self._answers):
            found = np.flatnonzero(target == position)
            if len(found) <= shots:
                raise DataError(
                    f"class '{self._choices[position][1]}' has {len(found)} training rows, {shots} examples need one "
                    "more than that",
                    where="teacher, shots",
                    fix="lower 'shots'",
                )
            batch = train.batch([int(each) for each in random.choice(found, shots + 1, replace=False)])
            rows = self.in_words(batch)
            shown = [{"row": row, "answer": answer} for row in rows]
            self._examples.append(list(zip(batch["index"].tolist(), shown, strict=True)))
        self._order = random.permutation(len(self._answers) * shots).tolist()

    def in_words(self, batch: Batch) -> list[Row]:
        """The rows of a batch, a mapping each.

        Raises:
            OptionError: ``columns`` does not fit the inputs.
            IncompatibleError: a row has too many numbers to be read.
        """
        if isinstance(self._reader, DescribingReader) and not self._columns:
            return [{name: _numbers(value) for name, value in row.items()} for row in self._reader.describe(batch)]
        inputs = {name: batch[name].flatten(1) if batch[name].ndim > 1 else batch[name] for name in self._info.inputs}
        width = sum(1 if each.ndim == 1 else each.shape[1] for each in inputs.values())
        if width > MOST_NUMBERS:
            raise IncompatibleError(
                f"a row has {width} numbers and no text, more than a language model can read",
                where="teacher 'core/chat'",
                fix="use a dataset of texts or a table; a reader with 'describe' can put a row into words",
            )
        if not self._columns:
            return [
                {name: _numbers(column[at].tolist()) for name, column in inputs.items()}
                for at in range(len(batch["index"]))
            ]
        if len(self._columns) != width:
            raise OptionError(
                f"'columns' has {len(self._columns)} names, a row has {width} numbers",
                where="teacher, columns",
                fix=f"name the {width} numbers of {', '.join(inputs)}, in order",
            )
        rows: list[Row] = []
        for at in range(len(batch["index"])):
            values = [_numbers(column[at].tolist()) for column in inputs.values()]
            flat = [each for value in values for each in (value if isinstance(value, list) else [value])]
            rows.append(dict(zip(self._columns, flat, strict=True)))
        return rows

    def of(self, batch: Batch) -> list[str]:
        """The prompt of each row.

        Raises:
            OptionError: the template names what the row does not have, or fails.
        """
        indices = batch["index"].tolist()
        return [self._render(row, index) for row, index in zip(self.in_words(batch), indices, strict=True)]

    def _render(self, row: Row, index: int) -> str:
        shown = [
            example
            for drawn in self._examples
            for example in [each for whose, each in drawn if whose != index][: len(drawn) - 1]
        ]
        examples = [shown[at] for at in self._order]
        return self._template.render(f"row {index}", row=row, choices=self._choices, examples=examples)


def _numbers(value: Any) -> Any:
    """Numbers as one would write them: six digits, whole ones without a point."""
    if isinstance(value, list):
        return [_numbers(each) for each in value]
    if isinstance(value, float):
        short = float(f"{value:.6g}")
        return int(short) if short.is_integer() else short
    return value
