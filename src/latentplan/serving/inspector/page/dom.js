// Elements are built from data here, and only here: text goes in as text, never as HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

/** An HTML element: `el("p", {class: "hint"}, "text", other)`. */
export const el = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);

/** An SVG element. */
export const svg = (name, attributes = {}, ...children) => fill(document.createElementNS(SVG, name), attributes, children);

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** A probability or share: 62%, 99.8%, <0.1%. */
export function percent(value) {
  if (value === null || value === undefined) return "–";
  const hundred = 100 * value;
  if (value === 1) return "100%";
  if (hundred >= 99.95) return ">99.9%";
  if (hundred > 0 && hundred < 0.1) return "<0.1%";
  return `${hundred.toFixed(hundred > 99 || hundred < 1 ? 1 : 0)}%`;
}

/** A number at three digits. */
export const short = (value) => Number(value.toPrecision(3)).toString();

/** `1 step`, `2 steps`. */
export const counted = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

/** A bar of `share` of its width, `[0, 1]`; `words` are for those who do not see it. */
export function bar(share, words, kind = "") {
  const inner = el("i");
  inner.style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
  return el("span", { class: `bar ${kind}`, role: "img", "aria-label": words }, inner);
}

/** Shows a message in an alert, or hides it where there is none. */
export function alert(element, message) {
  element.hidden = !message;
  element.textContent = message || "";
}
