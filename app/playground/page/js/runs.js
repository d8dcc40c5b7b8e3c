/** A run is what one press of the button asks for: some jobs of the same seeds, started, followed, taken up again. */

import { cancelJob, createJob, getJob } from "./api.js";
import { ended, follow } from "./cells.js";
import { removeUploads, upload } from "./inputs.js";
import { thumbnail } from "./pictures.js";
import { asked } from "./requests.js";
import { changed, say, state } from "./state.js";
import * as store from "./store.js";

/**
 * @typedef {import("./api.js").Job} Job
 * @typedef {import("./cells.js").Cell} Cell
 * @typedef {{
 *   id: string, at: number, mode: string, form: import("./form.js").Form, model: {id: string, kind: "image" | "video"}, cells: Cell[],
 *   inputs?: import("./inputs.js").InputFiles, uploads?: string[],
 * }} Run `uploads` are the ids of its files while it goes on
 */

const SEEDS = 2 ** 32;
const PREVIEWS = 3;
/** For this long a request that may not have arrived is sent again; its key keeps it from being done twice. */
const SEND_AGAIN_MS = 10 * 60 * 1000;

/**
 * Raises FormError.
 * @param {import("./form.js").Form} form @param {import("./api.js").Model} model @param {import("./inputs.js").InputFiles} inputs
 * @returns {Run}
 */
export function newRun(form, model, inputs) {
  // Compared are pictures of the same seeds; one request without a seed lets the server draw it.
  const drawn = form.mode !== "generate" && form.seed.trim() === "";
  const fields = { ...form, seed: drawn ? String(crypto.getRandomValues(new Uint32Array(1))[0] % SEEDS) : form.seed };
  return {
    id: id(), at: Date.now(), mode: form.mode, form: fields, model: { id: model.id, kind: model.kind }, inputs, uploads: [],
    cells: asked(fields, model, inputs).map((each) => ({
      ...each, body: each.body && watched(each.body, model), key: id(), job: null, stopped: false, error: null, previews: [], thumbnail: null,
    })),
  };
}

/** Asks for previews on the way, where there is a way. @param {Record<string, any>} body @param {import("./api.js").Model} model */
function watched(body, model) {
  const steps = body.num_inference_steps ?? model.num_inference_steps.default;
  return model.kind === "image" && steps > 1 ? { ...body, previews: Math.min(PREVIEWS, steps - 1) } : body;
}

/** @param {Run} run */
export function running(run) {
  return !run.cells.every(ended);
}

/** Shows the run once its first request is accepted; the rest goes on by itself. Raises ApiError. @param {Run} run */
export async function start(run) {
  const first = run.cells.find((cell) => cell.body !== null);
  if (first === undefined) return;
  try {
    await send(run);
    await store.keep(run); // before it is sent: a page that is loaded again finds it
    first.job = await createJob(first.body, first.key);
  } catch (error) {
    await store.drop(run.id);
    void removeUploads(run.uploads ?? []);
    throw error;
  }
  state.run = run;
  state.history = [run, ...state.history];
  for (const old of state.history.splice(store.MOST)) await store.drop(old.id);
  say(`${count(run)} queued`);
  changed();
  void go(run);
}

/** Uploads the run's files and names them in its requests. Raises ApiError. @param {Run} run */
async function send(run) {
  if (Object.keys(run.inputs ?? {}).length === 0) return;
  state.uploading = true;
  say("Uploading");
  changed();
  try {
    const fields = await upload(run.inputs ?? {}, (run.uploads ??= []));
    for (const cell of run.cells) cell.body = cell.body && { ...cell.body, ...fields };
  } finally {
    state.uploading = false;
    changed();
  }
}

/** Takes up what was under way when the page was left. @param {Run} run */
export async function resume(run) {
  const late = Date.now() - run.at > SEND_AGAIN_MS;
  for (const cell of run.cells) if (late && cell.job === null && cell.body !== null) cell.stopped = true;
  await go(run);
}

/** @param {Run} run */
async function go(run) {
  await store.keep(run);
  const were = run.cells.filter((cell) => !ended(cell));
  await Promise.all(were.map((cell) => see(run, cell)));
  if (were.length) say(summary(run));
  await removeUploads(run.uploads ?? []);
  run.uploads = [];
  await store.keep(run);
  changed();
}

/** @param {Run} run @param {Cell} cell */
async function see(run, cell) {
  try {
    cell.job ??= await createJob(cell.body, cell.key);
    await store.keep(run);
    if (cell.stopped) cell.job = await cancelJob(cell.job.id); // it was being sent when that was wished
    await follow(cell);
    if (cell.job.status === "completed") cell.thumbnail = await thumbnail(cell.job);
  } catch (error) {
    cell.error = told(error);
  }
  cell.previews = [];
  changed();
}

/** @param {Run} run */
export async function cancel(run) {
  await Promise.all(
    run.cells.filter((cell) => !ended(cell)).map(async (cell) => {
      if (cell.job === null) {
        cell.stopped = true;
        return;
      }
      try {
        cell.job = await cancelJob(cell.job.id);
      } catch (error) {
        state.notice = told(error).message;
      }
    }),
  );
  await store.keep(run);
  changed();
}

/** Shows an earlier run, with links that hold again. @param {Run} run */
export async function show(run) {
  state.run = run;
  state.notice = null;
  changed();
  await Promise.all(
    run.cells.filter((cell) => cell.job?.status === "completed").map(async (cell) => {
      const job = /** @type {Job} */ (cell.job);
      try {
        cell.job = await getJob(job.id);
      } catch (error) {
        if (/** @type {any} */ (error).status === 404) cell.job = { ...job, status: "expired" };
      }
    }),
  );
  changed();
}

/** @param {Run} run */
export async function forget(run) {
  state.history = state.history.filter((each) => each !== run);
  if (state.run === run) state.run = null;
  changed();
  await store.drop(run.id);
}

export async function forgetAll() {
  state.history = state.history.filter(running);
  if (state.run && !running(state.run)) state.run = null;
  changed();
  await store.dropAll();
  for (const run of state.history) await store.keep(run);
}

/** @param {Run} run */
function count(run) {
  const jobs = run.cells.filter((cell) => cell.body !== null).length;
  return jobs === 1 ? "1 request" : `${jobs} requests`;
}

/** @param {Run} run */
function summary(run) {
  const failed = run.cells.find((cell) => cell.error ?? cell.job?.error);
  if (failed) return `Failed: ${failed.error?.message ?? failed.job?.error?.message}`;
  const outputs = run.cells.flatMap((cell) => cell.job?.outputs ?? []).length;
  if (outputs === 0) return "Cancelled";
  const noun = run.model.kind === "video" ? "video" : "picture";
  return `Done: ${outputs} ${noun}${outputs === 1 ? "" : "s"}`;
}

/** @param {any} error */
function told(error) {
  return { message: String(error?.message ?? error), code: String(error?.code ?? "unknown") };
}

function id() {
  // Not randomUUID: browsers have that on https and localhost alone.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
