// OpenAI's own SDK of Node.
import OpenAI, { toFile } from "openai";
import { attempt, KEY, PNG, PROMPT, URL_ } from "./reporting.mjs";

const client = new OpenAI({ baseURL: `${URL_}/v1`, apiKey: KEY });
const first = (answer) => answer.data[0].b64_json ?? answer.data[0].url;

await attempt("generate, gpt-image-1", async () =>
  first(await client.images.generate({ model: "gpt-image-1", prompt: PROMPT })));
await attempt("generate, dall-e-3 hd vivid", async () =>
  first(await client.images.generate({
    model: "dall-e-3", prompt: PROMPT, size: "1792x1024", quality: "hd", style: "vivid", n: 1,
  })));
await attempt("edit, gpt-image-1", async () =>
  first(await client.images.edit({
    model: "gpt-image-1", prompt: PROMPT, image: await toFile(PNG, "a.png", { type: "image/png" }),
  })));
if (client.videos) {
  await attempt("video, sora-2", async () => {
    let video = await client.videos.create({ model: "sora-2", prompt: PROMPT, seconds: "4", size: "1280x720" });
    while (["queued", "in_progress"].includes(video.status)) {
      await new Promise((resolve) => setTimeout(resolve, 500));
      video = await client.videos.retrieve(video.id);
    }
    return Buffer.from(await (await client.videos.downloadContent(video.id)).arrayBuffer());
  });
}
