// The console's API as the page uses it: one session cookie, JSON, one stream of events.

import { parse } from "/static/format.js";

/** status 0: no answer at all. */
export class Failure extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

async function ask(method, path, body) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
      cache: "no-store",
    });
  } catch {
    throw new Failure(0, "unreachable", "The console does not answer.");
  }
  const text = await answer.text();
  if (!answer.ok) throw failure(answer.status, text);
  return text ? parse(text) : {};
}

function failure(status, text) {
  try {
    const { code, message } = JSON.parse(text).error;
    return new Failure(status, String(code), String(message));
  } catch {
    return new Failure(status, "unexpected", `The console answered with status ${status}.`);
  }
}

const query = (parameters) => (parameters ? `?${new URLSearchParams(parameters)}` : "");

export const signIn = (token) => ask("POST", "/api/v1/session", { token });
export const signOut = () => ask("DELETE", "/api/v1/session");
export const session = () => ask("GET", "/api/v1/session");
export const status = () => ask("GET", "/api/v1/status");
export const providers = () => ask("GET", "/api/v1/providers");
export const requests = (parameters) => ask("GET", `/api/v1/requests${query(parameters)}`);
export const story = (id) => ask("GET", `/api/v1/requests/${encodeURIComponent(id)}`);

const RETRY_FIRST_MS = 500;
const RETRY_MOST_MS = 10_000;

/**
 * Follow the live events until `stop()`. handlers: {event: (data) => void}; onState: live, reconnecting.
 * onLost is asked, after each break, whether to go on: a session may have ended.
 */
export function follow(handlers, onState, onLost) {
  let source = null;
  let stopped = false;
  let wait = RETRY_FIRST_MS;

  function open() {
    if (stopped) return;
    source = new EventSource("/api/v1/live");
    source.onopen = () => {
      wait = RETRY_FIRST_MS;
      onState("live");
    };
    source.onerror = lost;
    for (const [name, handle] of Object.entries(handlers)) {
      source.addEventListener(name, (event) => handle(parse(event.data)));
    }
  }

  async function lost() {
    source.close(); // the browser's own retry cannot tell an ended session from a console that is coming back
    if (stopped) return;
    onState("reconnecting");
    const delay = wait;
    wait = Math.min(RETRY_MOST_MS, wait * 2);
    await new Promise((done) => setTimeout(done, delay));
    if (!stopped && (await onLost())) open();
  }

  open();
  return () => {
    stopped = true;
    source.close();
  };
}
