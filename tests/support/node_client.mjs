// The official Node SDK against a server: prints what it has seen as one JSON object.
import { createReadStream } from "node:fs";
import OpenAI, { toFile } from "openai";

const [path, endpoint] = process.argv.slice(2);
const client = new OpenAI(); // OPENAI_BASE_URL, OPENAI_API_KEY
const seen = {};

const uploaded = await client.files.create({ file: createReadStream(path), purpose: "batch" });
const other = await client.files.create({
  file: await toFile(Buffer.from("{}\n"), "other.jsonl"),
  purpose: "batch",
  expires_after: { anchor: "created_at", seconds: 3600 },
});
seen.lifetime = other.expires_at - other.created_at;
seen.filename = uploaded.filename;
let batch = await client.batches.create({
  input_file_id: uploaded.id,
  endpoint,
  completion_window: "24h",
  metadata: { from: "node" },
});
seen.first = batch.status;
while (!["completed", "failed", "expired", "cancelled"].includes(batch.status)) {
  await new Promise((resolve) => setTimeout(resolve, 100));
  batch = await client.batches.retrieve(batch.id);
}
seen.status = batch.status;
seen.counts = batch.request_counts;
seen.output = (await (await client.files.content(batch.output_file_id)).text()).trim().split("\n");
seen.errors = (await (await client.files.content(batch.error_file_id)).text()).trim().split("\n");
seen.files = [];
for await (const file of client.files.list({ limit: 2 })) seen.files.push(file.id);
seen.batches = [];
for await (const each of client.batches.list({ limit: 1 })) seen.batches.push(each.id);
seen.mine = [uploaded.id, other.id, batch.output_file_id, batch.error_file_id];
seen.batch = batch.id;
seen.deleted = (await client.files.delete(other.id)).deleted;
try {
  await client.files.retrieve(other.id);
} catch (error) {
  seen.error = [error.constructor.name, error.status, error.type, Boolean(error.requestID)];
}
console.log(JSON.stringify(seen));
