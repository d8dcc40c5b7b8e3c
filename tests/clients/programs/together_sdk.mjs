// Together's SDK of Node.
import Together from "together-ai";
import { attempt, KEY, PROMPT, URL_ } from "./reporting.mjs";

const client = new Together({ baseURL: `${URL_}/v1`, apiKey: KEY });

await attempt("generate, steps, base64, a negative prompt", async () =>
  (await client.images.generate({
    model: "shapes-flux", prompt: PROMPT, negative_prompt: "red", steps: 4, n: 1, response_format: "base64",
  })).data[0].b64_json);
