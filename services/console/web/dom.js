// The few things the page needs to make elements. Text only ever becomes text: there is no way to pass markup in.

const SVG = "http://www.w3.org/2000/svg";

/** @returns {HTMLElement} the element of the page with this id */
export const byId = (id) => document.getElementById(id);

/** An element. Attributes that are null, undefined or false are left out; `on…` are listeners. */
export function h(tag, attributes = {}, ...children) {
  return dress(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return dress(document.createElementNS(SVG, tag), attributes, children);
}

function dress(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Set text only where it differs, so that nothing flickers and a selection survives. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A length in percent, for bars; through the CSSOM, since the page's policy forbids style attributes. */
export function setWidth(element, percent) {
  element.style.width = `${Math.max(0, Math.min(100, percent)).toFixed(2)}%`;
  return element;
}

const ICONS = {
  ok: "M3 8.5l3.2 3.2L13 5",
  stop: "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2zM4 4l8 8",
  warn: "M8 2.5l6.2 11H1.8zM8 6.5v3.4M8 11.8v.2",
  cut: "M3 4l10 7M3 12l10-7M2.6 5.4a1.6 1.6 0 1 0 .1-2.8M2.6 10.6a1.6 1.6 0 1 1 .1 2.8",
  gone: "M9.5 3H4v10h5.5M7 8h7M11.5 5.5L14 8l-2.5 2.5",
  free: "M2 8h12M10 4l4 4-4 4",
  odd: "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2zM8 5v3.6M8 10.8v.2",
};

/** A small drawing that says nothing on its own: words stand beside it. */
export function icon(name) {
  return svg(
    "svg",
    { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true", focusable: "false" },
    svg("path", { d: ICONS[name] ?? ICONS.odd }),
  );
}

const tip = () => byId("tip");

/** A note beside an element while the pointer is on it or it has the focus. lines: () => [[label, value], …] */
export function explain(element, lines) {
  const show = () => {
    const box = tip();
    box.replaceChildren(...lines().map(([name, value]) => h("div", {}, h("span", {}, name), h("b", {}, value))));
    box.hidden = false;
    const at = element.getBoundingClientRect();
    const left = Math.min(at.left, document.documentElement.clientWidth - box.offsetWidth - 8);
    const below = at.bottom + 6 + box.offsetHeight < document.documentElement.clientHeight;
    box.style.left = `${Math.max(8, left)}px`;
    box.style.top = `${below ? at.bottom + 6 : Math.max(8, at.top - box.offsetHeight - 6)}px`;
  };
  const hide = () => (tip().hidden = true);
  element.addEventListener("pointerenter", show);
  element.addEventListener("pointerleave", hide);
  element.addEventListener("focus", show);
  element.addEventListener("blur", hide);
}

export const hideTip = () => (tip().hidden = true);

let announceAfter = 0;

/** Tell those who do not see the page, politely: not more than one sentence in five seconds but for what is urgent. */
export function announce(text, urgent = false) {
  const now = performance.now();
  if (!urgent && now < announceAfter) return;
  announceAfter = now + 5000;
  setText(byId("announcer"), text);
}
