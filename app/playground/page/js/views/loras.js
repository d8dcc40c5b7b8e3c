/** The LoRAs that the model takes: which ones, and how strong. */

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { live } from "../../vendor/lit-html/directives/live.js";
import { fill, form } from "../form.js";
import { LORAS_MOST, loraTexts } from "../loras.js";
import { state } from "../state.js";
import { idOf, notes } from "./field.js";

/** @param {import("../api.js").Model} model */
export function lorasView(model) {
  const loras = state.loras.filter((lora) => model.loras.includes(lora.id));
  const chosen = loraTexts(form);
  if (loras.length === 0) return nothing;
  return html`
    <details ?open=${Object.keys(chosen).length > 0 || state.refused.loras}>
      <summary>LoRAs</summary>
      <fieldset class="loras" id=${idOf("loras")} tabindex="-1">
        <legend class="unseen">LoRAs</legend>
        ${loras.map((lora) => choice(lora, chosen))}
        ${notes("loras", `Up to ${LORAS_MOST}. The number is the weight.`)}
      </fieldset>
    </details>
  `;
}

/** @param {import("../api.js").Lora} lora @param {Record<string, string>} chosen by id, the weight as it was typed */
function choice(lora, chosen) {
  const isChosen = lora.id in chosen;
  const about = [lora.description, lora.trigger_words.length ? `Say: ${lora.trigger_words.join(", ")}.` : ""].filter(Boolean);
  return html`
    <div class="lora">
      <label>
        <input type="checkbox" .checked=${live(isChosen)} @change=${(/** @type {any} */ event) => {
          const { [lora.id]: _, ...others } = loraTexts(form);
          choose(event.target.checked ? { ...others, [lora.id]: "" } : others);
        }}>
        <span>${lora.id}</span>
      </label>
      ${isChosen ? html`<input
        type="number" inputmode="decimal" autocomplete="off" aria-label="Weight of ${lora.id}"
        placeholder=${lora.scale.default} min=${lora.scale.min} max=${lora.scale.max} step="any"
        .value=${live(chosen[lora.id])}
        @input=${(/** @type {any} */ event) => choose({ ...loraTexts(form), [lora.id]: event.target.value })}
      >` : nothing}
      ${about.length ? html`<p class="help">${about.join(" ")}</p>` : nothing}
    </div>
  `;
}

/** @param {Record<string, string>} texts */
function choose(texts) {
  fill({ loras: Object.keys(texts).length ? JSON.stringify(texts) : "" });
}
