// The live page: signs in, follows the events, hands them to the panels.

import * as api from "/static/api.js";
import { announce, byId, setText } from "/static/dom.js";
import { BudgetPanel } from "/static/budgets.js";
import { Hour } from "/static/hour.js";
import { RequestTable } from "/static/requests.js";
import { SpendPanel } from "/static/spend.js";
import { Story } from "/static/story.js";
import { trafficOf } from "/static/traffic.js";

const HOUR_MS = 3_600_000;
const PAGE = 1000;
const MOST_PAGES = 20;
const TABLE = 200;
const STATUS_MS = 10_000;
const LOG_RETRY_MS = 5000;
const LOG_AGAIN_MS = 6000; // the log is a moment behind: what ended just before the page came may be in it only now
const LOG_EVERY_MS = 300_000;

const hour = new Hour();
const spend = new SpendPanel(hour);
const budgets = new BudgetPanel();
let budgetNames = new Map();
const story = new Story(() => budgetNames, () => history.replaceState(null, "", location.pathname));
const table = new RequestTable((id) => {
  history.replaceState(null, "", `#request=${encodeURIComponent(id)}`);
  story.open(id);
});

let stop = null; // ends the present session's work
const troubles = new Map(); // where from → sentence

function screen(state) {
  document.body.dataset.state = state;
  byId("sign-in").hidden = state !== "signed-out";
  byId("board").hidden = state !== "signed-in";
  byId("sign-out").hidden = state !== "signed-in";
  byId("connection").hidden = state !== "signed-in" && state !== "unreachable";
}

function connection(state) {
  const words = { live: "live", reconnecting: "reconnecting", off: "connecting" };
  const before = byId("connection").dataset.state;
  byId("connection").dataset.state = state;
  setText(byId("connection-word"), words[state] ?? state);
  if (before === "reconnecting" && state === "live") announce("Live again", true);
}

/** A sentence for as long as something is wrong; "" when it is well again. */
function trouble(from, sentence) {
  if (sentence) troubles.set(from, sentence);
  else troubles.delete(from);
  const box = byId("notice");
  box.hidden = !troubles.size;
  setText(box, [...troubles.values()].join(" "));
}

function asked(item) {
  hour.tell(item);
  table.tell(item);
}

function balances(told) {
  budgetNames = new Map(told.items.map((item) => [item.id, item]));
  budgets.tell(told.items);
  table.names(budgetNames);
  if (told.config_rev !== balances.rev) void traffic();
  balances.rev = told.config_rev;
}

async function traffic() {
  try {
    byId("traffic").replaceChildren(...trafficOf((await api.providers()).items));
  } catch (error) {
    if (!(error instanceof api.Failure)) throw error; // it only names the destination; the rest works without
  }
}

/** The log: the latest rows for the table, then the last hour for the figures. */
async function readLog(alive) {
  try {
    const latest = await api.requests({ limit: TABLE });
    if (!alive()) return;
    latest.items.forEach(asked);
    table.loaded();
    const from = new Date(Date.now() - HOUR_MS).toISOString();
    let { next_cursor: cursor, items } = latest;
    for (let page = 0; cursor && items.at(-1).received_at >= from && alive(); page += 1) {
      if (page >= MOST_PAGES) {
        hour.partial = true;
        break;
      }
      ({ items, next_cursor: cursor } = await api.requests({ limit: PAGE, from, cursor }));
      for (const item of items) hour.tell(item);
    }
    trouble("log", "");
  } catch (error) {
    if (!(error instanceof api.Failure)) throw error;
    if (!alive() || error.status === 401) return;
    trouble("log", "The request log does not answer: what came before this page was opened is missing until it does.");
    setTimeout(() => alive() && readLog(alive), LOG_RETRY_MS);
  }
}

async function readStatus() {
  try {
    const { services, edges, edge_url: edge } = await api.status();
    table.edge(edge);
    spend.inFlight(edges.length ? edges.reduce((sum, edge) => sum + edge.live, 0) : null);
    const down = services.filter((service) => service.state === "down").map((service) => service.name);
    trouble("status", down.length ? `Not answering: ${down.join(", ")}.` : "");
  } catch (error) {
    if (!(error instanceof api.Failure)) throw error;
    spend.inFlight(null);
  }
}

function draw() {
  const now = Date.now();
  spend.draw(now);
  budgets.draw(now);
}

/** Work for one session; returns what ends it. */
function work() {
  let running = true;
  const alive = () => running;
  const unfollow = api.follow(
    {
      request: asked,
      spend: (told) => spend.spend(told),
      balances,
      trouble: (told) => trouble("budget", told.service ? `${told.service} does not answer: balances may be old.` : ""),
    },
    (state) => {
      connection(state);
      if (state !== "live") return;
      void readLog(alive);
      setTimeout(() => alive() && readLog(alive), LOG_AGAIN_MS);
    },
    stillSignedIn,
  );
  void readStatus();
  void traffic();
  const timers = [setInterval(draw, 500), setInterval(readStatus, STATUS_MS), setInterval(readLog, LOG_EVERY_MS, alive)];
  draw();
  return () => {
    running = false;
    unfollow();
    timers.forEach(clearInterval);
  };
}

async function stillSignedIn() {
  try {
    await api.session();
    return true;
  } catch (error) {
    if (!(error instanceof api.Failure)) throw error;
    if (error.status !== 401 && error.status !== 403) return true; // it is coming back
    signedOut("Your session has ended. Sign in again.");
    return false;
  }
}

function signedIn() {
  stop?.();
  byId("token").value = "";
  screen("signed-in");
  stop = work();
  const id = /^#request=(.+)$/.exec(location.hash)?.[1];
  if (id) story.open(decodeURIComponent(id));
}

function signedOut(sentence = "") {
  stop?.();
  stop = null;
  story.close();
  for (const panel of [hour, table, spend, budgets]) panel.clear();
  budgets.draw(Date.now());
  byId("traffic").replaceChildren();
  for (const from of [...troubles.keys()]) trouble(from, "");
  screen("signed-out");
  setText(byId("token-error"), sentence);
  byId("token").focus();
}

async function submit(event) {
  event.preventDefault();
  const token = byId("token").value.trim();
  if (!token) return refuse("Type the admin token first.");
  byId("token-send").disabled = true;
  try {
    await api.signIn(token);
    setText(byId("token-error"), "");
    byId("token").removeAttribute("aria-invalid");
    signedIn();
  } catch (error) {
    if (!(error instanceof api.Failure)) throw error;
    refuse(error.status === 401 ? "This is not the admin token." : error.message);
  } finally {
    byId("token-send").disabled = false;
  }
}

function refuse(sentence) {
  setText(byId("token-error"), sentence);
  byId("token").setAttribute("aria-invalid", "true");
  byId("token").focus();
  byId("token").select();
}

async function start() {
  screen("starting");
  for (;;) {
    try {
      await api.session();
      return signedIn();
    } catch (error) {
      if (!(error instanceof api.Failure)) throw error;
      if (error.status === 401 || error.status === 403) return signedOut();
      screen("unreachable");
      connection("reconnecting");
      await new Promise((done) => setTimeout(done, 2000));
    }
  }
}

byId("sign-in-form").addEventListener("submit", submit);
byId("sign-out").addEventListener("click", async () => {
  try {
    await api.signOut();
    signedOut();
  } catch (error) {
    if (!(error instanceof api.Failure)) throw error;
    trouble("session", `Signing out failed: ${error.message}`);
  }
});
void start();
