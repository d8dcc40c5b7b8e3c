/** The run that is shown: its pictures as they come, what was really done, and how to stop it. */

import { html, nothing, svg } from "../../vendor/lit-html/lit-html.js";
import { repeat } from "../../vendor/lit-html/directives/repeat.js";
import { ended } from "../cells.js";
import { getResult } from "../api.js";
import { chosenModel, fill } from "../form.js";
import { addInputs, takes } from "../inputs.js";
import { address, here, source } from "../pictures.js";
import { cancel, running } from "../runs.js";
import { changed, say, state } from "../state.js";
import { shown } from "./inputs.js";

/**
 * @typedef {import("../runs.js").Run} Run
 * @typedef {import("../cells.js").Cell} Cell
 */

/** Below this a picture is enlarged with its pixels left sharp. */
const SMALL_PX = 128;

export function resultsView() {
  const run = state.run;
  if (run === null) return empty();
  const going = running(run);
  return html`
    <header class="asked">
      <h2>${run.form.prompt || "(no prompt)"}</h2>
      ${run.form.negative_prompt ? html`<p class="negative"><span class="unseen">Negative prompt: </span>${run.form.negative_prompt}</p>` : nothing}
      <p class="facts">${facts(run)}</p>
      ${Object.entries(run.inputs ?? {}).map(([field, files]) => shown(field, files))}
      <div class="actions">
        ${going ? html`<button type="button" class="stop" @click=${() => cancel(run)}>Cancel</button>` : nothing}
        <button type="button" @click=${() => useAgain(run)}>Use these settings</button>
      </div>
    </header>
    <div class="cells ${run.mode}" data-count=${run.cells.length} aria-busy=${going ? "true" : "false"}>
      ${repeat(run.cells, (cell) => cell.key, (cell) => cellView(run, cell))}
    </div>
  `;
}

function empty() {
  return html`
    <div class="empty">
      <h2>Say what you do not want</h2>
      <p>
        Few-step models ignore negative prompts: they run without classifier-free guidance. Normalized Attention Guidance puts the
        negative prompt into the attention layers instead, so that it holds at four steps as well.
      </p>
      <p><b>Compare</b> shows the same seeds without guidance, with CFG and with NAG.</p>
    </div>
  `;
}

/** @param {Run} run */
function useAgain(run) {
  state.inputs = run.inputs ?? {};
  fill(run.form);
}

/** @param {Run} run */
function facts(run) {
  const job = run.cells.find((cell) => cell.job !== null)?.job;
  const parts = [run.model.id];
  if (job) parts.push(`${job.request.num_inference_steps} steps`, `${job.request.width} × ${job.request.height} px`);
  return parts.join(" · ");
}

/** @param {Run} run @param {Cell} cell */
function cellView(run, cell) {
  const heading = cell.label
    ? html`<h3>${cell.label}${cell.what ? html` <small>${cell.what}</small>` : nothing}</h3>`
    : nothing;
  return html`
    <section class="cell" aria-label=${cell.label || "Result"}>
      ${heading}
      ${cell.body === null ? html`<p class="why">${cell.why}</p>` : [failure(cell), warnings(cell), progress(cell), outputs(run, cell), used(cell)]}
    </section>
  `;
}

/** @param {Cell} cell */
function failure(cell) {
  const error = cell.error ?? cell.job?.error;
  if (error) return html`<p class="refused">${error.message}</p>`;
  if (cell.stopped || cell.job?.status === "cancelled") return html`<p class="why">Cancelled.</p>`;
  if (cell.job?.status === "expired") return html`<p class="why">No longer kept by the server.</p>`;
  return nothing;
}

/** @param {Cell} cell */
function warnings(cell) {
  // Previews are this page's own wish.
  return (cell.job?.warnings ?? []).filter((each) => !each.startsWith("previews:")).map((each) => html`<p class="warning">${each}</p>`);
}

/** @param {Cell} cell */
function progress(cell) {
  if (ended(cell)) return nothing;
  const { step, steps } = cell.job?.progress ?? { step: 0, steps: 1 };
  const queued = cell.job?.status !== "in_progress";
  const text = cell.job === null ? "sending" : queued ? "queued" : `step ${step} of ${steps}`;
  const label = `Progress${cell.label ? ` of ${cell.label}` : ""}`;
  return html`
    <p class="progress">
      ${queued ? html`<progress aria-label=${label} max="1" value="0"></progress>` : html`<progress aria-label=${label} max=${steps} value=${step}></progress>`}
      <span>${text}</span>
    </p>
  `;
}

/** @param {Run} run @param {Cell} cell */
function outputs(run, cell) {
  const job = cell.job;
  if (ended(cell) && job?.status !== "completed") {
    return cell.thumbnail ? html`<ul class="outputs"><li>${picture(address(cell.thumbnail), alt(run, cell, job?.seed), 0)}</li></ul>` : nothing;
  }
  const count = job?.outputs.length || cell.body?.n || 1;
  return html`<ul class="outputs">
    ${Array.from({ length: count }, (_, index) => html`<li>${job?.status === "completed" ? output(run, cell, index) : blank(run, cell, index)}</li>`)}
  </ul>`;
}

/** @param {Run} run @param {Cell} cell @param {number} index */
function blank(run, cell, index) {
  const preview = cell.previews[index];
  if (preview) return html`<img class="preview" src=${address(preview)} alt="Preview">`;
  const { width, height } = run.cells.find((each) => each.job)?.job?.request ?? { width: 1, height: 1 };
  return html`<svg class="blank" viewBox="0 0 ${width} ${height}" aria-hidden="true">${svg`<rect width="100%" height="100%"></rect>`}</svg>`;
}

/** @param {Run} run @param {Cell} cell @param {number} index */
function output(run, cell, index) {
  const job = /** @type {import("../api.js").Job} */ (cell.job);
  const { media_type: kind, seed } = job.outputs[index];
  const url = source(job, index);
  const text = alt(run, cell, seed);
  const name = `${job.id}-${index}.${kind.split("/")[1]}`;
  const model = chosenModel();
  return html`
    <figure>
      ${kind.startsWith("video/") ? video(url, text, job.outputs[index].thumbnail_url) : picture(url, text, job.request.width)}
      <figcaption>
        <span>seed ${seed}</span>
        <span class="quiet-actions">
          <button type="button" class="quiet" aria-label="Use seed ${seed}" @click=${() => fill({ seed: String(seed) })}>use</button>
          ${model !== undefined && takes(model, kind) ? html`
            <button type="button" class="quiet" aria-label="Start from ${text}" @click=${() => startFrom(model, job, index, name)}>start from</button>
          ` : nothing}
          <a href=${url || nothing} download=${name} aria-label="Save ${text}">save</a>
        </span>
      </figcaption>
    </figure>
  `;
}

/** @param {import("../api.js").Model} model @param {import("../api.js").Job} job @param {number} index @param {string} name */
async function startFrom(model, job, index, name) {
  try {
    addInputs(model, [{ name, blob: await getResult(job.id, index) }]);
  } catch (error) {
    state.notice = /** @type {Error} */ (error).message;
    say(state.notice);
    changed();
  }
}

/** @param {string} url @param {string} text @param {number} widthPx */
function picture(url, text, widthPx) {
  const image = html`<img class=${widthPx && widthPx <= SMALL_PX ? "small" : ""} src=${url || nothing} alt=${text}>`;
  return url ? html`<a href=${url} target="_blank" title="Open alone">${image}</a>` : image;
}

/** @param {string} url @param {string} text @param {string | null | undefined} poster */
function video(url, text, poster) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  return html`<video
    src=${url || nothing} poster=${poster && here(poster) ? poster : nothing} aria-label=${text} controls loop playsinline preload="auto"
    .muted=${true} ?autoplay=${!calm}
  ></video>`;
}

/** @param {Run} run @param {Cell} cell @param {number | undefined} seed */
function alt(run, cell, seed) {
  return [run.form.prompt, cell.label, seed === undefined ? "" : `seed ${seed}`].filter(Boolean).join(", ");
}

/** What was really done. @param {Cell} cell */
function used(cell) {
  const job = cell.job;
  if (job?.status !== "completed" || job.timings === null || job.nag === null) return nothing;
  const { nag, timings } = job;
  const guidance = nag.applied
    ? `NAG s ${nag.scale}, τ ${nag.tau}, α ${nag.alpha}, θ ${nag.end}${nag.scale_decay ? `, ↘ ${nag.scale_decay}` : ""}${nag.start ? `, ⊢ ${nag.start}` : ""}`
    : `no NAG (${(nag.reason ?? "").replaceAll("_", " ")})`;
  const cfg = job.request.guidance_scale > 1 ? `, CFG ${job.request.guidance_scale}` : "";
  return html`
    <details class="used">
      <summary>${seconds(timings.total_ms)}</summary>
      <dl>
        <dt>Guidance</dt><dd>${guidance}${cfg}</dd>
        <dt>Queue</dt><dd>${seconds(timings.queue_ms)}</dd>
        <dt>Denoise</dt><dd>${seconds(timings.denoise_ms)}</dd>
        <dt>Decode</dt><dd>${seconds(timings.decode_ms)}</dd>
        <dt>Joined</dt><dd>${job.batch_size}</dd>
        <dt>Worker</dt><dd>${job.worker}</dd>
        <dt>Job</dt><dd><code>${job.id}</code></dd>
      </dl>
    </details>
  `;
}

/** @param {number} ms */
function seconds(ms) {
  return ms < 9950 ? `${(ms / 1000).toFixed(2)} s` : `${Math.round(ms / 1000)} s`;
}
