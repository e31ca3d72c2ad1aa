/* The tables of a study: coloured, reckoned with other prices; then all of the page begins. */

/* Costs. */
const PRICES = ["flops", "memory", "unit"];
const pricesAtFirst = PRICES.map(name => byId(name) ? byId(name).value : "0");
function costOf(p) {
  const [flops, memory, unit] = PRICES.map(name => Math.max(0, +byId(name).value || 0));
  const each = p.flops[+byId("counted").value], perUnit = p.bytesPerUnit || 1;
  if (!finite(each)) return null;
  /* Of a million bytes: 1e6 / 1e12 FLOPs; 1e6 / 1e9 GB, read once a unit; 1e6 / 1e6 units. */
  return flops * each / 1e6 + memory * (p.parameterBytes || 0) / perUnit / 1e3 + unit / perUnit;
}
function costed() {
  return D.points.filter(p => p.budget === state.budget).map(p => ({ p, cost: costOf(p) })).filter(({ cost }) => finite(cost));
}
function frontOf(found) {
  let least = Infinity;
  return found.slice().sort((a, b) => a.cost - b.cost || a.p.bits - b.p.bits).filter(({ p }) => p.bits < least && ((least = p.bits), true));
}
function costLines() {
  const found = costed();
  return {
    lines: found.map(({ p, cost }) => ({
      arm: p.arm, dots: 5, stroke: false, label: p.name,
      pts: [{ x: cost, y: p.bits, low: p.interval[0], high: p.interval[1], tip: () => "<table><tr><td>" + swatchOf(p.arm) + escaped(p.name) + "<td>" +
        "<tr><td>bits/byte<td>" + bits(p.bits) + "<tr><td>cost of 1 MB<td>" + si(cost, 4) + "<tr><td>bits/byte \u00d7 cost<td>" + si(p.bits * cost, 4) + "</table>" }],
    })),
    front: frontOf(found.filter(({ p, cost }) => visible(p.arm) && cost > 0)).map(({ p, cost }) => ({ x: cost, y: p.bits })),
    beside: true, logX: true, clip: .9, title: "cost of a million bytes",
  };
}
function costTable() {
  const table = byId("costs"), found = costed(), front = frontOf(found);
  const base = found.find(({ p }) => isBase(p)), of = base && base.p.bits * base.cost;
  found.sort((a, b) => a.p.bits * a.cost - b.p.bits * b.cost);
  const head = [["arm", 0], ["rank", 1], ["bits/byte", 1], ["cost", 1], ["bits \u00d7 cost", 1], ["/ " + cut(baseName), 1], ["front", 0]];
  table.tHead.innerHTML = "<tr>" + head.map(([name, n]) => '<th scope="col"' + (n ? ' class="n"' : "") + '><button type="button"><span>' + escaped(name) + "</span></button></th>").join("") + "</tr>";
  table.tBodies[0].innerHTML = found.map((each, i) => {
    const { p, cost } = each, product = p.bits * cost, on = front.includes(each);
    const cells = [[i + 1, i + 1], [bits(p.bits), p.bits], [si(cost, 3), cost], [si(product, 3), product], [of ? (product / of).toFixed(2) : "", of ? product / of : ""]];
    return '<tr data-arm="' + p.arm + '"><th scope="row" data-key="' + escaped(p.name) + '">' + nameOf(p.arm, p.name) + "</th>" +
      cells.map(([text, key]) => '<td class="n" data-key="' + key + '">' + text + "</td>").join("") + '<td data-key="' + (on ? 0 : 1) + '">' + (on ? "\u2713" : "") + "</td></tr>";
  }).join("");
  const [flops, memory, unit] = PRICES.map(name => Math.max(0, +byId(name).value || 0));
  const kind = byId("counted").selectedOptions[0].textContent;
  byId("formula").textContent = "Cost of a million bytes = " + flops + " \u00d7 " + kind + " FLOPs a byte / 10\u2076" +
    (memory ? " + " + memory + " \u00d7 GB of parameters \u00d7 10\u2076 / bytes a unit" : "") + (unit ? " + " + unit + " / bytes a unit" : "") + ".";
}

/* Heat tables: differences to the baseline, or the numbers themselves. */
function heats() {
  const root = byId("heats");
  if (!root) return;
  root.replaceChildren();
  const places = D.points.map((p, i) => i).filter(i => D.points[i].budget === state.budget).sort((a, b) => D.points[a].bits - D.points[b].bits);
  const base = places.find(i => isBase(D.points[i]));
  for (const about of D.tables) {
    const rows = places.filter(i => about.rows[i].some(finite));
    if (!rows.length) continue;
    const differs = state.mode === "difference" && base !== undefined && !about.values, better = about.more ? -1 : 1;
    const scale = about.percent ? 100 : 1, digits = about.percent ? 1 : about.digits || 3;
    const text = (v, sign) => !finite(v) ? "" : sign || v < 0 ? signed(scale * v, digits) : (scale * v).toFixed(digits);
    const off = (i, k) => base === undefined || about.values || !finite(about.rows[i][k]) || !finite(about.rows[base][k]) ? null : about.rows[i][k] - about.rows[base][k];
    const sizes = rows.flatMap(i => about.columns.map((_, k) => Math.abs(off(i, k) || 0))).filter(v => v).sort((a, b) => a - b);
    const full = sizes[Math.floor(.9 * (sizes.length - 1))] || 1;
    const best = about.columns.map((_, k) => {  /* the only one */
      if (about.values) return null;  /* none is best */
      const values = rows.map(i => about.rows[i][k]).filter(finite).map(v => better * v).sort((a, b) => a - b);
      return values[0] === values[1] ? null : values[0];
    });
    make("h3", root, {}, about.title);
    make("p", root, { class: "quiet" }, (differs ? "Less or more than " + baseName + ", whose own numbers stand in its row. " : "") + about.about);
    const table = make("table", make("div", root, { class: "scroll", tabindex: 0, role: "region", "aria-label": about.title }), { class: "facts heat sortable" });
    table.innerHTML = '<thead><tr><th scope="col"><button type="button"><span>arm</span></button></th>' +
      about.columns.map(name => '<th scope="col"><button type="button"><span>' + escaped(name) + "</span></button></th>").join("") + "</tr></thead><tbody>" +
      rows.map(i => {
        const p = D.points[i], own = !differs || i === base;
        return '<tr data-arm="' + p.arm + '"' + (i === base && differs ? ' class="base"' : "") + '><th scope="row" data-key="' + escaped(p.name) + '">' + nameOf(p.arm, p.name) + "</th>" +
          about.columns.map((_, k) => {
            const value = about.rows[i][k], by = off(i, k), alpha = by ? Math.min(1, Math.abs(by) / full) * .5 : 0;
            const tone = by * better < 0 ? "--better" : "--worse", told = own ? text(value) : text(by, true);
            return "<td" + (finite(value) ? ' data-key="' + value + '"' : "") + (alpha ? ' style="background:rgba(var(' + tone + ")," + alpha.toFixed(2) + ')"' : "") + ">" +
              (finite(value) && better * value === best[k] ? "<b>" + told + "</b>" : told) + "</td>";
          }).join("") + "</tr>";
      }).join("") + "</tbody>";
    sortable(table);
  }
}

/* The page begins. */
document.querySelectorAll("main > section").forEach(section => {
  make("a", document.querySelector("nav"), { href: "#" + section.id }, section.dataset.nav);
});
document.querySelectorAll(".arms").forEach(chips);
document.querySelectorAll("table.sortable").forEach(sortable);
if (byId("budgets")) addChart(byId("budgets"), "", "", { name: "Bits per byte", build: budgetLines });
if (byId("pareto")) addChart(byId("pareto"), "Bits per byte and cost", "lower left is better", { build: costLines });
if (byId("curves")) {
  const figure = () => make("figure", byId("curves"), { class: "chart" });
  addChart(figure(), "Training", "bits per byte", { small: true, build: curveLines(c => [c.x[state.curvex], c.train], { clip: .9 }) });
  if (D.curves.some(c => c.heldout.bits.length)) addChart(figure(), "Held-out text, while training", "bits per byte of a part of its own for each arm: follow a line, do not compare lines; for that, see the numbers", { small: true, build: curveLines(c => [c.heldout.x[state.curvex], c.heldout.bits], { clip: .9, dots: 2.2 }) });
  if (D.curves.some(c => c.units.length)) addChart(figure(), "Units", "per byte or id, at the first level", { small: true, build: curveLines(c => [c.x[state.curvex], c.units], { clip: 1 }) });
}
function ofBudget() {
  if (byId("costs")) costTable();
  heats();
  drawAll();
}
choice("x", "x", D.axes, drawAll);
choice("y", "y", [["bits", "bits per byte"], ["difference", "difference to " + cut(baseName)]], drawAll);
choice("mode", "mode", [["difference", "difference to " + cut(baseName)], ["values", "numbers"]], heats);
choice("curvex", "curvex", D.curveAxes, drawAll);
document.querySelectorAll(".budget").forEach(label => {
  if (D.budgets.length < 2) { label.remove(); return; }
  label.append("at ");
  const select = make("select", label);
  D.budgets.forEach((name, i) => make("option", select, { value: i }, name));
  select.value = state.budget;
  select.addEventListener("change", () => {
    state.budget = +select.value;
    document.querySelectorAll(".budget select").forEach(each => { each.value = state.budget; });
    keep();
    ofBudget();
  });
});
if (byId("log")) {
  byId("log").checked = state.log;
  byId("log").addEventListener("change", event => { state.log = event.target.checked; keep(); drawAll(); });
}
if (byId("costs")) {
  [...PRICES, "counted"].forEach(name => byId(name).addEventListener("input", ofBudget));
  const counted = byId("counted").value;
  byId("reset").addEventListener("click", () => {
    PRICES.forEach((name, i) => { byId(name).value = pricesAtFirst[i]; });
    byId("counted").value = counted;
    ofBudget();
  });
}

/* Texts: written when they are first looked at. */
const written = new Set();
function showText(k) {
  D.cuts.forEach((_, i) => { byId("cut" + i).hidden = i !== k; });
  if (!written.has(k)) { written.add(k); units(byId("cut" + k), D.cuts[k]); }
}
if (D.cuts.length) {
  showText(0);
  byId("text").value = "0";
  byId("text").addEventListener("change", event => showText(+event.target.value));
  heatSwitch(byId("heat"), document.querySelector("#cuts .cuts"));
}

/* Cells. */
const cells = [...document.querySelectorAll(".cell")];
function filterCells() {
  const wanted = byId("find").value.toLowerCase().split(/\s+/);
  let count = 0;
  for (const cell of cells) {
    const text = cell.textContent.toLowerCase();
    cell.hidden = (cell.classList.contains("lost") && !byId("tries").checked) || !wanted.every(word => text.includes(word));
    count += !cell.hidden;
  }
  byId("found").textContent = count + " of " + cells.length + " cells";
}
if (cells.length) {
  document.querySelectorAll("code.command").forEach(code => {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", className: "copy", textContent: "copy" });
    code.after(button);
    button.addEventListener("click", () => {
      getSelection().selectAllChildren(code);
      button.textContent = document.execCommand("copy") ? "copied" : "press Ctrl-C";
      setTimeout(() => { button.textContent = "copy"; }, 2000);
    });
  });
  byId("find").addEventListener("input", filterCells);
  byId("tries").addEventListener("change", filterCells);
  filterCells();
}

/* On paper everything that is folded is open, and charts are as wide as the paper. */
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  closed.forEach(each => { each.open = true; });
  printing = true;
  drawAll();
});
addEventListener("afterprint", () => {
  closed.forEach(each => { each.open = false; });
  printing = false;
  drawAll();
});
let width = 0;
new ResizeObserver(() => {
  if (width !== document.body.clientWidth) { width = document.body.clientWidth; drawAll(); }
}).observe(document.body);
ofBudget();
shown();
