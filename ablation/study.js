/* The charts of a study: bits per byte against what was spent, curves of training. */
const D = JSON.parse(byId("data").textContent);
const kept = "octavo:" + location.pathname;
const ranges = name => D.points.map(p => p.x[name]).filter(v => v > 0);
const differing = D.axes.find(([name]) => Math.max(...ranges(name)) > 1.02 * Math.min(...ranges(name)));
const state = { x: (differing || D.axes[0] || [""])[0], y: "bits", curvex: "bytes", mode: "difference", log: false, budget: D.shown, hidden: [] };
try { Object.assign(state, JSON.parse(sessionStorage.getItem(kept) || "{}")); } catch (error) { /* starts anew */ }
if (!(state.budget >= 0 && state.budget < D.budgets.length)) state.budget = D.shown;
let printing = false;
const SHAPES = 4, LABEL = 24;
const baseName = D.arms[D.baseline].name;
const visible = arm => !state.hidden.includes(D.arms[arm].name);
const shapeOf = arm => Math.floor(D.arms[arm].colour / COLOURS) % SHAPES;
const colourOf = arm => colour(D.arms[arm].colour);
const dashOf = arm => DASHES[shapeOf(arm)];
const cut = text => text.length > LABEL ? text.slice(0, LABEL - 1) + "\u2026" : text;
const digits = margin => margin ? Math.min(6, Math.max(3, 1 - Math.floor(Math.log10(margin)))) : 3;
const within = (mean, margin) => signed(mean, digits(margin)) + (finite(margin) ? " \u00b1 " + margin.toFixed(digits(margin)) : "");
const isBase = p => p.arm === D.baseline && !p.difference;
const bits = v => v === null || v === undefined ? "" : v.toFixed(3);
const signed = (v, digits = 3) => +v.toFixed(digits) === 0 ? (0).toFixed(digits) : (v < 0 ? "\u2212" : "+") + Math.abs(v).toFixed(digits);
const nameOf = (arm, name) => '<span class="name">' + swatchOf(arm) + "<span>" + escaped(name) + "</span></span>";
const swatchOf = arm => '<i class="swatch s' + shapeOf(arm) + '" style="background:' + colourOf(arm) + '" aria-hidden="true"></i>';

/* The arm that is pointed at, wherever it is shown. */
let hot = null;
function markHot(root) {
  if (hot !== null) root.querySelectorAll('[data-arm="' + hot + '"]').forEach(node => node.classList.add("hot"));
}
function setHot(arm) {
  if (arm === hot) return;
  hot = arm;
  document.querySelectorAll(".hot").forEach(node => node.classList.remove("hot"));
  document.body.classList.toggle("hovering", arm !== null);
  markHot(document);
}
/* Where the pointer was last: what happens under it there, the page did by moving. */
let pointer = "";
const placeOf = event => event.clientX + " " + event.clientY;
document.addEventListener("pointermove", event => { pointer = placeOf(event); });
document.addEventListener("pointerover", event => {
  if (placeOf(event) === pointer) return;
  pointer = placeOf(event);
  const node = event.target.closest && event.target.closest("[data-arm]");
  if (!event.target.closest(".plot svg")) setHot(node ? +node.dataset.arm : null);
});

function marker(arm, x, y, r, hollow) {
  const style = hollow ? 'style="fill:var(--card);stroke:' + colourOf(arm) + ';stroke-width:1.6"' : 'style="fill:' + colourOf(arm) + '"';
  const at = (dx, dy) => fix(x + dx * r) + " " + fix(y + dy * r);
  const d = ["", "M" + at(-.9, -.9) + "L" + at(.9, -.9) + "L" + at(.9, .9) + "L" + at(-.9, .9) + "Z",
    "M" + at(0, -1.25) + "L" + at(1.25, 0) + "L" + at(0, 1.25) + "L" + at(-1.25, 0) + "Z",
    "M" + at(0, -1.2) + "L" + at(1.1, .9) + "L" + at(-1.1, .9) + "Z"][shapeOf(arm)];
  return d ? '<path d="' + d + '" ' + style + "/>" : '<circle cx="' + fix(x) + '" cy="' + fix(y) + '" r="' + r + '" ' + style + "/>";
}

/* A chart of lines. build() gives { lines, title, logX, seconds, xText, label, front, clip }; a line is
   { arm, pts: [{ x, y, low, high, seeds, tip }], stroke, dots, width, label }. */
const charts = [];
function addChart(figure, title, unit, about) {
  const head = make("figcaption", figure);
  if (title) make("h3", head, {}, title);
  if (unit) make("span", head, { class: "quiet" }, unit);
  const plot = make("div", figure, { class: "plot" });
  const chart = { ...about, figure, title: title || about.name, id: "chart" + charts.length, plot, svg: makeSvg(plot), at: -1 };
  chart.svg.addEventListener("pointermove", event => {
    const box = chart.svg.getBoundingClientRect();
    point(chart, nearest(chart, event.clientX - box.left, event.clientY - box.top), event.clientX, event.clientY);
  });
  const leave = () => { hideTip(); setHot(null); };
  chart.svg.addEventListener("pointerleave", event => { if (placeOf(event) !== pointer) leave(); });
  chart.svg.addEventListener("blur", leave);
  chart.svg.addEventListener("keydown", event => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !chart.spots || !chart.spots.length) return;
    event.preventDefault();
    chart.at = chart.at < 0 ? (step > 0 ? 0 : chart.spots.length - 1) : Math.max(0, Math.min(chart.at + step, chart.spots.length - 1));
    const spot = chart.spots[chart.at], box = chart.svg.getBoundingClientRect();
    point(chart, spot, box.left + spot.px, box.top + spot.py);
  });
  charts.push(chart);
  return chart;
}
function nearest(chart, x, y) {
  let best = null, least = Infinity;
  for (const spot of chart.spots || []) {
    const far = (spot.px - x) ** 2 + (spot.py - y) ** 2;
    if (far < least) { least = far; best = spot; }
  }
  return best;
}
function point(chart, spot, x, y) {
  if (!spot) return;
  setHot(spot.arm);
  chart.at = chart.spots.indexOf(spot);
  showTip(spot.tip(), x, y);
}
const finite = v => v !== null && v !== undefined && isFinite(v);

function extent(lines, how) {
  const xs = [], ys = [];
  for (const line of lines) for (const p of line.pts) {
    if (how.logX && !(p.x > 0)) continue;
    xs.push(p.x);
    for (const y of [p.y, p.low, p.high]) if (finite(y)) ys.push(y);
  }
  if (!xs.length) return null;
  const most = values => values.reduce((a, b) => Math.max(a, b), -Infinity), least = values => -most(values.map(v => -v));
  let x0 = least(xs), x1 = most(xs), y0 = least(ys), y1 = most(ys), above = null;
  const sorted = ys.slice().sort((a, b) => a - b), usual = sorted[Math.floor(how.clip * (sorted.length - 1))];
  if (y1 - y0 > 2.5 * (usual - y0) && usual > y0) { above = y1; y1 = usual + .3 * (usual - y0); }
  if (x0 === x1) { if (how.logX) { x0 /= 1.5; x1 *= 1.5; } else { x0 -= Math.abs(x0) * .05 || .5; x1 += Math.abs(x1) * .05 || .5; } }
  else if (how.logX) { const room = (x1 / x0) ** .03; x0 /= room; x1 *= room; }
  const room = (y1 - y0) * .06 || Math.abs(y0) * .05 || .5;
  return { x0, x1, y0: y0 - room, y1: y1 + room, above };
}

function draw(chart) {
  const how = chart.build(), lines = how.lines.filter(line => visible(line.arm) && line.pts.length);
  const W = printing ? (chart.small ? 330 : 680) : Math.max(chart.plot.clientWidth, 200);
  const labelled = how.ends && W >= 560;
  const H = chart.small ? 240 : Math.max(300, Math.min(W * .5, 470), labelled ? lines.length * 14 + 60 : 0, how.beside && W >= 500 ? 440 : 0);
  const box = extent(lines, how);
  chart.spots = [];
  if (!box) {
    fillSvg(chart.svg, W, H, '<text x="' + W / 2 + '" y="' + H / 2 + '" text-anchor="middle">' +
      (how.lines.length ? "No arm is chosen." : "There is nothing to show.") + "</text>");
    return;
  }
  const right = labelled ? 26 + 6.4 * Math.max(...lines.map(line => cut(line.label || "").length)) : 12;
  const { X, Y, left, top, low, ...drawn } = frame(chart.id, W, H, box, {
    logX: how.logX, seconds: how.seconds, xText: how.seconds ? clock : si, right, title: escaped(how.title),
  });
  const inside = p => finite(p.y) && (!how.logX || p.x > 0);
  let out = drawn.out + '<g clip-path="url(#' + chart.id + 'c)">';
  if (how.zero) out += '<path class="cursor" d="M' + left + " " + fix(Y.at(0)) + "H" + drawn.right + '"/>';
  if (how.front && how.front.length) out += '<path class="front" d="M' + how.front.map((p, i) =>
    (i ? "H" + fix(X.at(p.x)) + "V" : fix(X.at(p.x)) + " ") + fix(Y.at(p.y))).join("") + 'H' + drawn.right + '"/>';
  const ends = [];
  for (const line of lines) {
    const style = ' style="stroke:' + colourOf(line.arm) + '"', pts = line.pts.filter(inside), banded = pts.filter(p => finite(p.low));
    if (!pts.length) continue;
    out += '<g data-arm="' + line.arm + '">';
    if (line.stroke && banded.length > 1) out += '<path class="band' + (lines.length > 6 ? " faint" : "") + '" style="fill:' + colourOf(line.arm) + '" d="M' +
      banded.map(p => fix(X.at(p.x)) + " " + fix(Y.at(p.high))).join("L") + "L" +
      banded.reverse().map(p => fix(X.at(p.x)) + " " + fix(Y.at(p.low))).join("L") + 'Z"/>';
    else for (const p of banded) out += '<path class="line" d="M' + fix(X.at(p.x)) + " " + fix(Y.at(p.low)) + "V" + fix(Y.at(p.high)) + '"' + style + ' opacity=".5"/>';
    if (line.stroke) out += '<path class="line" d="M' + pts.map(p => fix(X.at(p.x)) + " " + fix(Y.at(p.y))).join("L") +
      '" stroke-dasharray="' + (line.dash === undefined ? dashOf(line.arm) : line.dash) + '" style="stroke:' + colourOf(line.arm) + ";stroke-width:" + (line.width || 1.8) + '"/>';
    for (const p of pts) {
      const x = X.at(p.x), y = Y.at(p.y);
      for (const seed of p.seeds || []) out += '<circle class="seedpoint" cx="' + fix(x) + '" cy="' + fix(Y.at(seed)) + '" r="1.8" style="fill:' + colourOf(line.arm) + '"/>';
      if (line.dots) out += marker(line.arm, x, y, line.dots, p.hollow);
      if (p.tip) chart.spots.push({ px: x, py: y, arm: line.arm, tip: p.tip });
    }
    out += "</g>";
    const last = pts[pts.length - 1];
    if (line.label) ends.push({ arm: line.arm, text: cut(line.label), x: X.at(last.x), y: Math.max(top, Math.min(Y.at(last.y), low)) });
  }
  out += "</g>";
  if (labelled) out += endLabels(ends, drawn.right, top, low);
  if (how.beside) out += labelsBeside(ends, left, drawn.right, top, low);
  if (box.above !== null) out += '<text x="' + (left + 6) + '" y="' + (top + 10) + '">\u25b2 up to ' + si(box.above, 3) + "</text>";
  fillSvg(chart.svg, W, H, out);
  markHot(chart.svg);
  chart.spots.sort((a, b) => a.px - b.px || b.py - a.py);
  chart.svg.setAttribute("aria-label", chart.title + " against " + how.title + ", " + lines.length + " lines. Arrow keys read the points.");
}
/* Names at the ends of lines, moved apart. */
function endLabels(ends, right, top, low) {
  const height = 13.5;
  ends.sort((a, b) => a.y - b.y);
  ends.forEach((end, i) => { end.at = i ? Math.max(end.y, ends[i - 1].at + height) : Math.max(end.y, top + 4); });
  for (let i = ends.length - 1, most = low + 4; i >= 0; i--) { ends[i].at = Math.min(ends[i].at, most); most = ends[i].at - height; }
  return ends.map(end => '<g data-arm="' + end.arm + '"><path class="lead" d="M' + fix(end.x + 5) + " " + fix(end.y) + "L" + (right + 10) + " " + fix(end.at) +
    '"/><text x="' + (right + 13) + '" y="' + fix(end.at + 4) + '" style="fill:' + colourOf(end.arm) + '">' + escaped(end.text) + "</text></g>").join("");
}
/* Names beside points, where there is room. */
function labelsBeside(ends, left, right, top, low) {
  const taken = ends.map(end => [end.x - 6, end.y - 6, end.x + 6, end.y + 6]);
  return ends.map(end => {
    const width = 6.6 * end.text.length, places = [[9, 4], [-9 - width, 4], [-width / 2, -9], [-width / 2, 18], [9, -6], [9, 15], [-9 - width, -6], [-9 - width, 15]];
    for (const [dx, dy] of places) {
      const box = [end.x + dx, end.y + dy - 11, end.x + dx + width, end.y + dy + 2];
      if (box[0] < left || box[2] > right || box[1] < top || box[3] > low) continue;
      if (taken.some(other => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3])) continue;
      taken.push(box);
      return '<g data-arm="' + end.arm + '"><text x="' + fix(box[0]) + '" y="' + fix(end.y + dy) + '" style="fill:' + colourOf(end.arm) + '">' + escaped(end.text) + "</text></g>";
    }
    return "";
  }).join("");
}
function drawAll() { charts.forEach(draw); }

/* Bits per byte against what was spent. */
function pointTip(p) {
  const rows = [["bits/byte", bits(p.bits) + (p.spread === null ? "" : " \u00b1 " + bits(p.spread) + " over seeds")]];
  if (p.interval[0] !== null) rows.push(["95% of it", bits(p.interval[0]) + " to " + bits(p.interval[1])]);
  if (p.difference) rows.push(["\u2212 " + escaped(cut(baseName)), within(p.difference[0], p.difference[1]) + (p.difference[2] ? "" : ", not clear")]);
  rows.push(["rank", p.rank || (p.proven ? "" : "none: its score is not proven")]);
  for (const [name, label] of D.axes) if (p.x[name] !== null) rows.push([label, name === "seconds" ? clock(p.x[name]) : si(p.x[name], 4)]);
  return "<table><tr><td>" + swatchOf(p.arm) + escaped(p.name) + "<td>" + escaped(D.budgets[p.budget]) +
    rows.map(([a, b]) => "<tr><td>" + a + "<td>" + b).join("") + "</table>";
}
function spotOf(p) {
  const x = p.x[state.x], tip = () => pointTip(p);
  if (state.y === "bits") return { x, y: p.bits, low: p.interval[0], high: p.interval[1], seeds: p.seeds, tip, p };
  if (isBase(p)) return { x, y: 0, tip, p };
  const [mean, margin] = p.difference || [null, null];
  return { x, y: mean, low: finite(margin) ? mean - margin : null, high: finite(margin) ? mean + margin : null, tip, p };
}
function budgetLines() {
  const lines = [];
  D.arms.forEach((arm, i) => {
    const pts = D.points.filter(p => p.arm === i && finite(p.x[state.x])).map(spotOf);
    const best = pts.filter(s => D.envelope.some(([a, budget, size]) => a === i && budget === s.p.budget && size === s.p.size));
    const by = (a, b) => a.x - b.x;
    if (!best.length) lines.push({ arm: i, pts: pts.sort(by), stroke: true, dots: 3.6, label: arm.name });
    else if (state.x === "parameters") {  /* an iso-FLOP curve for each budget */
      D.budgets.forEach((label, b) => lines.push({
        arm: i, pts: pts.filter(s => s.p.budget === b).map(s => ({ ...s, hollow: !best.includes(s) })).sort(by), stroke: true, dots: 4, width: 1.2, label: arm.name + ", " + label,
      }));
    } else {
      lines.push({ arm: i, pts: pts.filter(s => !best.includes(s)).map(s => ({ ...s, hollow: true, low: null, high: null, seeds: [] })), stroke: false, dots: 3 });
      lines.push({ arm: i, pts: best.sort(by), stroke: true, dots: 3.8, width: 2.4, label: arm.name });
    }
  });
  return {
    lines, ends: true, logX: true, clip: .8, zero: state.y !== "bits", seconds: state.x === "seconds",
    title: (D.axes.find(([name]) => name === state.x) || ["", ""])[1],
  };
}

/* Curves of training. */
function curveLines(of, how) {
  return () => ({
    lines: D.curves.filter(c => c.budget === state.budget && c.x[state.curvex]).map(c => {
      const [xs, ys] = of(c);
      const pts = ys.map((y, i) => ({ x: xs[i], y, tip: () => "<table><tr><td>" + swatchOf(c.arm) + escaped(D.arms[c.arm].name) + ", seed " + c.seed + "<td>" + si(y, 4) +
        "<tr><td>" + curveAxis() + "<td>" + (state.curvex === "seconds" ? clock(xs[i]) : si(xs[i], 4)) + "</table>" })).filter(p => finite(p.x) && finite(p.y));
      return { arm: c.arm, pts, stroke: true, width: 1.3, dots: how.dots };
    }),
    logX: state.log, clip: how.clip, seconds: state.curvex === "seconds" && !state.log, title: curveAxis(),
  });
}
const curveAxis = () => (D.curveAxes.find(([name]) => name === state.curvex) || ["", ""])[1];

/* Controls. */
function keep() {
  try { sessionStorage.setItem(kept, JSON.stringify(state)); } catch (error) { /* then not */ }
}
function choice(id, name, options, changed) {
  const root = byId(id);
  if (!root) return;
  if (!options.some(([value]) => value === state[name])) state[name] = options.length ? options[0][0] : "";
  for (const [value, label] of options) {
    const each = make("label", root), radio = make("input", each, { type: "radio", name: id, value });
    radio.checked = value === state[name];
    make("span", each, {}, label);
    radio.addEventListener("change", () => { state[name] = value; keep(); changed(); });
  }
}
function chips(root) {
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", "arms");
  D.arms.forEach((arm, i) => {
    const chip = make("button", root, { type: "button", "data-arm": i, "data-chip": i, title: arm.name });
    chip.innerHTML = swatchOf(i);
    make("span", chip, {}, arm.name);
    chip.addEventListener("click", () => show(i, !visible(i)));
  });
  if (D.arms.length > 2) for (const [text, on] of [["all", true], ["none", false]])
    make("button", root, { type: "button" }, text).addEventListener("click", () => { state.hidden = on ? [] : D.arms.map(arm => arm.name); shown(); });
}
function show(i, on) {
  state.hidden = state.hidden.filter(name => name !== D.arms[i].name);
  if (!on) state.hidden.push(D.arms[i].name);
  shown();
}
function shown() {
  keep();
  document.querySelectorAll("[data-chip]").forEach(chip => chip.setAttribute("aria-pressed", String(visible(+chip.dataset.chip))));
  D.cuts.forEach((data, k) => byId("cut" + k).querySelectorAll("section").forEach((section, m) => { section.hidden = !visible(data.arms[m]); }));
  drawAll();
}
