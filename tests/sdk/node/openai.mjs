// OpenAI's own npm SDK, unmodified, against the server whose URL is the argument. Prints what it saw as one line of JSON.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "none is asked for" });
const seen = {};

seen.models = [];
for await (const model of client.models.list()) seen.models.push(model.id);

const ours = { negative_prompt: "a red shape", seed: 7 };
const answer = await client.images.generate({ prompt: "a shape", n: 2, size: "64x64", ...ours });
seen.pictures = answer.data.map((each) => each.b64_json);
seen.applied = answer.nag.applied;

const named = await client.images.generate({ prompt: "a shape", n: 2, response_format: "url", ...ours });
seen.fetched = [];
for (const each of named.data) {
  seen.fetched.push(Buffer.from(await (await fetch(each.url)).arrayBuffer()).toString("base64"));
}

seen.events = [];
const stream = await client.images.generate({ prompt: "a shape", stream: true, ...ours });
for await (const event of stream) seen.events.push([event.type, event.b64_json]);

const sent = new File([Buffer.from(seen.pictures[0], "base64")], "shape.png", { type: "image/png" });
const edited = await client.images.edit({ image: sent, prompt: "a shape", strength: 0.5, nag_negative_prompt: "red", seed: 7 });
seen.edited = { picture: edited.data[0].b64_json, applied: edited.nag.applied };

let video = await client.videos.create({
  prompt: "a shape", seconds: "1", size: "64x32", seed: 7, strict: false, nag: { scale: 7, negative_prompt: "red" },
});
while (video.status === "queued" || video.status === "in_progress") {
  const { data, response } = await client.videos.retrieve(video.id).withResponse();
  video = data;
  await new Promise((done) => setTimeout(done, Number(response.headers.get("openai-poll-after-ms") ?? 0)));
}
seen.video = video;
const content = await client.videos.downloadContent(video.id);
seen.content = Buffer.from(await content.arrayBuffer()).toString("base64");
seen.listed = [];
for await (const each of client.videos.list({ limit: 1 })) seen.listed.push(each.id);
seen.deleted = await client.videos.delete(video.id);

seen.errors = {};
const refused = async (name, request) => {
  try {
    await request();
  } catch (error) {
    seen.errors[name] = [error.constructor.name, error.status, error.code, error.param];
  }
};
await refused("model", () => client.images.generate({ prompt: "a", model: "flux-99" }));
await refused("quality", () => client.images.generate({ prompt: "a", quality: "hd" }));
await refused("field", () => client.images.generate({ prompt: "a", promt: "b" }));
await refused("file", () =>
  client.videos.create({ prompt: "a", input_reference: new File([new Uint8Array(4)], "cat.png") }));

console.log(JSON.stringify(seen));
