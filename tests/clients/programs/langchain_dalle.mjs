// LangChain's DallEAPIWrapper of JavaScript.
import { DallEAPIWrapper } from "@langchain/openai";
import { attempt, KEY, PROMPT, URL_ } from "./reporting.mjs";

const options = { apiKey: KEY, openAIApiKey: KEY, baseUrl: `${URL_}/v1`, configuration: { baseURL: `${URL_}/v1` } };
process.env.OPENAI_BASE_URL = `${URL_}/v1`;

await attempt("DallEAPIWrapper", async () => new DallEAPIWrapper(options).invoke(PROMPT));
