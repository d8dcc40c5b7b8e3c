/** Where a result's bytes come from, and the small copies that outlive them in the history. */

import { getResult } from "./api.js";
import { changed } from "./state.js";

const THUMBNAIL_PX = 160;
/** @type {Map<string, string>} */
const fetched = new Map();
/** @type {WeakMap<Blob, string>} */
const shown = new WeakMap();

/** Whether a link leads to this server, not to a bucket: the page loads nothing from elsewhere. @param {string} url */
export function here(url) {
  return new URL(url, document.baseURI).origin === location.origin;
}

/**
 * An address that an element of this page may load: the link itself, which needs no key, or the bytes once they are here.
 * @param {import("./api.js").Job} job @param {number} index
 */
export function source(job, index) {
  const { url } = job.outputs[index];
  if (here(url)) return url;
  const name = `${job.id}/${index}`;
  if (!fetched.has(name)) {
    fetched.set(name, "");
    getResult(job.id, index).then(
      (blob) => {
        fetched.set(name, URL.createObjectURL(blob));
        changed();
      },
      () => {},
    );
  }
  return fetched.get(name) ?? "";
}

/** @param {Blob} blob */
export function address(blob) {
  let url = shown.get(blob);
  if (url === undefined) {
    url = URL.createObjectURL(blob);
    shown.set(blob, url);
  }
  return url;
}

/** A copy of a job's first picture; null for a video, and where it cannot be had. @param {import("./api.js").Job} job */
export async function thumbnail(job) {
  if (!job.outputs[0]?.media_type.startsWith("image/")) return null;
  try {
    const picture = await createImageBitmap(await getResult(job.id, 0));
    const scale = Math.min(1, THUMBNAIL_PX / Math.max(picture.width, picture.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(picture.width * scale);
    canvas.height = Math.round(picture.height * scale);
    canvas.getContext("2d")?.drawImage(picture, 0, 0, canvas.width, canvas.height);
    return await new Promise((/** @type {(blob: Blob | null) => void} */ done) => canvas.toBlob(done, "image/webp", 0.85));
  } catch {
    return null;
  }
}
