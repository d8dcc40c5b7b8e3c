/** Where the API key is typed in, on a server that asks for one. */

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { forgetKey, key, useKey } from "../key.js";
import { state } from "../state.js";

/** @param {() => void} retry */
export function keyView(retry) {
  if (!state.key.asked || (key() !== null && !state.key.refused)) return nothing;
  return html`
    <form class="notice key" @submit=${(/** @type {SubmitEvent} */ event) => submit(event, retry)} aria-label="API key">
      <label for="api-key">This server asks for an API key</label>
      <div class="beside">
        <input
          type="password" id="api-key" name="key" autocomplete="off" required
          aria-invalid=${state.key.refused ? "true" : "false"} aria-describedby="api-key-help"
        >
        <button type="submit" class="primary">Use it</button>
      </div>
      <p id="api-key-help" class=${state.key.refused ? "refused" : "help"}>
        ${state.key.refused ? "The server does not know this key." : "Kept until this tab is closed, and sent to this server alone."}
      </p>
    </form>
  `;
}

export function keyState() {
  if (key() === null || state.key.refused) return nothing;
  return html`API key in use <button type="button" class="quiet" @click=${forget}>forget it</button>`;
}

/** @param {SubmitEvent} event @param {() => void} retry */
function submit(event, retry) {
  event.preventDefault();
  const input = /** @type {HTMLInputElement} */ (document.getElementById("api-key"));
  if (input.value.trim() === "") return;
  useKey(input.value.trim());
  retry();
}

function forget() {
  forgetKey();
  location.reload();
}
