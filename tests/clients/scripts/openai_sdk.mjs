// Talks to the model by OpenAI's SDK, and lets it call write_note. openai_sdk.mjs BASE MODEL PROMPT chat|responses

import { writeFileSync } from "node:fs";
import OpenAI from "openai";

const [base, model, prompt, api] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: process.env.KIMI_GATEWAY_KEY, maxRetries: 0 });
const parameters = { type: "object", properties: { word: { type: "string" } }, required: ["word"] };
const definition = { name: "write_note", description: "Writes a word down.", parameters };

function writeNote(text) {
  const { word } = JSON.parse(text);
  writeFileSync("note.txt", word);
  return `${word} is written`;
}

/** What the model says, after the calls that it wants. */
async function askChat(messages) {
  const tools = [{ type: "function", function: definition }];
  const stream = client.chat.completions.stream({ model, messages, tools });
  let thoughts = "";
  // Kimi's own; it wants it back.
  for await (const chunk of stream) thoughts += chunk.choices[0]?.delta?.reasoning_content ?? "";
  const { content, tool_calls: calls } = await stream.finalMessage();
  if (!calls?.length) return content;
  const asked = calls.map(({ id, type, function: { name, arguments: text } }) => ({
    id,
    type,
    function: { name, arguments: text },
  }));
  const said = { role: "assistant", content, reasoning_content: thoughts, tool_calls: asked };
  const results = calls.map((call) => ({
    role: "tool",
    tool_call_id: call.id,
    content: writeNote(call.function.arguments),
  }));
  return askChat([...messages, said, ...results]);
}

async function askResponses(items) {
  const tools = [{ type: "function", strict: false, ...definition }];
  const response = await client.responses.stream({ model, input: items, tools, store: false }).finalResponse();
  const results = response.output
    .filter((item) => item.type === "function_call")
    .map((item) => ({ type: "function_call_output", call_id: item.call_id, output: writeNote(item.arguments) }));
  return results.length ? askResponses([...items, ...response.output, ...results]) : response.output_text;
}

const ask = { chat: askChat, responses: askResponses }[api];
console.log(await ask([{ role: "user", content: prompt }]));
