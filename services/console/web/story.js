// The whole story of one request, in a drawer.

import * as api from "/static/api.js";
import { byId, h, icon } from "/static/dom.js";
import { count, duration, moment, perMillion, usd, usdExact, usdOfPico } from "/static/format.js";
import { budgetName, outcomeOf, plain } from "/static/outcome.js";

const LINE_FIELDS = ["meter", "quantity", "model", "iteration", "tier", "speed", "geo", "region", "batch", "rate_id",
  "list_pico_usd", "cost_pico_usd", "charge_pico_usd"];
const METERS = ["input", "cache_write_5m", "cache_write_1h", "cache_read", "thinking", "output"];
const RETRIES = 12; // the log is a moment behind the live events
const RETRY_MS = 500;

export class Story {
  /** names: () => budgets by id; onClosed: () => void */
  constructor(names, onClosed) {
    this._names = names;
    this._dialog = byId("story");
    this._asked = "";
    this._dialog.addEventListener("close", () => {
      this._asked = "";
      onClosed();
    });
    this._dialog.addEventListener("click", (event) => {
      if (event.target === this._dialog) this._dialog.close(); // beside the drawer
    });
  }

  async open(id) {
    if (!id) return;
    this._asked = id;
    this._show(id, [h("p", { class: "hint" }, "Reading the log…")]);
    if (!this._dialog.open) this._dialog.showModal();
    for (let turn = 0; this._asked === id; turn += 1) {
      try {
        const story = await api.story(id);
        if (this._asked === id) this._tell(id, story);
        return;
      } catch (error) {
        if (this._asked !== id) return;
        if (!(error instanceof api.Failure)) throw error;
        if (error.status === 404 && turn < RETRIES) await new Promise((done) => setTimeout(done, RETRY_MS));
        else return this._show(id, [h("p", { class: "error", role: "alert" }, `This request cannot be shown: ${error.message}`)]);
      }
    }
  }

  close() {
    if (this._dialog.open) this._dialog.close();
  }

  _show(id, content) {
    const close = h("button", { type: "button", class: "quiet", onclick: () => this._dialog.close() }, "Close");
    const head = h("header", {}, h("h2", { id: "story-title" }, "Request ", h("code", {}, id)), close);
    this._dialog.replaceChildren(head, h("div", { class: "story-body" }, content));
  }

  _tell(id, { request, decision, attempts }) {
    const names = this._names();
    this._show(id, [
      summary(request, names),
      section("Who", facts([
        ["key", request.key], ["owner", request.owner], ["team", request.team], ["customer", request.customer],
        ["session", request.session], ["agent", decision.agent_id], ["parent agent", decision.parent_agent_id],
        ["prompt", decision.prompt_id], ["class", plain(decision.request_class)], ["client", decision.client_version],
        ["tags", tags(decision.tags)],
      ])),
      section("Decision", facts([
        ["verdict", plain(request.verdict)], ["reason", plain(request.reason)], ["budget", budgetName(request.budget_id, names)],
        ["decided in", microseconds(decision.reserve_us)], ["rules", decision.config_rev ? `revision ${decision.config_rev}` : ""],
        ["received", moment(request.received_at)], ["admitted", instant(decision.admitted_at)], ["closed", instant(decision.closed_at)],
        ["asked for", decision.request_model], ["operation", plain(request.operation)], ["streamed", request.stream ? "yes" : "no"],
        ["a retry", decision.repeat ? "yes, the client sent the same again" : ""],
        ["bytes", bytes(decision)], ["edge", decision.edge], ["trace", decision.trace_id],
      ])),
      ...attempts.map((attempt, index) => entry(attempt, index, attempts.length, names)),
      attempts.length ? null : section("Attempts", h("p", { class: "hint" }, request.attempts ? "Not priced yet." : "Nothing was sent to a provider.")),
      raw({ request, decision, attempts }),
    ].filter(Boolean));
  }
}

function summary(request, names) {
  const outcome = outcomeOf(request, names);
  return h(
    "div",
    { class: `verdict is-${outcome.tone}` },
    h("div", { class: "word" }, icon(outcome.icon), outcome.word, request.estimated ? h("span", { class: "flag" }, "estimated") : null),
    h("div", { class: "sum", title: usdExact(request.cost_nano_usd) }, request.priced ? usd(request.cost_nano_usd) : "not priced yet"),
    h("p", {}, [request.model, outcome.detail].filter(Boolean).join(" · ")),
    request.message ? h("p", { class: "message" }, request.message) : null,
    h("p", { class: "times" }, request.ttft_ms >= 0 ? `first token after ${duration(request.ttft_ms)}, ` : "", `ended after ${duration(request.duration_ms)}`),
  );
}

const section = (title, ...content) => h("section", {}, h("h3", {}, title), ...content);

function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== "" && value !== null && value !== undefined && value !== "–");
  return h("dl", { class: "facts" }, shown.flatMap(([name, value]) => fact(name, String(value))));
}

/** What is long has its line to itself. */
function fact(name, value) {
  const wide = { class: value.length > 26 ? "long" : null };
  return [h("dt", wide, name), h("dd", wide, value)];
}

function entry(attempt, index, all, names) {
  const title = all > 1 ? `Attempt ${Number(attempt.attempt) || index + 1}, ${plain(attempt.kind)}` : `Attempt, ${plain(attempt.kind)}`;
  const charges = (attempt.charges ?? []).map((charge) => budgetName(charge.budget_id ?? charge[0], names));
  const sums = [["cost", attempt.cost_nano_usd], ["list", attempt.list_nano_usd], ["charged", attempt.charge_nano_usd], ["held", attempt.held_nano_usd]];
  return section(
    title,
    h("div", { class: "sums" }, sums.map(([name, value]) => h("span", { title: usdExact(value ?? 0n) }, `${name} `, h("b", {}, usd(value ?? 0n, 6))))),
    lines(attempt),
    facts([
      ["provider", [attempt.provider, attempt.region].filter(Boolean).join(", ")], ["sent as", attempt.wire_model], ["answered as", attempt.response_model],
      ["status", attempt.status], ["outcome", plain(attempt.outcome)], ["error", plain(attempt.error_type)], ["stopped by", plain(attempt.stop_reason)],
      ["first token", duration(attempt.ttft_ms)], ["duration", duration(attempt.duration_ms)], ["sent", instant(attempt.sent_at)], ["booked", instant(attempt.booked_at)],
      ["prices", attempt.price_version], ["billing", plain(attempt.billing_class)],
      ["note", notes(attempt)], ["booked on", charges.join("; ")],
      ["provider's id", attempt.upstream_request_id], ["attempt id", attempt.rid],
    ]),
  );
}

function notes(attempt) {
  const flags = { estimated: "estimated", unpriced: "no price", ungoverned: "outside budgets", late: "came late" };
  return Object.entries(flags).filter(([name]) => attempt[name]).map(([, word]) => word).join(", ");
}

function lines(attempt) {
  const rows = (attempt.lines ?? []).map((line) => (Array.isArray(line) ? Object.fromEntries(LINE_FIELDS.map((name, at) => [name, line[at]])) : line));
  if (!rows.length) return null;
  rows.sort((a, b) => METERS.indexOf(a.meter) - METERS.indexOf(b.meter));
  const head = h("tr", {}, ["what", "how many", "a million", "cost"].map((text) => h("th", { scope: "col" }, text)));
  const body = rows.map((line) =>
    h(
      "tr",
      {},
      h("td", {}, plain(line.meter), " ", h("span", { class: "rate", title: "The rate that priced it" }, rateName(line))),
      h("td", {}, count(line.quantity)),
      h("td", {}, line.rate_id ? perMillion(line.cost_pico_usd, line.quantity) : "no rate"),
      h("td", {}, usdOfPico(line.cost_pico_usd)),
    ),
  );
  return h("table", { class: "lines" }, h("thead", {}, head), h("tbody", {}, body));
}

function rateName(line) {
  const special = [line.tier !== "standard" && line.tier, line.speed !== "standard" && line.speed, line.geo, line.batch && "batch"];
  return [line.rate_id || line.model, ...special].filter(Boolean).join(", ");
}

const instant = (at) => (at ? `${moment(at)}` : "");
const tags = (found) => Object.entries(found ?? {}).map(([name, value]) => `${name}=${value}`).join(", ");
const bytes = (row) => (row.bytes_in || row.bytes_out ? `${count(row.bytes_in)} in, ${count(row.bytes_out)} out` : "");

function microseconds(value) {
  const number = Number(value);
  if (value === null || value === undefined || !Number.isFinite(number) || number < 0) return "";
  return number < 10_000 ? `${(number / 1000).toFixed(1)} ms` : duration(number / 1000);
}

/** Everything as the API gave it, money as exact integers. */
function raw(story) {
  const text = JSON.stringify(story, (name, value) => (typeof value === "bigint" ? value.toString() : value), 2);
  return h("details", {}, h("summary", {}, "As the API tells it"), h("pre", { tabindex: "0" }, text));
}
