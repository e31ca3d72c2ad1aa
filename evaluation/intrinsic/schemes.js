/* A text as schemes cut it, line below line, and tables by part. */
(() => {
const D = JSON.parse(byId("data").textContent);
const hex = bytes => bytes.map(b => b.toString(16).padStart(2, "0")).join(" ");
const decoder = new TextDecoder();
const seen = bytes => decoder.decode(new Uint8Array(bytes)).replaceAll(" ", "\u2423").replaceAll("\n", "\u21b5");
const hidden = new Set(), MOST = 24;
let here = null;

/* Of each character, the first and the last token that holds a byte of it; an id without bytes goes
   with the byte that follows, at the end of the text with the last. */
for (const text of D.texts) {
  const size = text.bytes.length;
  for (const cut of text.cuts) {
    const from = cut.stops.map((stop, i) => i ? cut.stops[i - 1] : 0);
    cut.from = from;
    cut.filled = [];  /* tokens with bytes before each token: their colours take turns */
    let filled = 0;
    cut.stops.forEach((stop, i) => { cut.filled.push(filled); filled += stop > from[i]; });
    cut.at = [];
    let low = 0;
    for (const [at, width] of text.characters) {
      const stop = at + width;
      while (low < cut.stops.length && cut.stops[low] <= at && !(from[low] === cut.stops[low] && from[low] >= at)) low++;
      let high = low;
      while (high + 1 < cut.stops.length && (from[high + 1] < stop || from[high + 1] >= size)) high++;
      cut.at.push([low, high]);
    }
  }
}

/* Lines of a text: at most so many columns, and to the end of a line of its own and the empty ones
   that follow. */
function lines(text, columns) {
  const found = [];
  let start = 0, taken = 0, over = false;
  text.characters.forEach(([, , written, width], i) => {
    const ends = written.endsWith("\n");
    if (i > start && (over && !ends || taken + width > columns)) { found.push([start, i]); start = i; taken = 0; }
    taken += width;
    over = ends;
  });
  if (start < text.characters.length) found.push([start, text.characters.length]);
  return found;
}

const root = byId("cut");
function draw() {
  here = null;
  hideTip();
  root.replaceChildren();
  const narrow = matchMedia("(max-width: 640px)").matches;
  const room = root.clientWidth - (narrow ? 0 : 170);  /* names stand beside the text, or above it */
  const columns = Math.max(8, Math.floor(room / (byId("probe").getBoundingClientRect().width / 10)) - 1);
  D.texts.forEach((text, t) => {
    if (text.label) make("h3", root, {}, text.label);
    for (const [start, stop] of lines(text, columns)) {
      const line = make("div", root, { class: "line" });
      D.schemes.forEach((name, s) => {
        if (hidden.has(s)) return;
        const row = make("div", line, { class: "row" }), cut = text.cuts[s];
        make("b", row, { title: name }, name);
        const pre = make("pre", row);
        for (let i = start; i < stop; i++) {
          const [at, size, written] = text.characters[i], [low, high] = cut.at[i];
          let inside = false, colour = 0;
          for (let k = low; k <= high; k++) {
            if (cut.stops[k] > cut.from[k]) colour = cut.filled[k] % 2;
            inside = inside || cut.stops[k] > at && cut.stops[k] < at + size;
          }
          const span = make("span", pre, { class: "u" + colour + (inside ? " cut" : "") }, written.replace("\n", ""));
          span.dataset.t = t;
          span.dataset.i = i;
        }
      });
    }
  });
}

/* The tokens of a character in all schemes. */
function rows(text, i) {
  let out = "";
  D.schemes.forEach((name, s) => {
    if (hidden.has(s)) return;
    const cut = text.cuts[s], [low, high] = cut.at[i];
    for (let k = low; k <= high; k++) {
      const bytes = text.bytes.slice(cut.from[k], cut.stops[k]), more = bytes.length > MOST ? " \u2026" : "";
      out += "<tr><td>" + (k === low ? escaped(name) : "") + "<td>" + (cut.ids ? cut.ids[k] : "unit") + "<td>" +
        escaped(seen(bytes.slice(0, MOST))) + more + "<td>" + (hex(bytes.slice(0, MOST)) || "no bytes") + more;
    }
  });
  return "<table>" + out + "</table>";
}
function leave() {
  if (here === null) return;
  here = null;
  hideTip();
  root.querySelectorAll(".here").forEach(node => node.classList.remove("here"));
}
function show(t, i, x, y) {
  leave();
  here = [t, i];
  const spans = root.querySelectorAll('span[data-t="' + t + '"][data-i="' + i + '"]');
  spans.forEach(node => node.classList.add("here"));
  if (x === undefined) {
    const box = spans[spans.length - 1].getBoundingClientRect();
    x = box.left;
    y = box.bottom;
  }
  showTip(rows(D.texts[t], i), x, y);
}
root.addEventListener("mousemove", event => {
  const span = event.target.closest("span[data-i]");
  if (span) show(+span.dataset.t, +span.dataset.i, event.clientX, event.clientY);
  else leave();
});
root.addEventListener("mouseleave", leave);
root.addEventListener("blur", leave);
root.addEventListener("keydown", event => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step || hidden.size === D.schemes.length) return;
  event.preventDefault();
  let [t, i] = here || [0, -step];
  i += step;
  if (i < 0 && t > 0) i = D.texts[--t].characters.length - 1;
  else if (i >= D.texts[t].characters.length && t + 1 < D.texts.length) { t++; i = 0; }
  show(t, Math.max(0, Math.min(i, D.texts[t].characters.length - 1)));
});
let width = 0;
new ResizeObserver(() => { if (root.clientWidth !== width) { width = root.clientWidth; draw(); } }).observe(root);

D.schemes.forEach((name, s) => {
  const button = make("button", document.querySelector(".chips"), { type: "button", "aria-pressed": "true" }, name);
  button.addEventListener("click", () => {
    hidden.has(s) ? hidden.delete(s) : hidden.add(s);
    button.setAttribute("aria-pressed", String(!hidden.has(s)));
    draw();
  });
});

/* Tables by part. */
const choice = byId("breakdown"), parted = byId("parted");
D.breakdowns.forEach((each, i) => make("option", choice, { value: i }, each.title));
function tabulate() {
  const each = D.breakdowns[+choice.value];
  const head = make("tr", parted.tHead), body = parted.tBodies[0];
  parted.tHead.replaceChildren(head);
  body.replaceChildren();
  ["", ...each.columns].forEach((name, i) => {
    const button = make("button", make("th", head, { scope: "col", class: i ? "n" : "" }), { type: "button" });
    make("span", button, {}, name || "scheme");
  });
  for (const [name, cells] of each.rows) {
    const row = make("tr", body);
    make("th", row, { scope: "row", "data-key": name }, name);
    for (const [told, key] of cells) make("td", row, key === null ? { class: "n" } : { class: "n", "data-key": key }, told);
  }
}
choice.addEventListener("change", tabulate);
tabulate();
document.querySelectorAll("table.sortable").forEach(sortable);
})();
