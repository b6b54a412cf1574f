"""Numbers as people read them. Plain ASCII, so that every console can print it."""

from __future__ import annotations

import math

from tiltlm.runs.estimates import Estimate


def number(value: float) -> str:
    """About three significant digits, never in exponents unless very small or very large."""
    size = abs(value)
    if not math.isfinite(value):
        return str(value)
    if size != 0 and (size < 0.001 or size >= 1e9):
        return f"{value:.1e}"
    decimals = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").removesuffix(".") if decimals else text


def signed(value: float) -> str:
    """A change, with its sign also where it is positive."""
    return f"+{number(value)}" if value > 0 else number(value)


def percent(share: float) -> str:
    """A share in [0, 1] in percent, with one decimal where it has one: 70%, 72.3%."""
    return f"{100 * share:.1f}".removesuffix(".0") + "%"


def estimated(estimate: Estimate) -> str:
    """A change with its interval: -1.2 (95% interval -1.9 to -0.5)."""
    if estimate.interval is None:
        return signed(estimate.mean)
    return f"{signed(estimate.mean)} (95% interval {number(estimate.interval[0])} to {number(estimate.interval[1])})"


def count(amount: int, thing: str) -> str:
    """`1 pair`, `1,200 pairs`."""
    return f"{amount:,} {thing}" if amount == 1 else f"{amount:,} {thing}s"


def at_temperature(temperature: float | None) -> str:
    """What a KL divergence between tempered distributions is called besides; nothing at temperature 1."""
    if temperature == 1:
        return ""
    return " at the sampling temperature" + ("" if temperature is None else f" {number(temperature)}")


def duration(seconds: float) -> str:
    """`0.4 s`, `45 s`, `3 min 30 s`, `2 h 5 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"
