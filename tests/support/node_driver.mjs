// The official Node SDK behind one method: reads a call a line, and writes what it gave a line.
// `node node_driver.mjs BASE_URL KEY`; the shapes are `Asked` and `Said` of sdk_drivers.py.
import { createInterface } from "node:readline";
import OpenAI, { toFile } from "openai";

const [baseURL, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });

async function ask({ method, ids, params, more, headers, pages }) {
  const options = { headers };
  if (!method.includes(".")) {
    const body = method === "get" ? {} : { body: more };
    return said(await client[method](...ids, { ...body, ...options }).asResponse());
  }
  const given = { ...params, ...more };
  if (given.file) given.file = await toFile(Buffer.from(given.file.text), given.file.name);
  const [resource, name] = method.split(".");
  const made = Object.keys(given).length
    ? client[resource][name](...ids, given, options)
    : client[resource][name](...ids, options);
  if (!pages) return said(await made.asResponse());
  const entries = [];
  for await (const each of made) entries.push(each);
  return { status: 200, request_id: "req_", entries };
}

async function said(response) {
  const request_id = response.headers.get("x-request-id");
  return { status: response.status, request_id, text: await response.text() };
}

function refused(error) {
  if (!(error instanceof OpenAI.APIError) || error.status === undefined) throw error;
  const { status, requestID: request_id } = error;
  return { status, request_id, refused: error.constructor.name, error: error.error };
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await ask(JSON.parse(line)).catch(refused)));
}
