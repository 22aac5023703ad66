// The live table: new rows at the top, prices filled in where they stand, at most 200 kept.

import { announce, byId, h, hideTip, setText } from "/static/dom.js";
import { count } from "/static/format.js";
import { cells, headCells } from "/static/row.js";
import { searchable } from "/static/outcome.js";
import { welcome } from "/static/welcome.js";
import { TOKEN_CLASSES } from "/static/hour.js";

const KEPT = 200;
const LEFT_MS = 200;
const CALM = 8; // rows in one frame that still slide in; a burst just appears

/** Newer first; two of the same microsecond by their id. */
const newer = (a, b) => (a.received_at === b.received_at ? a.request_id > b.request_id : a.received_at > b.received_at);

export class RequestTable {
  /** open: (request id) => void */
  constructor(open) {
    this._open = open;
    this._entries = new Map(); // request id → {item, row, text}
    this._order = []; // entries, newest first
    this._waiting = new Map(); // request id → item, while paused
    this._dirty = new Map(); // request id → item, until the next frame
    this._frame = 0;
    this._pressed = this._resting = false;
    this._loaded = false;
    this._terms = [];
    this._names = new Map();
    this._edge = "";
    this._rows = byId("rows");
    byId("grid-head").replaceChildren(...headCells());
    byId("legend").replaceChildren(...TOKEN_CLASSES.map(([, label, short]) => h("span", {}, h("i", { class: `fill-${short}` }), label.replace("write", "cache write").replace(/^read$/, "cache read"))));
    this._listen();
  }

  /** Where the gateway listens, for the first steps of an empty table. */
  edge(url) {
    if (url === this._edge) return;
    this._edge = url;
    const box = byId("welcome");
    if (!box.hidden) box.replaceChildren(...welcome(url));
  }

  /** Budgets by id, for the names in refusals. */
  names(names) {
    const known = this._names.size;
    this._names = names;
    if (!known && names.size) for (const entry of this._order) this._draw(entry);
  }

  /** A request as it is known now. */
  tell(item) {
    const before = this._dirty.get(item.request_id) ?? this._waiting.get(item.request_id) ?? this._entries.get(item.request_id)?.item;
    if (before?.priced && !item.priced) return; // an older page of the log, told later
    this._dirty.set(item.request_id, item);
    this._frame ||= requestAnimationFrame(() => this._flush());
  }

  /** The log has been read once: from now on an empty table means that there was nothing. */
  loaded() {
    this._loaded = true;
    this._frame ||= requestAnimationFrame(() => this._flush());
  }

  clear() {
    for (const map of [this._entries, this._waiting, this._dirty]) map.clear();
    this._order = [];
    this._loaded = false;
    this._rows.replaceChildren();
    this._state();
  }

  _flush() {
    this._frame = 0;
    const fresh = [];
    for (const [id, item] of this._dirty) {
      const entry = this._entries.get(id);
      if (entry) this._draw(Object.assign(entry, { item }));
      else if (this._paused()) this._waiting.set(id, item);
      else fresh.push(item);
    }
    this._dirty.clear();
    while (this._waiting.size > KEPT) this._waiting.delete(this._waiting.keys().next().value);
    this._insert(fresh, this._loaded && fresh.length <= CALM);
    this._state();
  }

  _insert(items, slide) {
    for (const item of items) {
      if (this._order.length >= KEPT && !newer(item, this._order.at(-1).item)) continue;
      const entry = { item, row: this._row(item.request_id), text: "" };
      const place = this._order.findIndex((other) => newer(item, other.item));
      const at = place < 0 ? this._order.length : place;
      this._rows.insertBefore(entry.row, this._order[at]?.row ?? null);
      this._order.splice(at, 0, entry);
      this._entries.set(item.request_id, entry);
      this._draw(entry);
      if (slide) entry.row.classList.add("arriving");
      if (slide && item.verdict === "refused") announce(`Refused: ${item.key}, ${item.model}`);
    }
    while (this._order.length > KEPT) this._drop(this._order.pop());
    this._rove();
  }

  _row(id) {
    const row = h("div", { class: "row", role: "row", tabindex: "-1", "data-id": id });
    row.addEventListener("animationend", () => row.classList.remove("arriving"));
    return row;
  }

  _drop(entry) {
    this._entries.delete(entry.item.request_id);
    entry.row.remove();
  }

  _draw(entry) {
    entry.text = searchable(entry.item, this._names);
    entry.row.replaceChildren(...cells(entry.item, this._names));
    entry.row.dataset.verdict = entry.item.verdict;
    this._filter(entry);
  }

  _filter(entry) {
    entry.row.hidden = !this._terms.every((term) => entry.text.includes(term));
  }

  _paused() {
    return this._pressed || this._resting;
  }

  _resume() {
    if (this._paused() || !this._waiting.size) return this._state();
    const items = [...this._waiting.values()];
    this._waiting.clear();
    this._insert(items, items.length <= CALM);
    this._state();
  }

  /** Everything around the rows: how many wait, what to say when none is shown. */
  _state() {
    const waiting = this._waiting.size;
    const fresh = byId("fresh");
    fresh.hidden = !waiting;
    if (waiting) setText(fresh, `${count(waiting)}${waiting >= KEPT ? " or more" : ""} new`);
    const empty = this._loaded && !this._order.length && !waiting;
    const shown = this._order.some((entry) => !entry.row.hidden);
    byId("grid").hidden = empty;
    byId("legend").hidden = empty;
    const box = byId("welcome");
    if (empty && box.hidden) box.replaceChildren(...welcome(this._edge));
    box.hidden = !empty;
    const none = byId("none");
    none.hidden = empty || shown || !this._loaded;
    if (!none.hidden) setText(none, `None of the last ${count(this._order.length)} requests matches.`);
    byId("grid").setAttribute("aria-rowcount", String(this._order.length + 1));
  }

  // Exactly one row can be reached by Tab; the arrows go on from there.
  _rove(target = null) {
    const current = this._rows.querySelector('[tabindex="0"]');
    const next = target ?? current ?? this._order.find((entry) => !entry.row.hidden)?.row;
    if (current && current !== next) current.tabIndex = -1;
    if (next) next.tabIndex = 0;
    if (target) target.focus();
  }

  _listen() {
    const pause = byId("pause");
    pause.addEventListener("click", () => {
      this._pressed = !this._pressed;
      pause.setAttribute("aria-pressed", String(this._pressed));
      setText(pause, this._pressed ? "Resume" : "Pause");
      this._resume();
    });
    byId("fresh").addEventListener("click", () => {
      if (this._pressed) pause.click();
      this._resting = false;
      this._resume();
      byId("requests-scroll").scrollTop = 0;
    });
    byId("filter").addEventListener("input", (event) => {
      this._terms = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const entry of this._order) this._filter(entry);
      this._state();
    });
    this._rows.addEventListener("pointerenter", (event) => this._rest(event.pointerType === "mouse"));
    this._rows.addEventListener("pointerleave", () => this._rest(false));
    this._rows.addEventListener("click", (event) => this._chosen(event.target));
    this._rows.addEventListener("keydown", (event) => this._key(event));
    byId("requests-scroll").addEventListener("scroll", hideTip, { passive: true });
    document.addEventListener("keydown", (event) => {
      if (event.key !== "/" || event.target.closest("input, dialog") || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      byId("filter").focus();
    });
  }

  /** A row must not move away under the pointer. It counts as gone after a moment: a row drawn anew sends leave and enter. */
  _rest(resting) {
    clearTimeout(this._leaving);
    if (resting) this._resting = true;
    else
      this._leaving = setTimeout(() => {
        this._resting = false;
        this._resume();
      }, LEFT_MS);
  }

  _chosen(target) {
    const row = target.closest(".row");
    if (!row || getSelection()?.toString()) return; // somebody copies a name
    this._rove(row);
    this._open(row.dataset.id);
  }

  _key(event) {
    const rows = this._order.filter((entry) => !entry.row.hidden).map((entry) => entry.row);
    const at = rows.indexOf(event.target.closest(".row"));
    const to = { ArrowDown: at + 1, j: at + 1, ArrowUp: at - 1, k: at - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (event.key === "Enter" || event.key === " ") this._open(rows[at]?.dataset.id);
    else if (to === undefined || event.ctrlKey || event.metaKey) return;
    else if (rows[to]) this._rove(rows[to]);
    event.preventDefault();
  }
}
