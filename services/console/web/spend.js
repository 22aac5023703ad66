// Spend now: the figures at the top and the last hour minute by minute.

import { byId, explain, h, setText, svg } from "/static/dom.js";
import { clock, compact, count, usd, usdExact } from "/static/format.js";
import { MINUTES } from "/static/hour.js";

const FIGURES = [
  ["today", "Today", "since midnight UTC"],
  ["hour", "Last hour", ""],
  ["minute", "This minute", "last 60 seconds"],
  ["rate", "Requests a minute", "last 60 seconds"],
  ["flight", "In flight", "now"],
  ["refused", "Refused", "last hour"],
  ["in", "Tokens in", "last hour"],
  ["out", "Tokens out", "last hour"],
];
const HEIGHT = 100;
const STEP = 10;

export class SpendPanel {
  constructor(hour) {
    this._hour = hour;
    this._spend = null;
    this._view = null;
    this._flight = null;
    this._cells = new Map(FIGURES.map(([name, label, note]) => [name, figure(name, label, note)]));
    byId("figures").replaceChildren(...[...this._cells.values()].map((cell) => cell.box));
    this._bars = bars(byId("hour-chart"), (index) => this._minuteLines(index));
  }

  /** What the console counts: today and the last 60 seconds. */
  spend(told) {
    this._spend = told;
  }

  /** Attempts on their way to a provider now; null when no edge is heard. */
  inFlight(attempts) {
    this._flight = attempts;
  }

  clear() {
    this._spend = this._flight = null;
  }

  /** now: milliseconds. */
  draw(now) {
    this._view = this._hour.view(now);
    const { minutes, total } = this._view;
    const atLeast = this._hour.partial ? "≥ " : "";
    this._money("today", this._spend?.today_nano_usd, "");
    this._money("minute", this._spend?.minute_nano_usd, "");
    this._money("hour", total.cost, atLeast);
    this._put("rate", this._spend ? count(this._spend.minute_requests) : "–");
    this._put("flight", this._flight === null ? "–" : count(this._flight));
    this._put("refused", atLeast + count(total.refused));
    this._put("in", atLeast + compact(total.tokensIn), count(total.tokensIn));
    this._put("out", atLeast + compact(total.tokensOut), count(total.tokensOut));
    this._cells.get("refused").box.classList.toggle("some", total.refused > 0);
    const note = this._spend && !this._spend.complete ? "counting since the console started" : "since midnight UTC";
    setText(this._cells.get("today").note, note);
    setText(this._cells.get("hour").note, `${count(total.requests)} request${total.requests === 1 ? "" : "s"}`);
    this._chart(minutes);
  }

  _money(name, nano, prefix) {
    this._put(name, nano === undefined || nano === null ? "–" : prefix + usd(nano), nano === undefined ? "" : usdExact(nano));
  }

  _put(name, text, title = "") {
    const { value } = this._cells.get(name);
    if (value.title !== title) value.title = title;
    const shown = value.dataset.text;
    if (shown === text) return;
    value.dataset.text = text;
    const [, head, tail] = /^(.*?)((?:\.\d+)?)$/.exec(text);
    value.replaceChildren(head, tail ? h("small", {}, tail) : "");
  }

  _chart(minutes) {
    const peak = minutes.reduce((most, { cost }) => (cost > most ? cost : most), 0n);
    minutes.forEach(({ cost, refused }, index) => {
      const { bar, mark } = this._bars[index];
      // a minute that cost anything at all can be seen
      const tall = peak > 0n && cost > 0n ? Math.max(3, Number((cost * 1000n) / peak) / 10) : 0;
      bar.setAttribute("y", String(HEIGHT - tall));
      bar.setAttribute("height", String(tall));
      mark.setAttribute("opacity", refused ? "1" : "0");
    });
    setText(byId("hour-peak"), peak > 0n ? `peak ${usd(peak)} a minute` : "nothing spent in the last hour");
    const chart = byId("hour-chart");
    const label = `Spend by the minute over the last hour: ${usd(this._view.total.cost)} in all, at most ${usd(peak)} in a minute.`;
    if (chart.getAttribute("aria-label") !== label) chart.setAttribute("aria-label", label);
  }

  _minuteLines(index) {
    const minute = this._view?.minutes[index];
    if (!minute) return [];
    return [
      ["minute", clock(minute.at).slice(0, 5)],
      ["spent", usd(minute.cost)],
      ["requests", count(minute.requests)],
      ...(minute.refused ? [["refused", count(minute.refused)]] : []),
      ["tokens", `${compact(minute.tokensIn)} in, ${compact(minute.tokensOut)} out`],
    ];
  }
}

function figure(name, label, note) {
  const value = h("dd", { class: "value" }, "–");
  const small = h("dd", { class: "note" }, note);
  return { box: h("div", { class: `figure ${name}` }, h("dt", {}, label), value, small), value, note: small };
}

function bars(chart, lines) {
  chart.setAttribute("viewBox", `0 0 ${MINUTES * STEP} ${HEIGHT + 8}`);
  const made = Array.from({ length: MINUTES }, (_, index) => {
    const x = index * STEP;
    const place = { x: x + 1.5, width: STEP - 3, rx: 1 };
    const parts = {
      hit: svg("rect", { class: "hit", x, y: 0, width: STEP, height: HEIGHT + 8 }),
      bar: svg("rect", { class: "minute", ...place, y: HEIGHT, height: 0 }),
      mark: svg("rect", { class: "mark-refused", ...place, y: HEIGHT + 3, height: 5, opacity: 0 }),
    };
    parts.group = svg("g", {}, parts.hit, parts.bar, parts.mark);
    explain(parts.group, () => lines(index));
    return parts;
  });
  chart.replaceChildren(svg("line", { class: "base", x1: 0, x2: MINUTES * STEP, y1: HEIGHT + 0.5, y2: HEIGHT + 0.5 }), ...made.map(({ group }) => group));
  made.at(-1).group.classList.add("current");
  return made;
}
