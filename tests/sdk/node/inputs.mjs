// OpenAI's own npm SDK, unmodified: edits of several images, videos that start from files, uploaded files.
// The argument is the server's URL; standard input has PNG files in base64, one per line. Prints one line of JSON.
import { readFileSync } from "node:fs";
import OpenAI, { toFile } from "openai";

const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "none is asked for" });
const lines = readFileSync(0, "utf8").trim().split("\n");
const files = await Promise.all(lines.map((line, index) => toFile(Buffer.from(line, "base64"), `${index}.png`, { type: "image/png" })));
const seen = { edits: [] };
const base64 = async (response) => Buffer.from(await response.arrayBuffer()).toString("base64");
const refused = async (request) => {
  try {
    await request();
  } catch (error) {
    return [error.constructor.name, error.status, error.code, error.param];
  }
};

const told = { model: "told", prompt: "make it blue", seed: 7 };
for (const image of [files[0], files.slice(0, 2), files]) {
  const edit = await client.images.edit({ ...told, image, input_fidelity: "high", negative_prompt: "a red shape" });
  seen.edits.push([edit.nag.applied, edit.data[0].b64_json]);
}
seen.tooMany = await refused(() => client.images.edit({ ...told, image: [...files, files[0]] }));
seen.broken = await refused(() => client.images.edit({ ...told, image: new File(["no image"], "a.png", { type: "image/png" }) }));

const poll = async (video) => {
  while (video.status === "queued" || video.status === "in_progress") {
    const { data, response } = await client.videos.retrieve(video.id).withResponse();
    video = data;
    await new Promise((done) => setTimeout(done, Number(response.headers.get("openai-poll-after-ms") ?? 0)));
  }
  return video;
};
const film = { model: "film", prompt: "a shape moving", seed: 7 };
seen.video = await poll(await client.videos.create({ ...film, input_reference: files[0], negative_prompt: "a red shape" }));
const content = await client.videos.downloadContent(seen.video.id);
seen.type = content.headers.get("content-type");
seen.content = await base64(content);
seen.thumbnail = await base64(await client.videos.downloadContent(seen.video.id, { variant: "thumbnail" }));
seen.missing = await refused(() => client.videos.create(film));

const start = await toFile(Buffer.from(seen.content, "base64"), "a.mp4", { type: "video/mp4" });
const changed = await poll(await client.videos.create({ model: "changing", prompt: "a shape", input_reference: start }));
const remix = await poll(await client.videos.remix(changed.id, { prompt: "a blue shape" }));
seen.remix = [changed.status, remix.status, remix.remixed_from_video_id === changed.id];

const file = await client.files.create({ file: files[0], purpose: "vision" });
const byId = await client.videos.create({ ...film, input_reference: { file_id: file.id } });
seen.file = [file.filename, (await client.files.content(file.id)).status, (await client.files.delete(file.id)).deleted];
seen.byId = (await poll(byId)).status;

console.log(JSON.stringify(seen));
