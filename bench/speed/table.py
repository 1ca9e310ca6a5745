"""Prints a report as a table."""

from __future__ import annotations

from bench.speed.results import Report, Row

RATE_COLUMNS = ("", "per second", "lowest", "highest", "/ bare", "/ insert", "end-to-end /")


def render(report: Report) -> str:
    """Return the table, the latencies, the CPU times, and all notes."""
    machine, plan = report.machine, report.plan
    lines = [
        f"Version {report.version}, {machine.cores} cores ({machine.cpu}), Python {machine.python}, load by"
        f" {machine.load_generator}, load average before: {machine.load_average:.1f}.",
        f"Medians of {plan.rounds} interleaved rounds of {plan.seconds:g} s; ratios are medians of the rounds' ratios.",
    ]
    if rates := [row for row in report.rows if row.per_second is not None]:
        lines += ["", *_table([RATE_COLUMNS, *map(_rates, rates)])]
    if latencies := [row for row in report.rows if row.milliseconds]:
        lines += ["", "Latencies in milliseconds"]
        lines += _table(
            [(row.name, name, f"{value:.1f}") for row in latencies for name, value in row.milliseconds.items()]
        )
    if others := [row for row in report.rows if row.others]:
        lines += ["", "Other figures"]
        lines += _table([(row.name, name, f"{value:,.2f}") for row in others for name, value in row.others.items()])
    groups = list(dict.fromkeys(name for row in report.rows for name in row.cpu_ms))
    if groups:
        lines += ["", "CPU milliseconds per webhook"]
        lines += _table([("", *groups), *(_cpu(row, groups) for row in report.rows if row.cpu_ms)])
    notes = [f"  {row.name}: {note}" for row in report.rows for note in row.notes]
    notes += [f"  {row.name}: no round succeeded" for row in report.rows if not row.rounds]
    lines += ["", "Failures and doubts", *notes] if notes else []
    if report.not_installed:
        lines += ["", f"Peers not measured: pip install {' '.join(report.not_installed)}, or run make bench."]
    return "\n".join(lines)


def _rates(row: Row) -> tuple[str, ...]:
    rates = [_number(value, ",.0f") for value in (row.per_second, row.lowest, row.highest)]
    return (row.name, *rates, _number(row.to_bare, ".1%"), _number(row.to_insert, ".1%"), _number(row.product, ".2f"))


def _cpu(row: Row, groups: list[str]) -> tuple[str, ...]:
    return (row.name, *(_number(row.cpu_ms.get(name), ".3f") for name in groups))


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _table(all_rows: list[tuple[str, ...]]) -> list[str]:
    """Align the columns that have values. A first row without name is the header."""
    body = all_rows[1:] if not all_rows[0][0] else all_rows
    kept = [column for column in range(len(all_rows[0])) if any(row[column] for row in body)]
    texts = [not all(_is_number(row[column]) for row in body) for column in kept]
    rows = [tuple(row[column] for column in kept) for row in all_rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(kept))]
    return [
        "  ".join(
            cell.ljust(width) if is_text else cell.rjust(width)
            for cell, width, is_text in zip(row, widths, texts, strict=True)
        ).rstrip()
        for row in rows
    ]


def _is_number(cell: str) -> bool:
    return not cell or cell.rstrip("%").replace(",", "").replace(".", "").isdigit()
