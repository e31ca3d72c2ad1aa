"use strict";
/* How models cut a text: its units in two colours by turns; and of the character that is pointed
   at, or reached with the arrow keys, the probability of an end and the bits of each byte, for all
   models beside each other. */
const tip = document.getElementById("tip");
function showTip(html, x, y) {
  tip.innerHTML = html;
  tip.style.display = "block";
  tip.style.left = Math.max(4, Math.min(x + 12, innerWidth - tip.offsetWidth - 8)) + "px";
  tip.style.top = Math.max(4, Math.min(y + 16, innerHeight - tip.offsetHeight - 8)) + "px";
}
function hideTip() { tip.style.display = "none"; }
addEventListener("scroll", hideTip, { passive: true });
function units(root, data) {
  const sections = [...root.querySelectorAll("section")];
  const names = sections.map(section => section.firstElementChild.innerHTML);
  const hex = value => value.toString(16).padStart(2, "0");
  let shown = null;
  function rows(i) {
    const [at, size] = data.characters[i];
    let out = "";
    for (const [m, model] of data.models.entries()) {
      for (let b = at; b < at + size; b++) {
        const p = model.probability[b];
        out += "<tr><td>" + (b === at ? names[m] : "") + "<td>" + hex(data.bytes[b]) + "<td>" +
          model.bits[b].toFixed(2) + " bits<td>" + (p === null ? "" : "p(end) " + p.toFixed(2)) +
          "<td>" + (model.ends[b] ? "ends" : "");
      }
    }
    return "<table>" + out + "</table>";
  }
  function leave() {
    if (shown === null) return;
    shown = null;
    hideTip();
    root.querySelectorAll(".here").forEach(node => node.classList.remove("here"));
  }
  function show(i, x, y) {
    leave();
    shown = i;
    root.querySelectorAll('span[data-i="' + i + '"]')
      .forEach(node => node.classList.add("here"));
    showTip(rows(i), x, y);
  }
  document.addEventListener("mousemove", event => {
    const span = event.target.closest && event.target.closest("span[data-i]");
    if (span && root.contains(span)) show(+span.dataset.i, event.clientX, event.clientY);
    else leave();
  });
  sections.forEach((section, m) => {
    const text = section.querySelector("pre"), model = data.models[m];
    let unit = 0;
    const spans = data.characters.map(([at, size, written], i) => {
      const span = document.createElement("span");
      span.className = "u" + unit % 2;
      span.dataset.i = i;
      span.textContent = written;
      let bits = 0;
      for (let b = at; b < at + size; b++) {
        bits += model.bits[b];
        unit += model.ends[b];
        /* A cut inside a character is a bar on it. */
        if (model.ends[b] && b < at + size - 1) span.classList.add("cut");
      }
      span.style.setProperty("--h", Math.min(bits / 12, 1).toFixed(3));
      return span;
    });
    text.replaceChildren(...spans);
    text.addEventListener("blur", leave);
    text.addEventListener("keydown", event => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step || !spans.length) return;
      event.preventDefault();
      const i = shown === null ? 0 : Math.max(0, Math.min(shown + step, spans.length - 1));
      const box = spans[i].getBoundingClientRect();
      show(i, box.left, box.bottom);
    });
  });
}
function heatSwitch(box, root) {
  box.addEventListener("change", () => root.classList.toggle("heat", box.checked));
}
