// Every budget with its bar: spent solid, held hatched, the fullest first.

import { announce, byId, h, icon, setText, setWidth } from "/static/dom.js";
import { count, moment, percent, until, usd, usdExact } from "/static/format.js";
import { periodWord, scopeWord } from "/static/outcome.js";

const SHOWN = 60;
const AMBER = 80;
const MODES = {
  hard: ["hard", "Refuses at the limit"],
  soft: ["soft", "Warns at the limit, refuses nothing"],
  shadow: ["shadow", "Only counts, refuses nothing"],
};

export class BudgetPanel {
  constructor() {
    this._items = [];
    this._lines = new Map(); // budget id → line
    this._all = false;
    this._told = false;
    this._blocked = null;
    byId("budgets-more").addEventListener("click", () => {
      this._all = !this._all;
      this.draw(Date.now());
    });
  }

  tell(items) {
    this._told = true;
    this._items = items
      .map((item) => ({ ...item, full: fullness(item) }))
      .sort((a, b) => Number(b.blocked) - Number(a.blocked) || b.full - a.full || (a.path < b.path ? -1 : 1));
  }

  clear() {
    this._items = [];
    this._told = this._all = false;
    this._blocked = null;
  }

  draw(now) {
    const shown = this._all ? this._items : this._items.slice(0, SHOWN);
    const kept = new Set(shown.map(({ id }) => id));
    for (const [id, line] of this._lines) if (!kept.has(id)) this._lines.delete(id), line.box.remove();
    const list = byId("budget-list");
    shown.forEach((item, index) => {
      const line = this._lines.get(item.id) ?? makeLine(item.id);
      this._lines.set(item.id, line);
      drawLine(line, item, now);
      if (list.children[index] !== line.box) list.insertBefore(line.box, list.children[index] ?? null);
    });
    this._around();
  }

  _around() {
    const more = byId("budgets-more");
    more.hidden = this._items.length <= SHOWN;
    setText(more, this._all ? "Show the fullest only" : `Show all ${count(this._items.length)}`);
    byId("budgets-none").hidden = !this._told || this._items.length > 0;
    const blocked = this._items.filter((item) => item.blocked).length;
    const parts = [`${count(this._items.length)} in force`];
    if (blocked) parts.push(`${count(blocked)} blocked`);
    setText(byId("budgets-note"), this._items.length ? parts.join(", ") : "");
    if (this._blocked !== null && blocked > this._blocked) announce(`${blocked} budgets are blocked now`, true);
    this._blocked = this._told ? blocked : null;
  }
}

/** Spent and held, of the limit, in percent; not capped. */
const fullness = (item) => percent((item.spent_nano_usd ?? 0n) + (item.held_nano_usd ?? 0n), item.limit_nano_usd ?? 0n);

function makeLine(id) {
  const line = { box: h("li", { class: "budget", "data-id": id }) };
  const part = (tag, name, ...content) => (line[name] = h(tag, { class: name }, ...content));
  line.spentBar = h("i", { class: "spent" });
  line.heldBar = h("i", { class: "held" });
  line.bar = h("div", { class: "bar", role: "meter", "aria-valuemin": "0", "aria-valuemax": "100" }, line.spentBar, line.heldBar);
  line.track = h("div", { class: "track" }, line.bar);
  line.box.append(
    h("div", { class: "title" }, part("span", "scope"), part("b", "name"), part("span", "above"), part("span", "blocked"), part("span", "share")),
    line.track,
    h("div", { class: "sums" }, part("span", "spentOf"), part("span", "left")),
    h("div", { class: "small" }, part("span", "rule"), part("span", "resets")),
  );
  return line;
}

function drawLine(line, item, now) {
  const tone = item.blocked || item.full >= 100 ? "stop" : item.full >= AMBER ? "warn" : "calm";
  line.box.dataset.tone = tone;
  setText(line.scope, scopeWord(item.scope));
  const path = item.path || item.scope_id || item.scope_uid;
  const leaf = path.slice(path.lastIndexOf("/") + 1);
  setText(line.name, leaf);
  setText(line.above, path.length > leaf.length ? `in ${path.slice(0, -leaf.length - 1)}` : "");
  line.name.title = [item.path, item.name].filter(Boolean).join(" · ");
  const word = item.blocked ? "blocked" : item.full >= 100 ? (item.mode === "hard" ? "full" : "over") : item.full >= AMBER ? "nearly full" : "";
  if (line.blocked.dataset.word !== word) {
    line.blocked.dataset.word = word;
    line.blocked.replaceChildren(...(word ? [icon(item.blocked ? "stop" : "warn"), word] : []));
  }
  setText(line.share, `${item.full >= 10 ? Math.floor(item.full) : Math.floor(item.full * 10) / 10} %`);
  const spent = percent(item.spent_nano_usd, item.limit_nano_usd);
  setWidth(line.spentBar, spent);
  setWidth(line.heldBar, Math.min(item.full, 100) - Math.min(spent, 100));
  drawSums(line, item);
  drawRule(line, item, now);
  line.bar.setAttribute("aria-valuenow", String(Math.min(100, Math.round(item.full))));
  line.bar.setAttribute("aria-label", `${scopeWord(item.scope)} ${item.path}, ${periodWord(item.period)}: ${line.share.textContent} used${word ? `, ${word}` : ""}`);
}

function drawSums(line, item) {
  const held = item.held_nano_usd > 0n ? ` + ${usd(item.held_nano_usd)} held` : "";
  setText(line.spentOf, `${usd(item.spent_nano_usd)}${held} of ${usd(item.limit_nano_usd)}`);
  const onTop = [[item.granted_nano_usd, "granted"], [item.rolled_over_nano_usd, "rolled over"]].filter(([nano]) => nano > 0n);
  const own = item.limit_nano_usd - onTop.reduce((sum, [nano]) => sum + nano, 0n);
  const limit = onTop.length ? `, of ${[usdExact(own), ...onTop.map(([nano, word]) => `${usdExact(nano)} ${word}`)].join(" + ")}` : "";
  line.spentOf.title = `spent ${usdExact(item.spent_nano_usd)}, held ${usdExact(item.held_nano_usd)}${limit}`;
  const over = item.spent_nano_usd - item.limit_nano_usd;
  setText(line.left, over > 0n ? `${usd(over)} over` : `${usd(item.remaining_nano_usd)} left`);
}

function drawRule(line, item, now) {
  const [mode, meaning] = MODES[item.mode] ?? [item.mode, ""];
  const own = item.name ? ` · ${item.name}` : "";
  setText(line.rule, `${periodWord(item.period)} · ${mode}${own}`);
  line.rule.title = meaning;
  const forecast = item.forecast_nano_usd ?? null;
  const pace = forecast !== null && forecast > item.limit_nano_usd && !item.blocked ? `at this pace ${usd(forecast)} · ` : "";
  setText(line.resets, pace + (item.resets_at ? `resets in ${until(item.resets_at, now)}` : "never resets"));
  line.resets.title = item.resets_at ? moment(item.resets_at) : "";
}
