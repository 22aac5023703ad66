// What stands in the place of the requests while there are none: how to send the first.

import { h } from "/static/dom.js";

/** base: where the gateway listens, as the console was told; "" when it was not. */
export function welcome(base) {
  const lines = [`export ANTHROPIC_BASE_URL=${base || "<the gateway's address>/anthropic"}`, "export ANTHROPIC_AUTH_TOKEN=<a virtual key>"];
  const code = h("pre", { tabindex: "0", "aria-label": "Lines for your shell" }, h("code", {}, `${lines.join("\n")}\nclaude -p "Say hello"`));
  return [
    h("h3", {}, "No request has come yet"),
    h("p", {}, "Send the first with Claude Code, or anything that speaks the Anthropic API:"),
    h("div", { class: "code" }, code, copyButton(lines.join("\n"))),
    h(
      "p",
      { class: "hint" },
      h("code", {}, "sluicegate up"),
      " printed the first virtual key. More keys: ",
      h("code", {}, "sluicegate keys create"),
      ".",
    ),
  ];
}

function copyButton(text) {
  if (!navigator.clipboard) return null; // only on localhost and over HTTPS
  const button = h("button", { type: "button", class: "quiet" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not allowed";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  return button;
}
