// Numbers, money and time as people read them. Money is nano-USD in a BigInt; no float ever touches it.

const NANO = 1_000_000_000n;
const NOTHING = "–";

/** Money fields of an answer become BigInt: a double is exact only up to nine million dollars. */
export function parse(text) {
  // inside a JSON string a quote is escaped, so `name":` with bare quotes is a field and never somebody's text
  const quoted = text.replace(/"([a-z_]+_(?:nano|pico)_usd)":\s*(-?\d+)/g, '"$1":"$2"');
  return JSON.parse(quoted, (name, value) =>
    /_(?:nano|pico)_usd$/.test(name) && typeof value === "string" ? BigInt(value) : value,
  );
}

/** An exact integer from whatever a row holds; 0 for what is no integer. */
export function exact(value) {
  if (typeof value === "bigint") return value;
  if (typeof value === "number" && Number.isSafeInteger(value)) return BigInt(value);
  return typeof value === "string" && /^-?\d+$/.test(value) ? BigInt(value) : 0n;
}

/** How many decimals tell a sum of this size from nothing: cents from a dollar on, more below. */
function decimals(nano) {
  const size = nano < 0n ? -nano : nano;
  if (size >= NANO || size === 0n) return 2;
  if (size >= NANO / 100n) return 4;
  return size >= NANO / 10_000n ? 6 : 9;
}

/** `$1,204.50`, `$0.0423`, `$0.000213`; rounded half up at the last digit shown. */
export function usd(value, digits = null) {
  if (value === null || value === undefined) return NOTHING;
  const nano = exact(value);
  const shown = digits ?? decimals(nano);
  const unit = 10n ** BigInt(9 - shown);
  const size = nano < 0n ? -nano : nano;
  const parts = (size + unit / 2n) / unit;
  const scale = 10n ** BigInt(shown);
  const whole = (parts / scale).toString().replace(/\B(?=(\d{3})+$)/g, ",");
  const fraction = shown ? `.${(parts % scale).toString().padStart(shown, "0")}` : "";
  return `${nano < 0n ? "−" : ""}$${whole}${fraction}`;
}

/** To the last nano-dollar: `$0.042318000`. */
export const usdExact = (value) => usd(value, 9);

/** Pico-USD for one unit as the dollars for a million of them, without idle zeros: `$3`, `$18.75`. */
export function perMillion(picoTotal, quantity) {
  const count = exact(quantity);
  if (count <= 0n) return NOTHING;
  const nano = (exact(picoTotal) * 1_000_000n) / count / 1000n; // pico-USD per million, in nano-USD
  return usd(nano, 9).replace(/(\.\d\d\d*?)0+$/, "$1").replace(/\.00$/, "");
}

export function usdOfPico(pico) {
  return usd((exact(pico) + 500n) / 1000n, 6);
}

/** value of limit in percent with one decimal, as a plain number for bars; exact sums make it safe to divide. */
export function percent(value, limit) {
  const whole = exact(limit);
  if (whole <= 0n) return exact(value) > 0n ? 100 : 0;
  return Number((exact(value) * 1000n) / whole) / 10;
}

/** `0`, `999`, `1.2k`, `45k`, `1.3M`. */
export function compact(value) {
  const number = Number(value);
  if (!Number.isFinite(number)) return NOTHING;
  for (const [unit, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    const scaled = number / unit;
    if (scaled >= 0.9995) return `${scaled < 9.995 ? Math.round(scaled * 10) / 10 : Math.round(scaled)}${letter}`;
  }
  return String(Math.round(number));
}

export function count(value) {
  const number = Number(value);
  return Number.isFinite(number) ? Math.round(number).toLocaleString("en-GB") : NOTHING;
}

/** Milliseconds; below zero and null: it did not happen. */
export function duration(ms) {
  const value = Number(ms);
  if (ms === null || ms === undefined || !Number.isFinite(value) || value < 0) return NOTHING;
  if (value < 1000) return `${Math.round(value)} ms`;
  if (value < 59_950) return `${(value / 1000).toFixed(value < 9950 ? 2 : 1)} s`;
  const seconds = Math.round(value / 1000);
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

/** `14:05:09` of an instant, where the reader is. */
export function clock(instant) {
  const at = new Date(instant);
  return Number.isNaN(at.getTime()) ? NOTHING : at.toLocaleTimeString("en-GB", { hour12: false });
}

/** `21 Nov, 14:05:09`; the same without the date, today. */
export function moment(instant) {
  const at = new Date(instant);
  if (!instant || Number.isNaN(at.getTime())) return NOTHING;
  const day = at.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
  return at.toDateString() === new Date().toDateString() ? clock(instant) : `${day}, ${clock(instant)}`;
}

/** How long until an instant: `5 h 12 min`, `3 d 4 h`. */
export function until(instant, now) {
  const left = Math.floor((Date.parse(instant) - now) / 1000);
  if (!Number.isFinite(left)) return "";
  if (left <= 0) return "a moment";
  const [days, hours, minutes] = [Math.floor(left / 86400), Math.floor(left / 3600) % 24, Math.floor(left / 60) % 60];
  if (days) return hours ? `${days} d ${hours} h` : `${days} d`;
  if (hours) return minutes ? `${hours} h ${minutes} min` : `${hours} h`;
  return minutes ? `${minutes} min` : `${left} s`;
}
