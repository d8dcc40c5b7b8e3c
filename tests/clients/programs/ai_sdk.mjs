// Vercel's AI SDK with three of its providers.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { createTogetherAI } from "@ai-sdk/togetherai";
import * as ai from "ai";
import { attempt, KEY, PROMPT, URL_ } from "./reporting.mjs";

const generateImage = ai.generateImage ?? ai.experimental_generateImage;
const address = { baseURL: `${URL_}/v1`, apiKey: KEY };
const compatible = createOpenAICompatible({ ...address, name: "nag" });
const made = async (model, more = {}) => (await generateImage({ model, prompt: PROMPT, ...more })).image.uint8Array;

await attempt("openai, gpt-image-1", () => made(createOpenAI(address).image("gpt-image-1"), { size: "1024x1024" }));
await attempt("openai, dall-e-3", () => made(createOpenAI(address).image("dall-e-3"), { size: "1024x1024" }));
await attempt("openai-compatible, gpt-image-1", () => made(compatible.imageModel("gpt-image-1"), { size: "1024x1024" }));
await attempt("openai-compatible, our fields", () =>
  made(compatible.imageModel("shapes-flux"), { providerOptions: { nag: { negative_prompt: "red" } } }));
await attempt("togetherai, steps, a negative prompt", () =>
  made(createTogetherAI(address).image("shapes-flux"), {
    providerOptions: { togetherai: { steps: 4, negative_prompt: "red" } },
  }));
