"""The tables of what mixers cost in ``docs/mixers.md``, from reports that ``mixers.py`` wrote."""

import math
from typing import Any

import reporting

COSTS_PICTURE = "images/mixers_costs.png"  # from the page
PLACES = {"pvt": "PVT-T", "vit": "ViT-T"}

Record = dict[str, Any]


def costs_name(report: Record) -> str:
    """The name under which a report of costs is kept: its day, places, modes and where it ran."""
    named = [dict.fromkeys(r[key] for r in report["records"]) for key in ("place", "mode")]
    words = [report["date"][:10], *(word for words in named for word in words)]
    words += ["gpu"] * bool(report["gpu"]) + [report["dtype"]] * (report["dtype"] != "float32")
    return f"costs_{'_'.join(words)}.json"


def by_machine(reports: list[Record]) -> list[list[Record]]:
    """Reports that may be compared, of one machine and type; those of CPUs come first."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for report in sorted(reports, key=lambda report: bool(report["gpu"])):
        groups.setdefault((report["gpu"] or report["cpu"], report["dtype"]), []).append(report)
    return list(groups.values())


def newest_costs(reports: list[Record]) -> list[Record]:
    """The records of reports, one for each place, mixer, mode and size, small sizes first."""
    found = {}
    for report in sorted(reports, key=lambda report: str(report["date"])):
        for r in report["records"]:
            found[r["place"], r["mixer"], r["mode"], tuple(r["size"])] = r
    return sorted(found.values(), key=lambda r: math.prod(r["size"]))


def costs_text(groups: list[list[Record]]) -> str:
    """The tables of costs of each group, one for each place and size; machines and commands."""
    parts = []
    for reports in groups:
        records, first = newest_costs(reports), reports[0]
        where = f"{first['gpu'] or first['cpu']}, {first['dtype']}"
        parts.append("\n".join(f"- {described(report)}" for report in reports))
        places = dict.fromkeys((r["place"], tuple(r["size"])) for r in records)
        for place, size in sorted(places, key=lambda key: (key[0], math.prod(key[1]))):
            here = [r for r in records if r["place"] == place]
            own = [r for r in here if tuple(r["size"]) == size]
            smaller = [r for r in here if math.prod(r["size"]) < math.prod(size)]
            parts.append(f"**{PLACES[place]}, {size[0]} x {size[1]}**, {where}")
            parts.append(cost_table(own, smaller))
    parts.append(f"![Time and peak memory over pixels, logarithmic axes]({COSTS_PICTURE})")
    return "\n\n".join(parts)


def described(report: Record) -> str:
    """Machine, type, day and command of a report of costs."""
    where = report["gpu"] or f"{report['cpu']}, {report['threads']} thread(s)"
    what = f"{report['dtype']}, torch {report['torch']}, {report['date'][:10]}"
    return f"{where}, {what}; `{report['command']}`"


def cost_table(records: list[Record], smaller: list[Record]) -> str:
    """The costs of all mixers in a place at a size, the quickest in inference first.

    Args:
        records: of the place and size.
        smaller: of the place at smaller sizes, to tell how time grows.
    """
    by: dict[str, dict[str, Record]] = {}
    for record in records:
        by.setdefault(record["mixer"], {})[record["mode"]] = record
    order = sorted(by, key=lambda name: by[name].get("inference", {}).get("median", math.inf))
    titles = ["mixer", "G multiply-adds"]
    for name in ("inference ", "training "):
        titles += [f"{name}ms", *(["~ tokens^"] if smaller else []), "peak MiB"]
    rows = [cost_row(name, by[name], smaller) for name in order]
    return reporting.markdown([*titles, "saved MiB"], rows)


def cost_row(name: str, modes: dict[str, Record], smaller: list[Record]) -> list[str]:
    """A line of the table; a mixer that did not run has the reason."""
    count = modes.get("inference", {}).get("multiply_adds")
    cells = [f"`{name}`", f"{count / 1e9:.1f}" if count else "-"]
    for mode in ("inference", "training"):
        record = modes.get(mode, {})
        cells.append(record.get("reason") or reporting.milliseconds(record.get("median")))
        if smaller:
            own = [r for r in smaller if (r["mixer"], r["mode"]) == (name, mode)]
            cells.append(reporting.decimals(reporting.growth(own, record, "median")))
        cells.append(reporting.mebibytes(record.get("peak_memory")))
    return [*cells, reporting.mebibytes(modes.get("training", {}).get("saved_bytes"))]
