// Where requests go: each provider with the host that its traffic is sent to.

import { h } from "/static/dom.js";

const LOOPBACK = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/;

export function trafficOf(providers) {
  if (!providers.length) return [h("span", { class: "hint" }, "no provider yet")];
  return providers.map((provider) => {
    const { host, local } = target(provider.base_url);
    const note = local ? "On this machine: the simulator, or another server of yours" : "";
    return h(
      "span",
      { class: "target", title: [provider.base_url, note].filter(Boolean).join("\n") },
      h("b", {}, provider.name),
      h("span", { class: "arrow", "aria-hidden": "true" }, "→"),
      h("span", { class: "unseen" }, "goes to"),
      host,
      local ? h("span", { class: "flag" }, "this machine") : null,
    );
  });
}

function target(address) {
  try {
    const { host, hostname } = new URL(address);
    return { host, local: LOOPBACK.test(hostname) };
  } catch {
    return { host: address || "its own address", local: false };
  }
}
