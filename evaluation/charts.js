"use strict";
/* What pages share: of charts, numbers as text, ticks, and a frame of two axes; tables that are
   sorted where their heads are clicked. */
const COLOURS = 8, DASHES = ["", "7 3", "2 3", "9 3 2 3"];
const colour = i => "var(--c" + i % COLOURS + ")";
const byId = id => document.getElementById(id);
const escaped = text => text.replace(/[&<>"]/g, c => "&#" + c.charCodeAt(0) + ";");
function make(tag, parent, attributes, text) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}
/* An empty chart that takes the keyboard. */
function makeSvg(parent) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [name, value] of Object.entries({ width: "100%", tabindex: 0, role: "img" })) svg.setAttribute(name, value);
  parent.append(svg);
  return svg;
}
function fillSvg(svg, W, H, inside) {
  svg.setAttribute("viewBox", "0 0 " + W + " " + H);
  svg.setAttribute("height", H);
  svg.innerHTML = inside;
}

/* Numbers as text. */
function si(v, digits) {
  if (v === 0) return "0";
  const size = Math.abs(v);
  if (size < 1e-3 || size >= 1e27) return v.toExponential(Math.min(digits - 1, 2)).replace("e+", "e");
  let power = 0;
  while (Math.abs(v) >= 999.5 && power < 8) { v /= 1000; power++; }
  return String(+v.toPrecision(digits)) + ["", "k", "M", "G", "T", "P", "E", "Z", "Y"][power];
}
function clock(seconds) {
  const s = Math.round(seconds), pad = v => String(v).padStart(2, "0");
  if (s >= 172800 && s % 3600 === 0) return +(s / 86400).toFixed(2) + " d";
  return s >= 3600 ? Math.floor(s / 3600) + ":" + pad(Math.floor(s / 60) % 60) + ":" + pad(s % 60)
    : Math.floor(s / 60) + ":" + pad(s % 60);
}
/* Ticks. */
function linearTicks(lo, hi, count, seconds, least = 0) {
  const raw = Math.max((hi - lo) / Math.max(count, 1), least);
  let step;
  if (seconds) {
    const nice = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200];
    step = nice.find(n => n >= raw) || Math.ceil(raw / 86400) * 86400;
  } else {
    const power = 10 ** Math.floor(Math.log10(raw));
    step = [1, 2, 2.5, 5, 10].find(n => n * power >= raw * .999) * power;
  }
  const found = [];
  for (let i = Math.ceil(lo / step - 1e-9); i * step <= hi + step * 1e-9; i++) found.push(+(i * step).toPrecision(12));
  return found;
}
function logTicks(lo, hi, count) {
  const from = Math.floor(Math.log10(lo)), to = Math.ceil(Math.log10(hi)), found = [];
  const each = to - from <= 1 ? [1, 2, 3, 5, 7] : to - from <= 2 ? [1, 2, 5] : [1];
  const stride = Math.max(1, Math.ceil((to - from) / Math.max(count, 1)));
  for (let e = from; e <= to; e += stride) for (const m of each) {
    const v = m * 10 ** e;
    if (v >= lo * .999 && v <= hi * 1.001) found.push(v);
  }
  return found.length >= 2 ? found : linearTicks(lo, hi, count);
}

/* Scales, and the frame of a chart: its grid, ticks and the name of its x axis.
   box: {x0, x1, y0, y1}; how: {logX, logY, xText, seconds, least, title, right}. */
function scale(lo, hi, log, from, to) {
  const f = log ? Math.log : v => v, a = f(lo), b = f(hi);
  return { at: v => from + (f(v) - a) / (b - a) * (to - from),
           back: p => { const v = a + (p - from) / (to - from) * (b - a); return log ? Math.exp(v) : v; } };
}
const fix = v => v.toFixed(1);
function frame(id, W, H, box, how) {
  const right = W - (how.right || 12), top = 10, low = H - 38;
  const yTicks = how.logY ? logTicks(box.y0, box.y1, H / 45) : linearTicks(box.y0, box.y1, H / 50);
  const yDigits = Math.max(3, Math.min(7, Math.ceil(Math.log10(Math.max(Math.abs(box.y0), Math.abs(box.y1)) / (box.y1 - box.y0 || 1))) + 2));
  const left = Math.max(36, ...yTicks.map(v => 7.2 * si(v, yDigits).length + 10));
  const X = scale(box.x0, box.x1, how.logX, left, right), Y = scale(box.y0, box.y1, how.logY, low, top);
  const xTicks = how.logX ? logTicks(box.x0, box.x1, W / 90)
    : linearTicks(box.x0, box.x1, Math.min(8, W / 90), how.seconds, how.least);
  let out = '<clipPath id="' + id + 'c"><rect x="' + (left - 4) + '" y="' + top + '" width="' + (right - left + 8) +
    '" height="' + (low - top + 4) + '"/></clipPath>';
  for (const v of yTicks) out += '<path class="grid" d="M' + left + " " + fix(Y.at(v)) + "H" + right + '"/><text x="' + (left - 6) +
    '" y="' + fix(Y.at(v) + 4) + '" text-anchor="end">' + si(v, yDigits) + "</text>";
  let free = -Infinity;  /* labels of x ticks never overlap */
  for (const v of xTicks) {
    const text = how.xText(v, 4), half = text.length * 3.4, at = Math.min(Math.max(X.at(v), half), W - half);
    out += '<path class="grid" d="M' + fix(X.at(v)) + " " + top + "V" + low + '"/>';
    if (at - half < free) continue;
    free = at + half + 8;
    out += '<text x="' + fix(at) + '" y="' + (low + 16) + '" text-anchor="middle">' + text + "</text>";
  }
  out += '<text class="axis" x="' + right + '" y="' + (H - 6) + '" text-anchor="end">' + how.title + "</text>";
  return { out, X, Y, left, right, top, low };
}

/* Tables. A cell has its key to sort by in data-key. */
function sortable(table) {
  table.addEventListener("click", event => {
    const head = event.target.closest("thead th");
    if (!head) return;
    const heads = [...head.parentNode.children], column = heads.indexOf(head);
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach(each => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    const rows = [...body.rows].map(row => [row, row.children[column].dataset.key]);
    rows.sort(([, a], [, b]) => {
      if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);  /* what is not there is last */
      const order = isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
      return down ? -order : order;
    });
    body.append(...rows.map(([row]) => row));
  });
}
