// How a request ended, in words. Plain functions over plain values.

const REFUSED = {
  spent: "budget spent",
  busy: "budget held by calls in flight",
  unpriced: "model has no price",
  unboundable: "cost cannot be bounded",
  unknown: "key is gone",
  too_late: "too late",
};

const ENDED = {
  ok: ["ok", "ok", "ok"],
  cut: ["cut at the cap", "warn", "cut"],
  client_gone: ["client gone", "odd", "gone"],
  upstream_error: ["provider error", "warn", "warn"],
  upstream_broken: ["stream broke", "warn", "warn"],
  not_sent: ["not sent", "odd", "odd"],
  edge_died: ["edge died", "warn", "warn"],
};

const SCOPES = { org: "organisation", provider_config: "provider" };
export const scopeWord = (scope) => SCOPES[scope] ?? scope;

const PERIODS = {
  minute: "per minute", hour: "hourly", day: "daily", week: "weekly", month: "monthly", quarter: "quarterly",
  year: "yearly", total: "in total", session: "per session",
};
export const periodWord = (period) => PERIODS[period] ?? period;

export const plain = (text) => String(text ?? "").replaceAll("_", " ");

/** `key acme/platform/dev-asha, daily` of a budget's id, `scope:uid:period[:name]`; names: budgets by id, as last told. */
export function budgetName(id, names, short = false) {
  if (!id) return "";
  const known = names.get(id);
  const [scope, uid = "", period = ""] = id.split(":");
  const name = known ? (short ? "" : known.path) || known.scope_id : uid;
  return [`${scopeWord(scope)} ${name}`.trim(), periodWord(period)].filter(Boolean).join(", ");
}

/** {word, tone, icon, detail}; tone: ok, odd (somebody's own doing), warn, stop. */
export function outcomeOf(item, names) {
  switch (item.verdict) {
    case "refused":
      return {
        word: "refused", tone: "stop", icon: "stop",
        detail: [REFUSED[item.reason] ?? plain(item.reason), budgetName(item.budget_id, names, true)].filter(Boolean).join(" · "),
      };
    case "rejected":
      return { word: "rejected", tone: "odd", icon: "odd", detail: plain(item.reason || item.error_type) };
    case "unavailable":
      return { word: "unavailable", tone: "warn", icon: "warn", detail: plain(item.reason || item.error_type) };
    case "free":
      return failedBy(item) ?? { word: "ok", tone: "ok", icon: "free", detail: `free: ${plain(item.operation)}` };
    default:
      return admitted(item, names);
  }
}

function admitted(item, names) {
  const [word, tone, icon] = ENDED[item.outcome] ?? [plain(item.outcome) || "ended", "odd", "odd"];
  if (item.outcome === "ok") return failedBy(item) ?? { word, tone, icon, detail: "" };
  const detail = item.outcome === "cut" ? budgetName(item.budget_id, names, true) : trouble(item);
  return { word, tone, icon, detail };
}

function failedBy(item) {
  if (!(item.status >= 400)) return null;
  return { word: "provider error", tone: "warn", icon: "warn", detail: trouble(item) };
}

const trouble = (item) => [item.status >= 400 ? item.status : "", plain(item.error_type)].filter(Boolean).join(" ");

/** What the filter box looks in. */
export function searchable(item, names) {
  const { word, detail } = outcomeOf(item, names);
  const flags = item.estimated ? "estimated" : "";
  return [
    item.key, item.owner, item.team, item.customer, item.model, item.provider, item.verdict, item.outcome, item.reason,
    item.status, item.request_id, item.session, word, detail, flags,
  ].join(" ").toLowerCase();
}
