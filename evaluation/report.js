"use strict";
/* The charts of a report: all of them against the same x axis, drawn as SVG. */
(() => {
const D = JSON.parse(document.getElementById("data").textContent);
const several = D.runs.length > 1;
const kept = "octavo:" + location.pathname;
const state = { axis: D.axes.length ? D.axes[0][0] : "step", log: false, smooth: 2, hidden: [] };
try { Object.assign(state, JSON.parse(sessionStorage.getItem(kept) || "{}")); } catch (error) { /* starts anew */ }
if (!D.axes.some(([name]) => name === state.axis)) state.axis = "step";
let range = null;
const SMOOTHING = [0, .003, .01, .03, .1];
const xText = (v, digits) => state.axis === "perf/seconds" ? clock(v) : si(v, digits);
const xExact = v => state.axis === "step" ? Math.round(v).toLocaleString("en") : xText(v, 4);

/* A moving average that forgets over a share of the run; less at its beginning. */
function smoothed(steps, values) {
  const share = SMOOTHING[state.smooth];
  if (!share) return values;
  const longest = share * (steps[steps.length - 1] || 1), found = [];
  let mean = null, before = 0;
  for (let i = 0; i < values.length; i++) {
    if (values[i] === null) { found.push(null); continue; }
    const time = Math.max(1, Math.min(longest, steps[i] / 10));
    mean = mean === null ? values[i] : mean + (1 - Math.exp(-(steps[i] - before) / time)) * (values[i] - mean);
    before = steps[i];
    found.push(mean);
  }
  return found;
}

/* Several runs have a colour each, and their lines a pattern; held-out points need none. */
const dashOf = (chart, k) =>
  several && !(chart.smooth && chart.series[k].table === "heldout") ? DASHES[k % DASHES.length] : "";

/* What a chart shows now: a line for each visible run and series. */
function linesOf(chart) {
  const lines = [];
  D.runs.forEach((run, r) => {
    if (state.hidden.includes(run.name)) return;
    chart.series.forEach((series, k) => {
      if (chart.off.has(k)) return;
      const table = run[series.table], values = table && table.values[series.name];
      const xs = table && table.x[state.axis];
      if (!values || !xs) return;
      const [mid, low, high] = values;
      const main = chart.smooth && series.table === "curves" ? smoothed(table.x.step, mid) : mid;
      lines.push({
        xs, mid, low, high, main, series, points: series.table === "heldout",
        label: several ? run.name + (chart.series.length > 1 ? " · " + series.label : "") : series.label,
        colour: colour(several ? r : k), dash: dashOf(chart, k),
      });
    });
  });
  return lines;
}
const shows = (x, log) => x !== null && (!log || x > 0);

function extent(lines, logY, clip) {
  let x0 = Infinity, x1 = -Infinity;
  for (const { xs, main } of lines) xs.forEach((x, i) => {
    if (main[i] !== null && shows(x, state.log)) { x0 = Math.min(x0, x); x1 = Math.max(x1, x); }
  });
  if (range) [x0, x1] = range;
  const seen = [], late = [];  /* late: behind the first steps, which stand far above the others */
  for (const line of lines) line.xs.forEach((x, i) => {
    if (!shows(x, state.log) || x < x0 || x > x1) return;
    for (const part of line.points ? [line.main, line.low, line.high] : [line.main])
      if (part && part[i] !== null && shows(part[i], logY)) {
        seen.push(part[i]);
        if (x > x0 + .03 * (x1 - x0)) late.push(part[i]);
      }
  });
  if (!seen.length || !isFinite(x0)) return null;
  const most = values => values.reduce((a, b) => Math.max(a, b), -Infinity);
  let y0 = -most(seen.map(v => -v)), y1 = most(seen), above = null;
  const usual = most(late);
  if (clip && !logY && !state.log && usual > y0 && y1 - y0 > 1.5 * (usual - y0)) {
    above = y1;
    y1 = usual + .1 * (usual - y0);
  }
  if (x0 === x1) {  /* FLOPs may be so many that one more makes no difference */
    const half = state.log ? x0 / 2 : Math.max(.5, Math.abs(x0) * .05);
    x0 -= half; x1 += half;
  }
  if (logY) { y0 /= 1.1; y1 *= 1.1; } else {
    const pad = (y1 - y0) * .05 || Math.abs(y0) * .05 || .5, zero = y0 >= 0;
    y0 -= pad; y1 += pad;
    if (zero) y0 = Math.max(0, y0);
  }
  return { x0, x1, y0, y1, above };
}

function draw(chart) {
  const W = Math.max(chart.plot.clientWidth, 200), H = chart.wide ? Math.max(250, Math.min(W * .42, 400)) : 210;
  const lines = linesOf(chart), logY = chart.logY.checked, box = extent(lines, logY, chart.clip);
  chart.drawn = null;
  if (!box) {
    const why = state.hidden.length === D.runs.length ? "No run is chosen." : "Nothing here was logged against this axis.";
    fillSvg(chart.svg, W, H, '<text x="' + W / 2 + '" y="' + H / 2 + '" text-anchor="middle">' + why + "</text>");
    return;
  }
  const drawn = frame(chart.id, W, H, box, {
    logX: state.log, logY, xText, seconds: state.axis === "perf/seconds", least: state.axis === "step" ? 1 : 0,
    title: D.axes.find(([name]) => name === state.axis)[1],
  });
  const { X, Y, left, top, low } = drawn;
  let out = drawn.out + '<g clip-path="url(#' + chart.id + 'c)">';
  const usable = (line, values, i) => values[i] !== null && shows(line.xs[i], state.log) && shows(values[i], logY);
  const path = (line, values) => {
    let d = "", pen = "M";
    for (let i = 0; i < values.length; i++) {
      if (!usable(line, values, i)) continue;
      d += pen + fix(X.at(line.xs[i])) + " " + fix(Y.at(values[i]));
      pen = "L";
    }
    return d;
  };
  const area = line => {
    const up = [], down = [];
    line.xs.forEach((x, i) => {
      if (!usable(line, line.low, i) || !usable(line, line.high, i)) return;
      up.push(fix(X.at(x)) + " " + fix(Y.at(line.high[i])));
      down.push(fix(X.at(x)) + " " + fix(Y.at(line.low[i])));
    });
    return up.length ? "M" + up.join("L") + "L" + down.reverse().join("L") + "Z" : "";
  };
  for (const line of lines) {
    const stroke = ' style="stroke:' + line.colour + '"';
    if (line.low) out += '<path class="band" d="' + area(line) + '" style="fill:' + line.colour + '"/>';
    else if (line.main !== line.mid) out += '<path class="raw" d="' + path(line, line.mid) + '"' + stroke + "/>";
  }
  for (const line of lines) {
    out += '<path class="line' + (line.points ? " scored" : "") + '" d="' + path(line, line.main) + '" style="stroke:' + line.colour +
      '" stroke-dasharray="' + line.dash + '"/>';
    if (line.points && line.xs.length <= 120) line.xs.forEach((x, i) => {
      if (usable(line, line.main, i)) out += '<circle cx="' + fix(X.at(x)) + '" cy="' + fix(Y.at(line.main[i])) + '" r="3" style="fill:' + line.colour + '"/>';
    });
  }
  out += "</g>";
  if (chart.marks) D.runs.forEach(run => {
    const xs = run.curves.x[state.axis];
    if (xs && !state.hidden.includes(run.name)) for (const i of run.skipped) if (shows(xs[i], state.log) && xs[i] >= box.x0 && xs[i] <= box.x1)
      out += '<path class="skipped" d="M' + fix(X.at(xs[i])) + " " + (low - 7) + 'l4 7h-8z"/>';
  });
  if (box.above !== null) out += '<text x="' + (left + 6) + '" y="' + (top + 10) + '">\u25b2 up to ' + si(box.above, 3) + "</text>";
  out += '<path class="cursor"/><rect class="chosen" y="' + top + '" height="' + (low - top) + '"/>';
  fillSvg(chart.svg, W, H, out);
  chart.drawn = { ...drawn, lines, box };
  const last = lines.map(line => line.label + " " + si(line.main.filter(v => v !== null).pop() ?? 0, 4)).slice(0, 8).join(", ");
  chart.svg.setAttribute("aria-label", chart.title + ". Newest: " + last + ". Arrow keys read the curve.");
}

function nearest(line, x) {
  let best = -1;
  line.xs.forEach((v, i) => {
    if (v !== null && line.mid[i] !== null && (best < 0 || Math.abs(v - x) < Math.abs(line.xs[best] - x))) best = i;
  });
  return best;
}
function point(chart, x, clientX, clientY) {
  const drawn = chart.drawn;
  if (!drawn) return;
  let rows = "", at = null;
  const found = drawn.lines.map(line => [line, nearest(line, x)]).filter(([, i]) => i >= 0);
  for (const [line, i] of found) if (at === null || Math.abs(line.xs[i] - x) < Math.abs(at - x)) at = line.xs[i];
  if (at === null || at < drawn.box.x0 || at > drawn.box.x1 || !shows(at, state.log)) return;
  for (const [line, i] of found.slice(0, 24)) {
    let told = si(line.mid[i], 5);
    if (line.low && line.low[i] !== null && line.high[i] !== null) told += " (" + si(line.low[i], 4) + " to " + si(line.high[i], 4) + ")";
    rows += '<tr><td><i class="swatch" style="background:' + line.colour + '"></i>' + escaped(line.label) + "<td>" + told +
      (line.main !== line.mid ? "<td>smooth " + si(line.main[i], 4) : "<td>") + (line.xs[i] !== at ? "<td>at " + xExact(line.xs[i]) : "");
  }
  const X = drawn.X.at(at);
  chart.svg.querySelector(".cursor").setAttribute("d", "M" + X.toFixed(1) + " " + drawn.top + "V" + drawn.low);
  showTip("<table><tr><td>" + D.axes.find(([name]) => name === state.axis)[1] + "<td>" + xExact(at) + rows + "</table>", clientX, clientY);
  chart.at = at;
}
function unpoint(chart) {
  hideTip();
  const cursor = chart.svg.querySelector(".cursor");
  if (cursor) cursor.removeAttribute("d");
}

function listen(chart) {
  const svg = chart.svg, inside = event => event.clientX - svg.getBoundingClientRect().left;
  let from = null;
  svg.addEventListener("pointerdown", event => {
    if (event.pointerType === "mouse" && chart.drawn) { from = inside(event); svg.setPointerCapture(event.pointerId); }
  });
  svg.addEventListener("pointermove", event => {
    const drawn = chart.drawn, px = inside(event);
    if (!drawn) return;
    if (from !== null && Math.abs(px - from) > 8) {
      const chosen = svg.querySelector(".chosen");
      chosen.setAttribute("x", Math.max(drawn.left, Math.min(px, from)));
      chosen.setAttribute("width", Math.abs(px - from));
    }
    point(chart, drawn.X.back(px), event.clientX, event.clientY);
  });
  svg.addEventListener("pointerup", event => {
    const px = inside(event), drawn = chart.drawn;
    if (from !== null && drawn && Math.abs(px - from) > 8) {
      const clip = v => Math.max(drawn.left, Math.min(v, drawn.right));
      range = [from, px].map(v => drawn.X.back(clip(v))).sort((a, b) => a - b);
      unpoint(chart);
      drawAll();
    }
    from = null;
  });
  svg.addEventListener("pointerleave", () => unpoint(chart));
  svg.addEventListener("blur", () => unpoint(chart));
  svg.addEventListener("keydown", event => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !chart.drawn || !chart.drawn.lines.length) return;
    event.preventDefault();
    const line = chart.drawn.lines.reduce((a, b) => b.xs.length > a.xs.length ? b : a);
    const { x0, x1 } = chart.drawn.box, all = line.xs.filter((x, i) => line.mid[i] !== null && x >= x0 && x <= x1);
    if (!all.length) return;
    const stride = Math.max(1, Math.round(all.length / 100));
    const last = all.length - 1, now = chart.at === undefined ? -1 : all.findIndex(x => x >= chart.at);
    const next = now < 0 ? (step > 0 ? 0 : last) : now + step * stride;
    const i = Math.max(0, Math.min(next, last));
    const box = svg.getBoundingClientRect();
    point(chart, all[i], box.left + chart.drawn.X.at(all[i]), box.top + 20);
  });
}

const charts = D.charts.map((about, number) => {
  const card = make("figure", byId("charts"), { class: "chart" + (about.wide ? " wide" : "") });
  const head = make("figcaption", card);
  make("h3", head, {}, about.title);
  if (about.unit) make("span", head, { class: "quiet" }, about.unit);
  const label = make("label", head, { class: "quiet" });
  const logY = make("input", label, { type: "checkbox" });
  label.append(" log");
  logY.checked = !!about.log;
  const plot = make("div", card, { class: "plot" });
  const svg = makeSvg(plot);
  const chart = { ...about, id: "chart" + number, plot, svg, logY, off: new Set() };
  if (about.series.length > 1) {
    const chips = make("div", card, { class: "chips" });
    about.series.forEach((series, k) => {
      const chip = make("button", chips, { type: "button", "aria-pressed": "true" });
      const held = series.table === "heldout";
      chip.innerHTML = '<svg width="26" height="10" aria-hidden="true"><path d="M0 5H26" class="line" style="stroke:' +
        (several ? "currentColor" : colour(k)) + '" stroke-dasharray="' + dashOf(about, k) + '"/>' +
        (held ? '<circle cx="13" cy="5" r="3.5" style="fill:' + (several ? "currentColor" : colour(k)) + '"/>' : "") + "</svg>";
      chip.append(series.label);
      chip.addEventListener("click", () => {
        if (!chart.off.delete(k)) chart.off.add(k);
        chip.setAttribute("aria-pressed", String(!chart.off.has(k)));
        draw(chart);
      });
    });
  }
  logY.addEventListener("change", () => draw(chart));
  listen(chart);
  return chart;
});
function keep() {
  try { sessionStorage.setItem(kept, JSON.stringify(state)); } catch (error) { /* then not */ }
}
function drawAll() {
  byId("whole").hidden = range === null;
  charts.forEach(draw);
}

/* What all charts share. */
function control() {
  const axes = byId("axes");
  for (const [name, label] of D.axes) {
    const choice = make("label", axes);
    const radio = make("input", choice, { type: "radio", name: "axis", value: name });
    radio.checked = name === state.axis;
    make("span", choice, {}, label);
    radio.addEventListener("change", () => { state.axis = name; range = null; keep(); drawAll(); });
  }
  byId("log").checked = state.log;
  byId("log").addEventListener("change", event => { state.log = event.target.checked; range = null; keep(); drawAll(); });
  byId("smooth").value = state.smooth;
  byId("smooth").addEventListener("input", event => { state.smooth = +event.target.value; keep(); drawAll(); });
  byId("whole").addEventListener("click", () => { range = null; drawAll(); });
  if (several) D.runs.forEach((run, r) => {
    const chip = make("button", byId("runs"), { type: "button", "aria-pressed": String(!state.hidden.includes(run.name)) });
    make("i", chip, { class: "swatch", style: "background:" + colour(r) });
    chip.append(run.name);
    chip.addEventListener("click", () => {
      const hidden = state.hidden.includes(run.name);
      state.hidden = hidden ? state.hidden.filter(name => name !== run.name) : [...state.hidden, run.name];
      chip.setAttribute("aria-pressed", String(hidden));
      keep();
      drawAll();
    });
  });
  let width = 0;
  new ResizeObserver(() => {
    if (width !== document.body.clientWidth) { width = document.body.clientWidth; drawAll(); }
  }).observe(document.body);
}
if (charts.length) control();

/* Samples: the newest stands there; a slider goes back. */
document.querySelectorAll(".sample").forEach(node => {
  const samples = D.runs[+node.dataset.run].samples, slider = node.querySelector("input");
  if (!slider) return;
  slider.addEventListener("input", () => {
    const [step, prompt, text] = samples[+slider.value];
    node.querySelector("output").textContent = "step " + step.toLocaleString("en");
    const shown = node.querySelector("pre");
    shown.textContent = text.slice(prompt.length);
    shown.prepend(Object.assign(document.createElement("b"), { textContent: prompt }));
  });
});

/* Cuts of texts. */
D.cuts.forEach((data, i) => units(byId("cut" + i), data));
const heat = byId("heat");
if (heat) heatSwitch(heat, byId("cuts"));

/* A run that goes on: the page is written anew at each evaluation. */
const reload = byId("reload");
if (reload) {
  let timer;
  const set = () => { clearInterval(timer); if (reload.checked) timer = setInterval(() => location.reload(), 60000); };
  try { reload.checked = sessionStorage.getItem(kept + "reload") === "yes"; } catch (error) { /* then not */ }
  reload.addEventListener("change", () => {
    try { sessionStorage.setItem(kept + "reload", reload.checked ? "yes" : ""); } catch (error) { /* then not */ }
    set();
  });
  set();
}
})();
