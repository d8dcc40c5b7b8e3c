/** A cell is one request of a run, and its job: followed from when it is accepted to its end. */

import { getJob } from "./api.js";
import { events } from "./events.js";
import { changed } from "./state.js";

/**
 * @typedef {import("./api.js").Job} Job
 * @typedef {{
 *   label: string, what: string, why: string | null, body: Record<string, any> | null, key: string,
 *   job: Job | null, stopped: boolean, error: {message: string, code: string} | null, previews: (Blob | undefined)[], thumbnail: Blob | null,
 * }} Cell
 */

/** A browser opens six connections to a server; two tabs of this page still leave room for requests. */
const STREAMS = 2;
const POLL_MS = 700;
const SLOWEST_POLL_MS = 8000;
let streams = 0;

/** @param {Cell} cell */
export function ended(cell) {
  return cell.body === null || cell.stopped || cell.error !== null || (cell.job !== null && jobEnded(cell.job));
}

/** By its events, or by asking where too many are listened to already. Raises ApiError. @param {Cell} cell */
export async function follow(cell) {
  const job = /** @type {Job} */ (cell.job);
  const place = { after: /** @type {string | null} */ (null) };
  let failures = 0;
  while (!ended(cell)) {
    try {
      if (streams < STREAMS) await listen(cell, job.id, place);
      if (ended(cell)) return;
      cell.job = await getJob(job.id);
      failures = 0;
    } catch (error) {
      const status = /** @type {any} */ (error)?.status ?? 0;
      if (status >= 400 && status < 500 && status !== 401 && status !== 429) throw error;
      failures += 1; // away for a while; the job goes on
    }
    changed();
    if (!ended(cell)) await pause(Math.min(SLOWEST_POLL_MS, POLL_MS * 2 ** failures));
  }
}

/** @param {Cell} cell @param {string} jobId @param {{after: string | null}} place */
async function listen(cell, jobId, place) {
  streams += 1;
  try {
    for await (const event of events(jobId, place)) {
      take(cell, event);
      changed();
    }
  } finally {
    streams -= 1;
  }
}

/** @param {Cell} cell @param {{type: string, data: any}} event */
function take(cell, { type, data }) {
  const job = /** @type {Job} */ (cell.job);
  if (data.job) cell.job = data.job;
  else if (type === "queued") cell.job = { ...job, status: "queued", progress: { ...job.progress, step: 0 } };
  else if (type === "started") cell.job = { ...job, status: "in_progress", progress: { ...job.progress, step: 0 } };
  else if (type === "preview") cell.previews[data.preview.index] = picture(data.preview);
  else if (type === "progress") cell.job = { ...job, status: "in_progress", progress: data.progress };
}

/** @param {{media_type: string, b64_json: string}} preview */
function picture({ media_type: type, b64_json: text }) {
  return new Blob([Uint8Array.from(atob(text), (character) => character.charCodeAt(0))], { type });
}

/** @param {Job} job */
function jobEnded(job) {
  return job.status !== "queued" && job.status !== "in_progress";
}

/** @param {number} ms */
function pause(ms) {
  return new Promise((done) => setTimeout(done, ms));
}
