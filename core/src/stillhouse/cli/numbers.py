"""Numbers and lists as people read them: counts, bytes, times, names."""

from __future__ import annotations

from collections.abc import Sequence


def in_count(value: int | None) -> str:
    """``5.33k``; a question mark where it is not known."""
    if value is None:
        return "?"
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{significant(value / limit)}{suffix}"
    return str(value)


def in_bytes(value: int | None) -> str:
    """``22.7 kB``; a question mark where it is not known."""
    if value is None:
        return "?"
    for limit, unit in ((1e9, "GB"), (1e6, "MB")):
        if value >= limit:
            return f"{significant(value / limit)} {unit}"
    return f"{significant(value / 1e3)} kB"


def in_time(seconds: float) -> str:
    """``0.12 ms``, ``3.4 s``, ``2 min 5 s``, ``3 h 20 min``."""
    if seconds < 1:
        return f"{significant(seconds * 1000)} ms"
    if seconds < 60:
        return f"{significant(seconds)} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def about(seconds: float) -> str:
    """An estimate: `in_time` with two digits, ``45 s``."""
    return in_time(float(f"{seconds:.2g}") if seconds < 60 else seconds)


def significant(value: float, digits: int = 3) -> str:
    """With so many significant digits and never with an exponent: ``0.0123``, ``12.3``, ``1,234``."""
    if not value:
        return "0"
    text = f"{float(f'{value:.{digits}g}'):,.10f}" if abs(value) < 10**digits else f"{value:,.0f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def in_words(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def metric_value(value: float) -> str:
    """A metric: three decimals below 10, two from there on."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.2f}"
