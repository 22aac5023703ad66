// One request as a row of the table.

import { explain, h, icon, setWidth } from "/static/dom.js";
import { clock, compact, count, duration, moment, usd, usdExact } from "/static/format.js";
import { TOKEN_CLASSES, tokensOf } from "/static/hour.js";
import { outcomeOf } from "/static/outcome.js";

const TOKEN_HEADS = h("span", { class: "token-heads" }, TOKEN_CLASSES.map(([, label, short]) => h("span", { class: `tone-${short}` }, label)));

export const HEADS = [
  ["time", "Time"],
  ["who", "Who"],
  ["team", "Team"],
  ["model", "Model"],
  ["tokens", TOKEN_HEADS],
  ["cost", "Cost"],
  ["first", "First token"],
  ["took", "Duration"],
  ["outcome", "Outcome"],
];

export function headCells() {
  return HEADS.map(([name, label]) => h("div", { class: name, role: "columnheader" }, label));
}

/** The cells of a row; names: budgets by id. */
export function cells(item, names) {
  const outcome = outcomeOf(item, names);
  return [
    cell("time", h("time", { datetime: item.received_at, title: moment(item.received_at) }, clock(item.received_at))),
    two("who", item.key || "unknown key", item.owner),
    two("team", item.team || "–", item.customer),
    two("model", item.model || "–", item.provider),
    tokens(item),
    cost(item),
    cell("first", item.ttft_ms >= 0 ? duration(item.ttft_ms) : "–"),
    cell("took", duration(item.duration_ms)),
    ended(item, outcome),
  ];
}

const cell = (name, ...content) => h("div", { class: name, role: "gridcell" }, ...content);

function two(name, main, below) {
  const under = below && below !== main ? h("span", { class: "under", title: below }, below) : null;
  return cell(name, h("span", { class: "main", title: main }, main), under);
}

function tokens(item) {
  const counts = tokensOf(item);
  const total = counts.reduce((sum, value) => sum + value, 0);
  if (!total) return cell("tokens empty", h("span", { class: "unseen" }, "no tokens"));
  const numbers = TOKEN_CLASSES.map(([, label, short], index) =>
    h("span", { class: counts[index] ? `tone-${short}` : "zero", "data-label": label }, counts[index] ? compact(counts[index]) : "·"),
  );
  const parts = TOKEN_CLASSES.map(([, , short], index) =>
    counts[index] ? setWidth(h("i", { class: `fill-${short}` }), (100 * counts[index]) / total) : null,
  );
  const box = cell("tokens", h("span", { class: "numbers", "aria-hidden": "true" }, numbers), h("span", { class: "stack", "aria-hidden": "true" }, parts));
  const spoken = TOKEN_CLASSES.map(([, label], index) => (counts[index] ? `${label} ${count(counts[index])}` : "")).filter(Boolean);
  box.append(h("span", { class: "unseen" }, `tokens: ${spoken.join(", ")}`));
  explain(box, () => tokenLines(item, counts, total));
  return box;
}

function tokenLines(item, counts, total) {
  const full = { "write 5m": "cache write, 5 min", "write 1h": "cache write, 1 h", read: "cache read" };
  return [
    ...TOKEN_CLASSES.map(([, label], index) => [full[label] ?? label, count(counts[index])]),
    ...(item.thinking_tokens > 0 ? [["of it thinking", count(item.thinking_tokens)]] : []),
    ["all together", count(total)],
    ...(item.web_search_requests > 0 ? [["web searches", count(item.web_search_requests)]] : []),
  ];
}

function cost(item) {
  if (!item.priced) return cell("cost", h("span", { class: "pending" }, "pricing…"));
  if (!item.attempts && !item.cost_nano_usd) return cell("cost", h("span", { class: "zero" }, "–"));
  const about = item.estimated ? h("span", { class: "about", title: "about; the provider's final count was not seen" }, "≈") : null;
  return cell("cost", about, h("span", { title: usdExact(item.cost_nano_usd) }, ...[amount(item.cost_nano_usd)].flat()));
}

/** Six decimals, so that the column lines up; the last two step back behind those that people compare. */
function amount(nano) {
  if (!nano) return "$0";
  const text = usd(nano, 6);
  const head = text.slice(0, -2);
  return /[1-9]/.test(head) ? [head, h("small", {}, text.slice(-2))] : text;
}

function ended(item, { word, tone, icon: drawing, detail }) {
  const more = [detail, item.estimated && "estimated", item.attempts > 1 && `${count(item.attempts)} attempts`].filter(Boolean).join(" · ");
  return cell(
    `outcome is-${tone}`,
    h("span", { class: "word" }, icon(drawing), word),
    more ? h("span", { class: "under", title: item.message || more }, more) : null,
  );
}
