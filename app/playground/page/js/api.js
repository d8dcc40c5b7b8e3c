/** The HTTP API of this server: one function a request, and its one error. */

import { key, keyRefused } from "./key.js";

/**
 * @typedef {{default: number, min: number, max: number, multiple: number | null, offset: number | null}} Range
 * @typedef {{scale: number, tau: number, alpha: number, end: number, scale_decay: number, start: number}} Numbers
 * @typedef {{
 *   id: string, description: string, kind: "image" | "video", default: boolean,
 *   num_inference_steps: Range, guidance_scale: Range, width: Range, height: Range,
 *   num_frames: Range | null, fps: Range | null, prompt_max_chars: number, prompt_max_tokens: number | null,
 *   inputs: Record<string, {required: boolean, max: number} | null>, nag_supported: boolean, nag: Numbers | null, loras: string[],
 *   alias_of?: string,
 * }} Model
 * @typedef {{id: string, description: string, trigger_words: string[], scale: Range}} Lora
 * @typedef {{url: string, thumbnail_url?: string | null, media_type: string, size_bytes: number, seed: number}} Output
 * @typedef {{
 *   id: string, status: "queued" | "in_progress" | "completed" | "failed" | "cancelled" | "expired",
 *   progress: {step: number, steps: number}, seed: number,
 *   request: {width: number, height: number, n: number, num_inference_steps: number, guidance_scale: number},
 *   nag: ({applied: boolean, reason: string | null} & Partial<Numbers>) | null,
 *   batch_size: number | null, attempts: number, worker: string | null,
 *   timings: {queue_ms: number, encode_ms: number, denoise_ms: number, decode_ms: number, total_ms: number} | null,
 *   warnings: string[], outputs: Output[], error: {code: string, message: string} | null,
 * }} Job
 */

export class ApiError extends Error {
  /** @param {number} status @param {{message: string, param: string | null, code: string}} said @param {number | null} retryAfterS */
  constructor(status, said, retryAfterS = null) {
    super(said.message);
    this.status = status;
    this.param = said.param;
    this.code = said.code;
    this.retryAfterS = retryAfterS;
  }
}

/**
 * Raises ApiError.
 * @param {string} method @param {string} path relative to this page
 * @param {{body?: unknown, headers?: Record<string, string>, signal?: AbortSignal}} [how] a body is a form, or sent as JSON
 */
export async function request(method, path, { body, headers = {}, signal } = {}) {
  const secret = key();
  const sent = { ...headers };
  if (secret !== null) sent.authorization = `Bearer ${secret}`;
  const isForm = body instanceof FormData;
  if (body !== undefined && !isForm) sent["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method, headers: sent, signal, cache: "no-store", credentials: "omit",
      body: body === undefined || isForm ? body : JSON.stringify(body),
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, { message: "The server cannot be reached.", param: null, code: "unreachable" });
  }
  if (response.ok) return response;
  if (response.status === 401) keyRefused();
  throw await refusal(response);
}

/** @param {string} method @param {string} path @param {{body?: unknown, headers?: Record<string, string>}} [how] */
async function json(method, path, how) {
  return (await request(method, path, how)).json();
}

/** @param {Response} response */
async function refusal(response) {
  const retryAfterS = Number(response.headers.get("retry-after")) || null;
  const said = await response.json().then((body) => body.error, () => null);
  const unknown = { message: `The server answered ${response.status}.`, param: null, code: "unknown" };
  return new ApiError(response.status, said ?? unknown, retryAfterS);
}

/** The models, without their aliases. @returns {Promise<Model[]>} */
export async function listModels() {
  return (await json("GET", "v1/models")).data.filter((/** @type {Model} */ model) => model.alias_of === undefined);
}

/** @returns {Promise<Lora[]>} */
export async function listLoras() {
  return (await json("GET", "v1/loras")).data;
}

/** Uploads a file that requests start from. @param {Blob} blob @param {string} name @returns {Promise<string>} its id */
export async function addFile(blob, name) {
  const body = new FormData();
  body.append("file", blob, name);
  return (await json("POST", "v1/files", { body })).id;
}

/** @param {string} id */
export async function deleteFile(id) {
  await request("DELETE", `v1/files/${id}`);
}

/** @param {unknown} body @param {string} idempotencyKey @returns {Promise<Job>} */
export function createJob(body, idempotencyKey) {
  return json("POST", "v1/jobs", { body, headers: { "idempotency-key": idempotencyKey } });
}

/** @param {string} id @returns {Promise<Job>} */
export function getJob(id) {
  return json("GET", `v1/jobs/${id}`);
}

/** @param {string} id @returns {Promise<Job>} */
export function cancelJob(id) {
  return json("POST", `v1/jobs/${id}/cancel`);
}

/** @param {string} id @param {number} index */
export async function getResult(id, index) {
  return (await request("GET", `v1/jobs/${id}/result?index=${index}`)).blob();
}

/** @returns {Promise<{model: string, queued: number, workers: number, wait_s: number | null}[]>} */
export async function getQueue() {
  return (await json("GET", "v1/queue")).data;
}
