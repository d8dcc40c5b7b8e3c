/** The request's form. */

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { SWEEPS, chooseModel, chosenModel, example, fill, form } from "../form.js";
import { chosenFiles } from "../inputs.js";
import { PICTURES, SWEEP_MOST, cfgScale } from "../requests.js";
import { changed, state } from "../state.js";
import { choice, numberField, segments, textField } from "./field.js";
import { inputsView } from "./inputs.js";
import { lorasView } from "./loras.js";
import { sliders } from "./sliders.js";

/** @typedef {import("../api.js").Model} Model */

/** @type {[string, string][]} */
const MODES = [["generate", "Generate"], ["compare", "Compare"], ["sweep", "Sweep"]];
/** @type {Record<string, string>} */
const ABOUT_MODE = {
  generate: "One request.",
  compare: "The same seeds without guidance, with CFG, and with NAG, side by side.",
  sweep: "The same seeds while one of NAG's numbers grows, as a strip.",
};

/** @param {(event: Event) => void} submit */
export function formView(submit) {
  const model = chosenModel();
  if (model === undefined) return html`<p class="help">${state.notice ? "" : "Asking which models are served …"}</p>`;
  const noun = model.kind === "video" ? "Videos" : "Pictures";
  return html`
    <form @submit=${submit} @keydown=${submitByKey} novalidate aria-label="Request">
      ${segments("mode", "What to do", MODES)}
      <p class="help mode">${ABOUT_MODE[form.mode]}</p>
      ${textField("prompt", "Prompt", {
        placeholder: example(model).prompt, help: "references" in chosenFiles(model) ? "Say what becomes of it: “make it blue”." : "",
      })}
      ${textField("negative_prompt", "Negative prompt", {
        rows: 1, placeholder: example(model).negative_prompt, help: "What is to be kept out. Left empty, nothing is guided.",
      })}
      ${inputsView(model)}
      ${form.mode === "sweep" ? sweepFields() : nothing}
      <div class="row three">
        ${numberField("seed", "Seed", { placeholder: "any", min: 0, step: 1 })}
        ${numberField("num_inference_steps", "Steps", grid(model.num_inference_steps))}
        ${numberField("n", noun, { placeholder: PICTURES[model.kind], min: 1, max: 10, step: 1 })}
      </div>
      <div class="submit">
        <button type="submit" class="primary" title="Ctrl + Enter">${state.uploading ? "Uploading …" : Object.fromEntries(MODES)[form.mode]}</button>
        ${form.prompt === "" ? html`<button type="button" @click=${() => fill(example(model))}>Try an example</button>` : nothing}
        <button type="button" aria-expanded=${state.codeShown ? "true" : "false"} aria-controls="code" @click=${toggleCode}>As code</button>
      </div>
      ${state.models.length > 1 || state.refused.model ? modelField(model) : nothing}
      ${guidanceFields(model)}
      ${lorasView(model)}
      ${moreFields(model)}
    </form>
  `;
}

function toggleCode() {
  state.codeShown = !state.codeShown;
  changed();
}

/** @param {KeyboardEvent} event */
function submitByKey(event) {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    /** @type {HTMLFormElement} */ (event.currentTarget).requestSubmit();
  }
}

/** @param {import("../api.js").Range} range */
function grid(range) {
  return { placeholder: range.default, min: range.min, max: range.max, step: range.multiple ?? 1 };
}

/** @param {Model} model */
function modelField(model) {
  /** @type {[string, string][]} */
  const options = state.models.map((each) => [each.id, each.id]);
  form.model ||= model.id;
  return choice("model", "Model", options, chooseModel, model.description);
}

function sweepFields() {
  return html`
    <div class="row four">
      ${choice("sweep.over", "Number", Object.keys(SWEEPS).map((name) => [name, name]), (over) => {
        fill({ "sweep.over": over, "sweep.from": SWEEPS[over][0], "sweep.to": SWEEPS[over][1] });
      })}
      ${numberField("sweep.from", "From")}
      ${numberField("sweep.to", "To")}
      ${numberField("sweep.count", "Values", { min: 2, max: SWEEP_MOST, step: 1 })}
    </div>
  `;
}

/** @param {Model} model */
function guidanceFields(model) {
  const { max } = model.guidance_scale;
  /** @type {[string, string][]} */
  const ways = [["nag", "NAG"], ["cfg", "CFG"], ["both", "both"], ["none", "none"]];
  const possible = ways.filter(([way]) => (way !== "cfg" && way !== "both") || max > 1)
    .filter(([way]) => (way !== "nag" && way !== "both") || model.nag !== null);
  if (!possible.some(([way]) => way === form.guidance)) form.guidance = possible[0][0];
  const choosing = form.mode === "generate";
  const cfg = max > 1 && (form.mode === "compare" || (choosing && ["cfg", "both"].includes(form.guidance)));
  const nag = model.nag !== null && (!choosing || ["nag", "both"].includes(form.guidance));
  return html`
    <details
      class="guidance" ?open=${state.guidanceShown || Object.keys(state.refused).some((name) => name.startsWith("nag.") || name === "guidance_scale")}
      @toggle=${(/** @type {any} */ event) => { state.guidanceShown = event.target.open; }}
    >
      <summary>Guidance</summary>
      ${choosing ? segments("guidance", "The negative prompt is obeyed by", possible) : nothing}
      ${cfg ? numberField("guidance_scale", "CFG scale", {
        min: model.guidance_scale.min, max, placeholder: cfgScale({ ...form, guidance_scale: "" }, model),
        help: "Classifier-free guidance: a second denoiser call at every step. Few-step models bear little of it.",
      }) : nothing}
      ${nag ? sliders(model) : nothing}
    </details>
  `;
}

/** @param {Model} model */
function moreFields(model) {
  /** @type {[string, string, import("../api.js").Range | null][]} */
  const all = [
    ["width", "Width (px)", model.width], ["height", "Height (px)", model.height],
    ["num_frames", "Frames", model.num_frames], ["fps", "Frames a second", model.fps],
  ];
  const fields = all.filter(([name, , range]) => range !== null && (range.min < range.max || state.refused[name]));
  if (fields.length === 0) return nothing;
  const needed = fields.some(([name]) => form[name] !== "" || state.refused[name]);
  return html`
    <details ?open=${needed}>
      <summary>Size${model.kind === "video" ? " and length" : ""}</summary>
      <div class="row two">${fields.map(([name, label, range]) => numberField(name, label, grid(/** @type {any} */ (range))))}</div>
    </details>
  `;
}
