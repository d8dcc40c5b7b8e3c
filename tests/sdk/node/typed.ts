// Compiled against the types that openapi-typescript made, then run. The argument is the server's URL.
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

const client = createClient<paths>({ baseUrl: process.argv[2] });
type Job = components["schemas"]["Job"];

const created = await client.POST("/v1/jobs", {
  body: { model: "shapes-flux", prompt: "a shape", seed: 7, nag: { negative_prompt: "red", scale: 7 } },
});
if (created.error) throw new Error(created.error.error.message);
let job: Job = created.data;
while (job.status === "queued" || job.status === "in_progress") {
  await new Promise((done) => setTimeout(done, 100));
  const asked = await client.GET("/v1/jobs/{job_id}", { params: { path: { job_id: job.id } } });
  if (asked.error) throw new Error(asked.error.error.message);
  job = asked.data;
}
const file = { params: { path: { job_id: job.id } }, parseAs: "arrayBuffer" as const };
const picture = await client.GET("/v1/jobs/{job_id}/result", file);
const part = await client.GET("/v1/jobs/{job_id}/result", { ...file, headers: { range: "bytes=0-3" } });
const refused = await client.POST("/v1/jobs", { body: { prompt: "a", model: "unknown" } });
const video = await client.POST("/v1/videos", { body: { prompt: "a shape", seconds: "1" } });

const hex = (data: ArrayBuffer | undefined) => Buffer.from(data!).toString("hex");
console.log(JSON.stringify({
  status: job.status,
  scale: job.nag?.scale,
  picture: hex(picture.data as ArrayBuffer | undefined),
  part: [part.response.status, hex(part.data as ArrayBuffer | undefined)],
  refused: [refused.response.status, refused.error?.error.code, refused.error?.error.param],
  video: [video.data?.status, video.data?.seconds],
}));
