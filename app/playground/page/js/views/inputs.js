/** The files that the request starts from: chosen, dropped, pasted, or picked among the results. */

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { INPUTS, addInputs, chosenFiles, hasStrength, labelOf, limitOf, removeInput } from "../inputs.js";
import { address } from "../pictures.js";
import { state } from "../state.js";
import { idOf, notes, numberField } from "./field.js";

/**
 * @typedef {import("../api.js").Model} Model
 * @typedef {import("../inputs.js").InputFile} InputFile
 */

/** Kinds of files that browsers on some systems do not know as images or videos are named by their suffix. */
const IMAGES = "image/*,.heic,.heif,.avif";
const VIDEOS = "video/mp4,video/quicktime,video/webm,.mkv";

/** @param {Model} model */
export function inputsView(model) {
  const files = chosenFiles(model);
  const fields = INPUTS.filter(([field]) => limitOf(model, field) > 0 && (field !== "mask" || "image" in files));
  if (fields.length === 0) return nothing;
  return html`
    <fieldset class="inputs">
      <legend>Start from</legend>
      ${fields.map(([field]) => slot(model, field))}
      ${hasStrength(files) ? numberField("strength", "Strength", {
        min: 0, max: 1, placeholder: 0.75, help: "The share of the steps that is run on it. 1 keeps least of it.",
      }) : nothing}
    </fieldset>
  `;
}

/** @param {Model} model @param {string} field */
function slot(model, field) {
  const most = limitOf(model, field);
  const refused = Boolean(state.refused[field]);
  const help = [
    field === "mask" ? "A file that is transparent where the image is to change." : "",
    most > 1 ? `Up to ${most}.` : "", model.inputs[field]?.required ? "This model needs it." : "", "Choose, drop or paste.",
  ].filter(Boolean).join(" ");
  return html`
    <div class="field input" data-input=${field}>
      <input
        type="file" class="unseen" id=${idOf(field)} accept=${field === "video" ? VIDEOS : IMAGES} ?multiple=${most > 1}
        aria-invalid=${refused ? "true" : "false"} aria-describedby="${idOf(field)}-help ${refused ? `${idOf(field)}-error` : ""}"
        @change=${(/** @type {any} */ event) => choose(model, field, event.target)}
      >
      <label for=${idOf(field)}>${labelOf(field)}</label>
      ${shown(field, state.inputs[field] ?? [], (file) => html`
        <button type="button" class="remove" aria-label="Remove ${file.name} from ${labelOf(field)}" @click=${() => {
          removeInput(field, file);
          document.getElementById(idOf(field))?.focus();
        }}>×</button>
      `)}
      ${notes(field, help)}
    </div>
  `;
}

/** Small copies of files, with something beside each. @param {string} field @param {InputFile[]} files @param {(file: InputFile) => unknown} beside */
export function shown(field, files, beside = () => nothing) {
  if (files.length === 0) return nothing;
  return html`<ul class="files">${files.map((file) => html`<li>${copy(field, file)}${beside(file)}</li>`)}</ul>`;
}

/** @param {string} field @param {InputFile} file */
function copy(field, file) {
  const name = `${labelOf(field)}: ${file.name}`;
  return file.blob.type.startsWith("video/")
    ? html`<video src=${address(file.blob)} aria-label=${name} muted playsinline preload="metadata"></video>`
    : html`<img src=${address(file.blob)} alt=${name}>`;
}

/** @param {Model} model @param {string} field @param {HTMLInputElement} input */
function choose(model, field, input) {
  addInputs(model, filesOf(input.files), field);
  input.value = ""; // so that the same file can be chosen again
}

/** @param {FileList | null | undefined} list */
export function filesOf(list) {
  return Array.from(list ?? [], (file) => ({ name: file.name, blob: file }));
}
