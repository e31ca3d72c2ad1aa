"""What a page of runs says in words and tables, as HTML."""

import html
from collections.abc import Iterable
from typing import Any

from octavo.evaluation import parts, viewer
from octavo.evaluation.curves import HELDOUT
from octavo.evaluation.folder import Cut, Folder, differing
from octavo.evaluation.viewer import readable
from octavo.files import shown

_MOST_LABELS = 300


def _interval(run: Folder) -> str:
    low, high = run.score.get("heldout/low"), run.score.get("heldout/high")
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def header(runs: list[Folder]) -> str:
    if len(runs) > 1:
        about = " · ".join(dict.fromkeys(readable(run.preset[0]) for run in runs))
        return f"<header><div><h1>{len(runs)} runs</h1><p>{about}</p></div></header>"
    run = runs[0]
    told, about = None, ""
    if HELDOUT in run.score:
        told, about = run.score[HELDOUT], _interval(run)
        about = f"95% interval {about} · " if about else ""
        about += f"held-out text at step {int(run.score['step']):,}"
    elif run.recent is not None:
        told, about = run.recent, "of training; there is no score of held-out text"
    score = f"<b>{told:.3f}</b> <span>bits/byte</span><p>{about}</p>" if about else ""
    status, lives = run.status
    again = ' · <label><input type="checkbox" id="reload"> reload each minute</label>'
    return (
        f"<header><div><h1>{readable(run.name)}</h1>"
        f"<p>{readable(run.preset[0])} · {status}{again if lives else ''}</p></div>"
        f'<div class="score">{score}</div></header>{_failure(run)}'
    )


def _failure(run: Folder) -> str:
    failed = run.results.get("failed")
    return f'<p class="warning">{parts.text(failed)}</p>' if failed else ""


def figures(run: Folder) -> str:
    """The key figures, as far as they are known."""
    result, best = run.results, run.best
    useful = parts.si(result.get("flops_useful"))
    evaluating = parts.time(result.get("evaluation_seconds"))
    text = parts.si(result.get("heldout/bytes"), "B")
    documents = parts.whole(result.get("heldout/documents"))
    device, devices = result.get("device"), parts.whole(result.get("devices"))
    told = {
        "steps": parts.whole(run.step),
        "training": run.recent is not None and f"{run.recent:.3f} bits/byte lately",
        "best evaluation": best and f"{best[0]:.3f} at step {best[1]:,}",
        "held-out text": text + (f" in {documents} documents" if documents else ""),
        "bytes read": parts.si(run.result("bytes", "train/bytes"), "B"),
        "FLOPs": parts.si(run.result("flops", "train/flops"))
        + (f" ({useful} useful)" if useful else ""),
        "parameters": parts.si(result.get("parameters")),
        "time": parts.time(run.result("seconds", "perf/seconds"))
        + (f" ({evaluating} evaluating)" if evaluating else ""),
        "goodput": run.time and f"{run.time.goodput:.1%}",
        "speed": parts.si(run.result("bytes_per_second", "perf/bytes_per_second"), "B/s"),
        "of the peak": (mfu := run.newest("perf/mfu")) is not None and f"{mfu:.1%}",
        "devices": isinstance(device, str) and (f"{devices} × " if devices else "") + device,
        "hosts": hosts if (hosts := parts.whole(result.get("hosts"))) != "1" else "",
        "skipped steps": run.curves.skipped and parts.whole(run.curves.skipped),
    }
    rows = [f"<div><dt>{name}</dt><dd>{readable(v)}</dd></div>" for name, v in told.items() if v]
    return f"<dl>{''.join(rows)}</dl>"


def compared(runs: list[Folder]) -> str:
    """The scores in one table, the best first."""
    ranked = sorted(range(len(runs)), key=lambda i: runs[i].score.get(HELDOUT, float("inf")))
    seen = [
        value
        for run in runs
        if HELDOUT in run.score
        for value in map(run.score.get, (HELDOUT, "heldout/low", "heldout/high"))
        if value is not None
    ]
    lines = []
    for i in ranked:
        run = runs[i]
        score = run.score.get(HELDOUT)
        recent = run.recent
        lines.append([
            parts.swatch(i) + readable(run.name), readable(run.preset[0]),
            "" if score is None else f"<b>{score:.3f}</b>", _interval(run),
            _whisker(run, i, seen), "" if recent is None else f"{recent:.3f}",
            readable(run.status[0]), parts.si(run.result("bytes", "train/bytes"), "B"),
            parts.si(run.result("flops", "train/flops")), parts.si(run.results.get("parameters")),
            parts.si(run.result("bytes_per_second", "perf/bytes_per_second"), "B/s"),
        ])  # fmt: skip
    head = (
        "run", "preset", "held-out bits/byte", "95% interval", "", "training", "status", "bytes",
        "FLOPs", "parameters", "speed",
    )  # fmt: skip
    texts = {
        tuple(run.results.get(f"heldout/{what}") for what in ("bytes", "documents"))
        for run in runs
        if "heldout/bytes" in run.results
    }
    warning = ""
    if len(texts) > 1:
        warning = (
            '<p class="warning">These scores are not of the same text: the runs held out different '
            "amounts. Score them alike with evaluate.py RUN --text FILE.</p>"
        )
    failures = "".join(map(_failure, runs))
    table = parts.table(head, lines, (2, 3, 5, 7, 8, 9, 10))
    return f'{warning}{failures}<div class="scores">{table}</div>'


def _whisker(run: Folder, number: int, seen: list[float]) -> str:
    """The interval as a picture, on a scale for all runs."""
    score = run.score.get(HELDOUT)
    if score is None or len(seen) < 2:
        return ""
    least, most = min(seen), max(seen)
    at = [
        4 + 112 * (run.score.get(name, score) - least) / (most - least or 1)
        for name in ("heldout/low", HELDOUT, "heldout/high")
    ]
    colour = f"var(--c{number % 8})"
    return (
        '<svg class="whisker" viewBox="0 0 120 16" aria-hidden="true">'
        f'<path d="M{at[0]:.1f} 8H{at[2]:.1f}" style="stroke:{colour};stroke-width:3"/>'
        f'<circle cx="{at[1]:.1f}" cy="8" r="4" style="fill:{colour}"/></svg>'
    )


def curves(runs: list[Folder], charts: list[dict[str, Any]]) -> str:
    if not charts:
        return "<p>Nothing is logged yet, so there are no curves.</p>"
    legend = '<div id="runs" class="chips" role="group" aria-label="runs"></div>'
    legend = legend if len(runs) > 1 else ""
    notes = ["Drag over a chart to look closer; point at it, or use the arrow keys, to read it."]
    if any(run.curves.skipped for run in runs):
        notes.append("Triangles: steps that were skipped, as they were not finite.")
    if not all(run.curves.exact for run in runs):
        notes.append("Shaded: from the least to the most of neighbouring steps.")
    if any("heldout/low" in row for run in runs for row in run.curves.heldout):
        notes.append("Shaded around held-out points: the 95% interval.")
    return (
        '<section><h2>Curves</h2><noscript>The curves need JavaScript.</noscript><div class="bar">'
        '<fieldset id="axes" class="choice" aria-label="x axis"></fieldset>'
        '<label><input type="checkbox" id="log"> logarithmic</label>'
        '<label>smoothing <input type="range" id="smooth" min="0" max="4" step="1"></label>'
        f'<button type="button" id="whole" hidden>whole run</button>{legend}</div>'
        f'<div class="charts" id="charts"></div><p class="quiet">{" ".join(notes)}</p></section>'
    )


def labels(runs: list[Folder]) -> str:
    """Held-out scores by language or source."""
    scores = [run.label_scores for run in runs]
    named = dict.fromkeys(label for each in scores for label in each)
    if not named:
        return ""
    worst = sorted(
        named, key=lambda label: max(each.get(label, 0) for each in scores), reverse=True
    )
    most = worst[:_MOST_LABELS]
    if len(runs) > 1:
        head = ["", *(parts.swatch(i) + readable(run.name) for i, run in enumerate(runs))]
        rows = [
            [readable(label), *(f"{s[label]:.3f}" if label in s else "" for s in scores)]
            for label in most
        ]
    else:
        first = runs[0].curves.heldout[0] if runs[0].curves.heldout else {}
        head, rows = ["", "bits/byte", "at first", "bytes", "documents"], []
        for label in most:
            about, began = runs[0].by_label.get(label, {}), first.get(f"{HELDOUT}/{label}")
            rows.append([
                readable(label), f"{scores[0][label]:.3f}",
                "" if began is None else f"{began:.3f}", parts.si(about.get("bytes"), "B"),
                parts.whole(about.get("documents")),
            ])  # fmt: skip
    left = len(named) - len(most)
    more = f'<p class="quiet">and {left:,} more.</p>' if left else ""
    table = parts.table(head, rows, range(1, len(head)))
    return f"<h2>Held-out text by language or source</h2>{table}{more}"


def samples(runs: list[Folder]) -> str:
    """What each run writes: the newest, and a slider to the earlier ones."""
    if not any(run.samples for run in runs):
        return ""
    found = []
    for i, run in enumerate(runs):
        if not run.samples:
            continue
        step, prompt, text = run.samples[-1]
        name = f"<h3>{parts.swatch(i)}{readable(run.name)}</h3>" if len(runs) > 1 else ""
        slider = ""
        if (last := len(run.samples) - 1) > 0:
            slider = (
                f'<input type="range" min="0" max="{last}" value="{last}" '
                'aria-label="which evaluation the sample is of">'
            )
        where = f"step {step:,}" if step else "at the end"
        prompt, text = parts.plain(prompt), parts.plain(text)
        told = f"<b>{html.escape(prompt)}</b>{html.escape(text[len(prompt) :])}"
        found.append(
            f'<div class="sample" data-run="{i}">{name}<output class="quiet">{where}</output>'
            f"{slider}<pre>{told}</pre></div>"
        )
    return f'<h2>Samples</h2><div class="samples">{"".join(found)}</div>'


def cuts(runs: list[Folder], besides: Iterable[Cut]) -> tuple[str, list[dict[str, Any]]]:
    """How the runs cut texts, those of the same text side by side, and the data to point at."""
    groups: dict[bytes, list[Cut]] = {}
    for run in runs:
        for cut in run.cuts if len(runs) == 1 else run.cuts[-1:]:
            name = cut.name if len(runs) == 1 else f"{run.name} · {cut.name}"
            groups.setdefault(cut.text, []).append(cut._replace(name=name))
    for cut in besides:
        groups.setdefault(cut.text, []).append(cut)
    if not groups:
        return "", []
    found, data = [], []
    for i, (text, cuts) in enumerate(groups.items()):
        sections, about = viewer.columns(text, [(cut.name, cut) for cut in cuts], "h3")
        found.append(f'<div class="units" id="cut{i}">{sections}</div>')
        data.append(about)
    return (
        '<h2>How text is cut</h2><label><input type="checkbox" id="heat"> colour by surprisal '
        'instead of units</label><p class="quiet">Units alternate in colour; the line below says '
        "how many bits a character cost, more the stronger it is. Point at a character, or use the "
        "arrow keys, for the probability that a unit ends there. A dotted bar is a cut inside a "
        f'character.</p><div class="cuts" id="cuts">{"".join(found)}</div>'
    ), data


def facts(runs: list[Folder]) -> list[str]:
    """Settings, data and provenance, folded; of several runs, first where their settings differ."""
    names = [parts.swatch(i) + readable(run.name) for i, run in enumerate(runs)]
    found = []
    if len(runs) == 1:
        run = runs[0]
        name, theirs = run.preset
        changed = differing(run.settings, theirs) if run.settings else []
        rows = [
            [parts.code(key), _value(run.settings, key), _value(theirs, key)] for key in changed
        ]
        if rows:
            heading = f"Settings that are not those of the preset {name.removeprefix('like ')}"
            found.append(
                parts.fold(heading, parts.table(("setting", "run", "preset"), rows), opened=True)
            )
    else:
        keys = dict.fromkeys(key for run in runs for key in run.settings if key != "workdir")
        different = [k for k in keys if len({_value(run.settings, k) for run in runs}) > 1]
        rows = []
        for key in different:
            values = [_value(run.settings, key) for run in runs]
            usual = max(values, key=values.count)
            rows.append([
                parts.code(key),
                *(v if v == usual else f'<span class="differs">{v}</span>' for v in values),
            ])  # fmt: skip
        if rows:
            found.append(
                parts.fold("Settings that differ", parts.table(("", *names), rows), opened=True)
            )
        else:
            found.append("<p>The settings of these runs are the same.</p>")
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    if keys:
        rows = [[parts.code(key), *(_value(run.settings, key) for run in runs)] for key in keys]
        found.append(parts.fold("All settings", parts.table(("", *names), rows)))
    if data := _corpora(runs):
        found.append(parts.fold("Data", data))
    if provenance := _provenance(runs, names):
        found.append(parts.fold("Provenance", provenance))
    return ["<h2>What it is</h2>" if len(runs) == 1 else "<h2>What they are</h2>", *found]


def _value(settings: dict[str, Any], key: str) -> str:
    return f"<code>{parts.text(settings[key])}</code>" if key in settings else ""


def _corpora(runs: list[Folder]) -> str:
    rows = []
    for i, run in enumerate(runs):
        name = parts.swatch(i) + readable(run.name)
        told = run.results.get("data")
        told = [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []
        source, tokenizer = (
            run.settings.get("data.source"),
            parts.text(run.results.get("tokenizer", "")),
        )
        if not told and source is not None:
            told = [{"folder": source}]
        for one in told:
            folder, mark = parts.text(one.get("folder", "")), parts.text(one.get("fingerprint", ""))
            if label := one.get("label"):
                folder += f"[{parts.text(label)}]"
            size = parts.si(one.get("bytes"), "B")
            rows.append([name, folder, f"<code>{mark}</code>", size, tokenizer])
    head = ("run", "folder", "fingerprint", "text", "tokenizer")
    return parts.table(head, rows, (3,)) if rows else ""


def _provenance(runs: list[Folder], names: list[str]) -> str:
    about = {
        "command": "command", "commit": "commit", "commit_changed": "changed since the commit",
        "revision": "revision of Octavo",
        "device": "device", "devices": "devices", "hosts": "hosts", "seed": "seed",
    }  # fmt: skip
    rows = []
    for key, label in about.items():
        values = [run.results.get(key) for run in runs]
        if key == "seed":
            values = [
                run.settings.get("train.seed") if v is None else v
                for run, v in zip(runs, values, strict=True)
            ]
        if any(value is not None for value in values):
            rows.append([label, *("" if v is None else _said(v) for v in values)])
    versions = [run.results.get("versions") for run in runs]
    versions = [each if isinstance(each, dict) else {} for each in versions]
    for library in dict.fromkeys(name for each in versions for name in each):
        rows.append([readable(library), *(parts.text(each.get(library, "")) for each in versions)])
    rows.append(["folder", *(f"<code>{readable(shown(str(run.path)))}</code>" for run in runs)])
    return parts.table(("", *names), rows)


def _said(value: Any) -> str:
    """A command may be a list of words."""
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        value = " ".join(value)
    return f"<code>{parts.text(value)}</code>"
