/** A job's server-sent events. By fetch: an EventSource can send no key. */

import { request } from "./api.js";

/**
 * The events behind the one with the id `place.after`, which moves along; ends with the stream. Raises ApiError, and
 * TypeError where the connection breaks.
 * @param {string} jobId @param {{after: string | null}} place
 * @returns {AsyncGenerator<{type: string, data: any}>}
 */
export async function* events(jobId, place) {
  /** @type {Record<string, string>} */
  const headers = place.after === null ? {} : { "last-event-id": place.after };
  const response = await request("GET", `v1/jobs/${jobId}/events`, { headers });
  if (response.status === 204 || response.body === null) return;
  for await (const block of blocks(response.body)) {
    const event = parse(block);
    if (event.id !== null) place.after = event.id;
    if (event.data !== "") yield { type: event.type, data: JSON.parse(event.data) };
  }
}

/** What stands between two empty lines. @param {ReadableStream<Uint8Array>} stream */
async function* blocks(stream) {
  const reader = stream.pipeThrough(/** @type {any} */ (new TextDecoderStream())).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return; // an event without its empty line is not whole
      const found = (rest + value).split(/\r?\n\r?\n/);
      rest = found.pop() ?? "";
      yield* found;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** @param {string} block */
export function parse(block) {
  const event = { type: "message", data: "", id: /** @type {string | null} */ (null) };
  const lines = [];
  for (const line of block.split(/\r?\n/)) {
    const [, name, value] = /^([^:]*):? ?(.*)$/s.exec(line) ?? [];
    if (name === "event") event.type = value;
    if (name === "id") event.id = value;
    if (name === "data") lines.push(value);
  }
  event.data = lines.join("\n");
  return event;
}
