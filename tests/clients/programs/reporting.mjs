// What a program tells `make clients`: one line of JSON for each request.

export const URL_ = process.env.SERVICE_URL, KEY = process.env.SERVICE_KEY, PROMPT = "a shape";

export async function attempt(request, run) {
  try {
    console.log(JSON.stringify({ request, result: await describe(await run()), passed: true }));
  } catch (error) {
    console.error(error);
    const result = `${error.name}: ${error.message}`.replace(/\s+/g, " ").slice(0, 300);
    console.log(JSON.stringify({ request, result, passed: false }));
  }
}

async function describe(value) {
  if (typeof value === "string" && /^https?:/.test(value)) {
    return `${await describe(Buffer.from(await (await fetch(value)).arrayBuffer()))} by URL`;
  }
  if (typeof value === "string" && value.length > 200) return describe(Buffer.from(value, "base64"));
  if (value instanceof Uint8Array) {
    const file = Buffer.from(value);
    if (file.subarray(1, 4).toString() === "PNG") return `PNG ${file.readUInt32BE(16)}x${file.readUInt32BE(20)}`;
    if (file.subarray(4, 8).toString() === "ftyp") return "MP4";
    throw new Error(`neither PNG nor MP4: ${file.subarray(0, 20).toString("hex")}`);
  }
  if (!value) throw new Error(`nothing came: ${value}`);
  return String(value);
}

/** A gray PNG of 64 by 64 pixels. */
export const PNG = Buffer.from(process.env.SERVICE_PNG, "base64");
