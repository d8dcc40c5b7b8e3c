// n8n's compiled OpenAI nodes, each parameter at its default. What runs nodes, n8n-core and n8n-workflow, is replaced.

import { createRequire } from "node:module";
import Module from "node:module";
import { KEY, PNG, PROMPT, URL_, attempt } from "./reporting.mjs";

const require = createRequire(import.meta.url);
const VERSION = 2.3;
const workflow = {
  updateDisplayOptions: (_, properties) => properties,
  NodeOperationError: class extends Error { constructor(node, error) { super(String(error)); } },
  NodeApiError: class extends Error { constructor(node, error) { super(JSON.stringify(error)); } },
};
const load = Module._load;
Module._load = (name, ...rest) => (name === "n8n-workflow" ? workflow : load(name, ...rest));

const operation = (name) => require(`./extracted/dist/nodes/vendors/OpenAi/v2/actions/${name}.operation.js`);

/** Whether one of the values that a property is shown for is this one. */
function matches(wanted, value) {
  return wanted.some((option) => {
    const condition = option?._cnd;
    if (!condition) return option === value;
    const [[kind, bound]] = Object.entries(condition);
    return { gte: value >= bound, lt: value < bound, includes: String(value).includes(bound) }[kind];
  });
}

/** What a node sees of n8n: its parameters at their defaults, but for the chosen ones, and one incoming item. */
function context(properties, chosen) {
  const value = (name) => {
    if (name in chosen) return chosen[name];
    const shown = properties.find((property) => property.name === name && isShown(property));
    return shown?.default?.mode ? shown.default.value : shown?.default;
  };
  const isShown = (property) =>
    Object.entries(property.displayOptions?.show ?? {}).every(([name, wanted]) =>
      matches(wanted, name === "@version" ? VERSION : value(name.replace("/", ""))));
  return {
    getNode: () => ({ name: "OpenAI", typeVersion: VERSION }),
    getNodeParameter: (name, _, fallback) => value(name) ?? fallback,
    getCredentials: async () => ({ url: `${URL_}/v1` }),
    getExecutionCancelSignal: () => undefined,
    helpers: {
      assertBinaryData: () => ({ fileName: "a.png", mimeType: "image/png" }),
      getBinaryDataBuffer: async () => PNG,
      binaryToBuffer: async (data) => data,
      prepareBinaryData: async (data) => ({ bytes: data }),
      requestWithAuthentication: send,
    },
  };
}

/** As n8n-core sends it: with the credential's header, and the body as JSON or as a form. */
async function send(_, { method, uri, headers, body, formData, encoding }) {
  const isForm = formData !== undefined;
  const answer = await fetch(uri, {
    method,
    headers: { ...headers, authorization: `Bearer ${KEY}`, ...(body && { "content-type": "application/json" }) },
    body: isForm ? formData.getBuffer() : body && JSON.stringify(body),
  });
  if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
  if (encoding !== null) return answer.json();
  return { headers: Object.fromEntries(answer.headers), body: Buffer.from(await answer.arrayBuffer()) };
}

async function run(name, chosen) {
  const { execute, description } = operation(name);
  const [item] = await execute.call(context(description, { prompt: PROMPT, ...chosen }), 0);
  return item.binary ? Object.values(item.binary)[0].bytes : item.json.url;
}

await attempt("image, generate", () => run("image/generate", {}));
await attempt("image, generate, dall-e-3", () =>
  run("image/generate", { modelId: "dall-e-3", options: { dalleQuality: "hd", style: "natural", size: "1024x1024" } }));
await attempt("image, generate, URLs", () =>
  run("image/generate", { modelId: "dall-e-2", options: { returnImageUrls: true } }));
await attempt("image, edit", () => run("image/edit", {}));
await attempt("image, edit, dall-e-2", () => run("image/edit", { modelId: "dall-e-2" }));
await attempt("video, generate", () => run("video/generate", { modelId: "sora-2" }));
