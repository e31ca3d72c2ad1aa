"""Where each number of a study's page comes from: a fold for each cell."""

import json
from typing import Any

from octavo.ablation.labels import bits, budget_label, index_of, section, swatch
from octavo.evaluation import parts
from octavo.evaluation.curves import number
from octavo.evaluation.viewer import readable


def provenance(summary: dict[str, Any]) -> str:
    """What all cells were made with, and each cell: its command, config, data and certificate."""
    cells = summary.get("cells") or []
    if not cells:
        return ""
    places: dict[str, int] = {}
    folds = "".join(_cell(summary, cell, places) for cell in cells)
    text = summary.get("text") or {}
    scored = (
        f"All cells are scored on {parts.si(text.get('bytes'), 'B')} in "
        f"{parts.whole(text.get('documents'))} documents of {text.get('source')}, fingerprint "
        f"{text.get('fingerprint')}."
    )
    made = "".join(_place(key, number) for key, number in places.items())
    return section("provenance", "Provenance", "Where each number comes from", (
        f"<p>{readable(scored)}</p>{_arms(summary)}{made}"
        f'<div class="bar controls" id="filter"><label>find <input type="search" id="find" '
        'placeholder="arm, cell, hash …"></label><label><input type="checkbox" id="tries"> '
        'with lost tries of learning rates</label><output id="found"></output></div>'
        f'<div class="cells" tabindex="0" role="region" aria-label="cells">{folds}</div>'
    ))  # fmt: skip


def _arms(summary: dict[str, Any]) -> str:
    rows = []
    for arm in summary["arms"]:
        asked = parts.code(arm["asked"]) if arm.get("asked") else ""
        rows.append([
            swatch(summary, arm["name"]) + readable(arm["name"]), asked,
            parts.text(arm.get("preset") or ""), parts.text(arm.get("source") or ""),
            parts.text(arm.get("tokenizer") or ""), parts.whole(arm.get("vocabulary")),
        ])  # fmt: skip
    head = ("arm", "as it was asked for", "preset", "text", "tokenizer", "vocabulary")
    return parts.fold("The arms, as they were asked for", parts.table(head, rows, (5,)))


def _place(key: str, place: int) -> str:
    """A set of versions and devices."""
    about = json.loads(key)
    versions = " · ".join(f"{name} {v}" for name, v in (about.pop("versions") or {}).items())
    changed = " (changed since)" if about.get("commit_changed") else ""
    devices = f"{about.get('devices') or ''} × {about.get('device')}".removeprefix(" × ")
    hosts = about.get("hosts")
    devices += f", {hosts} hosts" if number(hosts) and hosts != 1 else ""
    return (
        f"<p><b>Made with {_letter(place)}:</b> commit {parts.code(str(about.get('commit')))}"
        f"{changed}; {readable(devices)}; {readable(versions)}</p>"
    )


def _letter(place: int) -> str:
    return chr(65 + place) if place < 26 else str(place)


def _cell(summary: dict[str, Any], cell: dict[str, Any], places: dict[str, int]) -> str:
    results = cell.get("results") or {}
    names = ("commit", "commit_changed", "device", "devices", "hosts", "versions")
    made = ""
    if results:
        key = json.dumps({name: results.get(name) for name in names}, sort_keys=True)
        made = _letter(places.setdefault(key, len(places)))
    rate = cell.get("learning_rate")
    score = results.get("heldout/bits_per_byte")
    lost = not cell.get("chosen")
    certificate = cell.get("certificate") or {}
    mark = ""
    if certificate:
        mark = "not certified" if _why(cell) else "certified \N{CHECK MARK}"
    size = f" {cell['size']}" if cell.get("size") else ""
    head = [
        swatch(summary, cell["arm"]) + readable(cell["arm"] + size),
        readable(budget_label(summary, cell["budget"])), f"seed {cell['seed']}",
        "" if number(rate) is None else f"rate {rate:.3g}",
        f"{bits(score)} bits/byte" if number(score) is not None else "",
        "lost try" if lost and cell.get("status") != "missing" else mark or _status(cell),
    ]  # fmt: skip
    useful, paid = (parts.si(cell.get(f"flops_{kind}"), "FLOPs") for kind in ("useful", "paid"))
    flops = f"{useful} useful, {paid} paid"
    spent = parts.time(results.get("seconds"))
    told = {
        "cell": parts.code(cell["name"]),
        "command": cell.get("command") and _command(cell["command"]),
        "config": parts.code(f"runs/{cell['name']}/config.json"),
        "trained": f"{parts.whole(cell.get('steps'))} steps, {parts.si(cell.get('bytes'), 'B')}, "
        f"{flops}{f', {spent}' if spent else ''}; {parts.whole(cell.get('parameters'))} parameters",
        "data": _data(results.get("data")),
        "made with": made,
        "what went wrong": cell.get("why") and readable(cell["why"]),
        "settings": _settings(cell.get("settings") or {}),
        "collapsed": cell.get("collapsed") and readable(cell["collapsed"]),
        "certificate": certificate and _certificate(certificate, _why(cell)),
    }
    rows = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in told.items() if value)
    arm = index_of(summary, cell["arm"])
    return (
        f'<details class="cell{" lost" * lost}" data-arm="{arm}"><summary>'
        f"{''.join(f'<span>{part}</span>' for part in head)}</summary><dl>{rows}</dl></details>"
    )


def _status(cell: dict[str, Any]) -> str:
    return {"done": "", "missing": "not done", "trained": "not measured"}.get(
        cell.get("status") or "", cell.get("status") or ""
    )


def _why(cell: dict[str, Any]) -> str | None:
    """Why the certificate of a cell does not prove its score; None: it does."""
    certificate = cell.get("certificate") or {}
    why = cell.get("unproven") or certificate.get("why")
    return why or (None if certificate.get("proves") else "it proves nothing")


def _settings(settings: dict[str, Any]) -> str:
    """Those that are not the same in all cells, and a few more."""
    return " ".join(
        parts.code(f"{name}={value if isinstance(value, str) else json.dumps(value)}")
        for name, value in settings.items()
    )


def _command(command: Any) -> str:
    command = command if isinstance(command, str) else " ".join(map(str, command))
    return f'<code class="command">{readable(command)}</code>'


def _data(data: Any) -> str:
    found = []
    for one in data if isinstance(data, list) else []:
        if isinstance(one, dict):
            about = f"{one.get('folder', '')}, {parts.si(one.get('bytes'), 'B')}, fingerprint "
            found.append(readable(about) + parts.code(str(one.get("fingerprint", ""))))
    return "; ".join(found)


def _of_files(certificate: dict[str, Any]) -> float | None:
    """Bits per byte that the files have beside their headers."""
    size, packed, headers = (
        number(certificate.get(name)) for name in ("bytes", "compressed_bytes", "overhead_bytes")
    )
    if not size or packed is None:
        return None
    return 8 * (packed - (headers or 0)) / size


def _certificate(certificate: dict[str, Any], why: str | None) -> str:
    """Its size, hashes, and the command that gets the text back."""
    said = (
        f"step {parts.whole(certificate.get('step'))}, parameters "
        f"{parts.code(str(certificate.get('checkpoint')))}: "
        f"{parts.whole(certificate.get('bytes'))} bytes of text as "
        f"{parts.whole(certificate.get('compressed_bytes'))}, "
        f"{bits(_of_files(certificate))} bits per byte in the files (less their headers), "
        f"{bits(certificate.get('bits_per_byte_score'))} by the score"
    )
    if why:
        said += f"; <b>proves nothing: {readable(why)}</b>"
    pieces = "".join(
        f"<li>{readable(str(one.get('label')))}: {parts.whole(one.get('bytes'))} bytes, sha256 "
        f"{parts.code(str(one.get('sha256')))}, as {parts.code(str(one.get('compressed')))}, "
        f"{parts.whole(one.get('compressed_bytes'))} bytes, sha256 "
        f"{parts.code(str(one.get('compressed_sha256')))}"
        f"{'' if one.get('restored') else ', <b>not restored</b>'}</li>"
        for one in certificate.get("pieces") or []
    )
    decoder = certificate.get("decoder")
    return f"{said}<ul>{pieces}</ul>{_command(decoder) if decoder else ''}"
