/** The same request from elsewhere: curl, Python, JSON. */

/** @typedef {{label: string, body: Record<string, any>}} Request */

const LANGUAGES = /** @type {const} */ ({ curl, openai, httpx, json });
/** @type {[string, string][]} */
export const NAMES = [["curl", "curl"], ["openai", "Python, openai"], ["httpx", "Python, httpx"], ["json", "JSON"]];
/** OpenAI's own fields; ours travel in the SDK's extra_body. */
const OPENAI_FIELDS = ["model", "prompt", "n"];

/** Characters that a shell or Python would read otherwise. */
const NOT_IN_NAMES = /[^\p{L}\p{N}_. -]/gu;

/** A file of the request, which the code reads from its folder. */
export class NamedFile {
  /** @param {string} name */
  constructor(name) {
    this.name = name.replace(NOT_IN_NAMES, "_");
  }

  toJSON() {
    return `data:;base64,<${this.name}>`;
  }
}

/**
 * @param {string} language @param {Record<string, any>} body
 * @param {{root: string, withKey: boolean, model: import("./api.js").Model}} where `root` ends with a slash
 */
export function code(language, body, where) {
  return LANGUAGES[/** @type {keyof typeof LANGUAGES} */ (language)](body, where);
}

/** @param {Record<string, any>} body */
function json(body) {
  return JSON.stringify(body, null, 2);
}

/** @param {Record<string, any>} body @param {{root: string, withKey: boolean}} where */
function curl(body, { root, withKey }) {
  const hasFiles = namedFiles(body).length > 0;
  // The shell fills in the files; more than an argument holds is read from a here-document.
  const filled = json(body).replace(/[\\$`]/g, "\\$&")
    .replace(/"data:;base64,<([\p{L}\p{N}_. -]*)>"/gu, '"data:;base64,$(base64 < "$1" | tr -d "\\n")"');
  return [
    `curl -sS ${root}v1/jobs`,
    ...(withKey ? ['-H "authorization: Bearer $NAG_API_KEY"'] : []),
    "-H 'content-type: application/json'",
    "-H 'prefer: wait=60'",
    hasFiles ? `-d @- <<END\n${filled}\nEND` : `-d '${json(body).replaceAll("'", "'\\''")}'`,
  ].join(" \\\n  ");
}

/** @param {Record<string, any>} body @returns {NamedFile[]} */
function namedFiles(body) {
  return Object.values(body).flat().filter((value) => value instanceof NamedFile);
}

/** @param {Record<string, any>} body @param {{root: string, withKey: boolean, model: import("./api.js").Model}} where */
function httpx(body, { root, withKey, model }) {
  const hasFiles = namedFiles(body).length > 0;
  return `${hasFiles ? "import base64\n" : ""}${withKey ? "import os\n" : ""}import time
from pathlib import Path

import httpx
${hasFiles ? `

def read(name):
    return "data:;base64," + base64.b64encode(Path(name).read_bytes()).decode()

` : ""}
body = ${python(body, 0, "read")}
${withKey ? 'headers = {"authorization": f"Bearer {os.environ[\'NAG_API_KEY\']}"}\n' : ""}\
with httpx.Client(base_url="${root}", timeout=90${withKey ? ", headers=headers" : ""}) as http:
    job = http.post("v1/jobs", json=body, headers={"prefer": "wait=60"}).raise_for_status().json()
    while job["status"] in ("queued", "in_progress"):
        time.sleep(1)
        job = http.get(f"v1/jobs/{job['id']}").raise_for_status().json()
    assert job["status"] == "completed", job["error"]
    for index in range(len(job["outputs"])):
        result = http.get(f"v1/jobs/{job['id']}/result", params={"index": index}).raise_for_status()
        Path(f"{index}.${suffix(model)}").write_bytes(result.content)
`;
}

/** @param {Record<string, any>} body @param {{root: string, withKey: boolean, model: import("./api.js").Model}} where */
function openai(body, { root, withKey, model }) {
  const all = { model: model.id, ...body };
  const hasFiles = namedFiles(body).length > 0;
  const own = Object.entries(all).filter(([name]) => OPENAI_FIELDS.includes(name));
  const ours = Object.entries(all).filter(([name]) => !OPENAI_FIELDS.includes(name));
  const fields = [
    ...own.map(([name, value]) => `    ${name}=${python(value)},\n`),
    ...(model.kind === "image" ? ['    response_format="b64_json",\n'] : []),
    ...(ours.length ? [`    extra_body=${python(Object.fromEntries(ours), 1, "upload")},\n`] : []),
  ].join("");
  const head = `${model.kind === "image" ? "import base64\n" : ""}${withKey ? "import os\n" : ""}\
${model.kind === "image" || hasFiles ? "from pathlib import Path\n\n" : ""}from openai import OpenAI

client = OpenAI(base_url="${root}v1", api_key=${withKey ? 'os.environ["NAG_API_KEY"]' : '"none"'})
${hasFiles ? `

def upload(name):
    return client.files.create(file=Path(name), purpose="vision").id


` : ""}`;
  if (model.kind === "video") {
    return `${head}video = client.videos.create_and_poll(
${fields.replace(/ {4}n=\d+,\n/, "")})
client.videos.download_content(video.id).write_to_file("0.mp4")
`;
  }
  return `${head}images = client.images.generate(
${fields})
for index, image in enumerate(images.data):
    Path(f"{index}.png").write_bytes(base64.b64decode(image.b64_json))
`;
}

/** @param {import("./api.js").Model} model */
function suffix(model) {
  return model.kind === "video" ? "mp4" : "png";
}

/** A literal of Python. @param {any} value @param {number} depth @param {string} read what reads a file @returns {string} */
export function python(value, depth = 0, read = "") {
  if (value instanceof NamedFile) return `${read}(${JSON.stringify(value.name)})`;
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const inner = "    ".repeat(depth + 1);
  if (Array.isArray(value)) {
    return `[\n${value.map((each) => `${inner}${python(each, depth + 1, read)},\n`).join("")}${"    ".repeat(depth)}]`;
  }
  const items = Object.entries(value).map(([name, each]) => `${inner}${JSON.stringify(name)}: ${python(each, depth + 1, read)},\n`);
  return items.length ? `{\n${items.join("")}${"    ".repeat(depth)}}` : "{}";
}
