// The last hour, folded from requests: each counts once, however often it is told. No document, no clock.

export const MINUTE = 60_000;
export const MINUTES = 60;
const MOST = 40_000; // requests of an hour kept by id; beyond it the figures say that they are a lower bound

export const TOKEN_CLASSES = [
  ["input_tokens", "input", "in"],
  ["cache_write_5m_tokens", "write 5m", "w5"],
  ["cache_write_1h_tokens", "write 1h", "w1"],
  ["cache_read_tokens", "read", "rd"],
  ["output_tokens", "output", "out"],
];

const number = (value) => (Number.isFinite(Number(value)) ? Number(value) : 0);

/** Counts by class; output holds the thinking too. */
export const tokensOf = (item) => TOKEN_CLASSES.map(([name]) => Math.max(0, number(item[name])));

const empty = () => ({ cost: 0n, requests: 0, refused: 0, tokensIn: 0, tokensOut: 0 });

function partOf(item) {
  const [input, w5, w1, read, output] = tokensOf(item);
  return {
    priced: Boolean(item.priced),
    cost: item.cost_nano_usd ?? 0n,
    requests: 1,
    refused: item.verdict === "refused" ? 1 : 0,
    tokensIn: input + w5 + w1 + read,
    tokensOut: output,
  };
}

function add(sum, part, sign) {
  sum.cost += sign < 0 ? -part.cost : part.cost;
  for (const name of ["requests", "refused", "tokensIn", "tokensOut"]) sum[name] += sign * part[name];
}

export class Hour {
  constructor() {
    this.clear();
  }

  clear() {
    this._parts = new Map(); // request id → [minute, part]
    this._minutes = new Map(); // minute → sums
    this.partial = false;
  }

  /** A request as it is known now; what was known of it before is taken back first. */
  tell(item) {
    const minute = Math.floor(Date.parse(item.received_at) / MINUTE);
    if (!Number.isFinite(minute)) return;
    const before = this._parts.get(item.request_id);
    if (before?.[1].priced && !item.priced) return; // an older page of the log, told later
    if (before) add(this._of(before[0]), before[1], -1);
    else if (this._parts.size >= MOST) {
      this.partial = true;
      return;
    }
    const part = partOf(item);
    add(this._of(minute), part, 1);
    this._parts.set(item.request_id, [minute, part]);
  }

  _of(minute) {
    if (!this._minutes.has(minute)) this._minutes.set(minute, empty());
    return this._minutes.get(minute);
  }

  /** now: milliseconds. {minutes: the last 60, oldest first, total}. What is older is forgotten. */
  view(now) {
    const last = Math.floor(now / MINUTE);
    const first = last - MINUTES + 1;
    this._forget(first);
    const minutes = Array.from({ length: MINUTES }, (_, index) => ({
      at: (first + index) * MINUTE,
      ...(this._minutes.get(first + index) ?? empty()),
    }));
    const total = empty();
    for (const minute of minutes) add(total, minute, 1);
    return { minutes, total };
  }

  _forget(first) {
    let stale = false;
    for (const minute of this._minutes.keys()) {
      if (minute < first) stale = this._minutes.delete(minute);
    }
    if (!stale) return;
    for (const [id, [minute]] of this._parts) {
      if (minute < first) this._parts.delete(id);
    }
  }
}
