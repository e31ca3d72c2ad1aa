/* A vocabulary as a list: found by text, id or bytes, by class and script, sorted, some at a time. */
(() => {
const D = JSON.parse(byId("data").textContent), AT_A_TIME = 300;
const encoder = new TextEncoder();
const bytesOf = i => typeof D.pieces[i] === "string" ? [...encoder.encode(D.pieces[i])] : D.pieces[i];
const hex = bytes => bytes.map(b => b.toString(16).padStart(2, "0")).join(" ");
/* What cannot be seen, as pictures of it. */
const seen = text => [...text].map(c => {
  const code = c.codePointAt(0);
  return c === " " ? "\u2423" : code < 32 ? String.fromCharCode(0x2400 + code) : code === 127 ? "\u2421" : c;
}).join("");
const body = document.querySelector("tbody");
let order = D.pieces.map((_, i) => i), found = [], shown = 0;

for (const [name, values] of [["class", D.classes], ["script", D.scripts]]) {
  const counts = values.map((_, k) => (name === "class" ? D.kinds : D.of).filter(v => v === k).length);
  make("option", byId(name), { value: "" }, "all");
  values.forEach((value, k) => { if (counts[k]) make("option", byId(name), { value: k }, value + " (" + counts[k].toLocaleString("en") + ")"); });
}

function matches(i) {
  const sought = byId("find").value, kind = byId("class").value, script = byId("script").value;
  if (kind !== "" && D.kinds[i] !== +kind || script !== "" && D.of[i] !== +script) return false;
  if (byId("unused").checked && D.counts[i]) return false;
  if (!sought) return true;
  if (typeof D.pieces[i] === "string" && D.pieces[i].includes(sought.replaceAll("\u2423", " "))) return true;
  return String(i) === sought.trim() || /^([0-9a-f]{2} ?)+$/i.test(sought) && hex(bytesOf(i)).includes(sought.toLowerCase().trim());
}
function more() {
  for (const i of found.slice(shown, shown + AT_A_TIME)) {
    const row = make("tr", body), bytes = bytesOf(i), text = D.pieces[i];
    make("td", row, { class: "n" }, i);
    const piece = make("td", row, { class: "piece" });
    if (typeof text === "string" && text) make("span", piece, {}, seen(text));
    else piece.textContent = bytes.length ? "<" + hex(bytes) + ">" : "";
    make("td", row, { class: "hex" }, hex(bytes));
    make("td", row, { class: "n" }, bytes.length);
    make("td", row, { class: "n" }, D.counts[i].toLocaleString("en"));
    make("td", row, {}, D.classes[D.kinds[i]]);
    make("td", row, { class: "script" }, D.scripts[D.of[i]]);
  }
  shown = Math.min(shown + AT_A_TIME, found.length);
  byId("more").hidden = shown === found.length;
  byId("told").textContent = found.length.toLocaleString("en") + " ids, " + shown.toLocaleString("en") + " shown";
}
function find() {
  body.replaceChildren();
  shown = 0;
  found = order.filter(matches);
  more();
}
const KEYS = {
  id: i => i, count: i => D.counts[i], size: i => bytesOf(i).length,
  piece: i => typeof D.pieces[i] === "string" ? D.pieces[i] : "\uffff" + hex(D.pieces[i]),
};
document.querySelector("thead").addEventListener("click", event => {
  const button = event.target.closest("button");
  if (!button) return;
  const head = button.parentNode, down = head.getAttribute("aria-sort") === "ascending", key = KEYS[button.dataset.by];
  document.querySelectorAll("thead th").forEach(each => each.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const keys = D.pieces.map((_, i) => key(i));
  order.sort((a, b) => (keys[a] < keys[b] ? -1 : keys[a] > keys[b] ? 1 : a - b) * (down ? -1 : 1));
  find();
});
for (const id of ["find", "class", "script", "unused"]) byId(id).addEventListener("input", find);
byId("more").addEventListener("click", more);
find();
})();
