// Talks to the model by Anthropic's SDK, and lets it call write_note. anthropic_sdk.mjs BASE MODEL PROMPT

import { writeFileSync } from "node:fs";
import Anthropic from "@anthropic-ai/sdk";

const [base, model, prompt] = process.argv.slice(2);
const client = new Anthropic({ baseURL: base, apiKey: process.env.KIMI_GATEWAY_KEY, maxRetries: 0 });
const schema = { type: "object", properties: { word: { type: "string" } }, required: ["word"] };
const tools = [{ name: "write_note", description: "Writes a word down.", input_schema: schema }];

function writeNote({ word }) {
  writeFileSync("note.txt", word);
  return `${word} is written`;
}

/** What the model says, after the calls that it wants. */
async function ask(messages) {
  const thinking = { type: "enabled", budget_tokens: 1024 };
  const message = await client.messages
    .stream({ model, max_tokens: 4096, thinking, tools, messages })
    .finalMessage();
  const results = message.content
    .filter((block) => block.type === "tool_use")
    .map((block) => ({ type: "tool_result", tool_use_id: block.id, content: writeNote(block.input) }));
  if (!results.length) return message.content.map((block) => block.text ?? "").join("");
  const said = { role: "assistant", content: message.content };
  return ask([...messages, said, { role: "user", content: results }]);
}

console.log(await ask([{ role: "user", content: prompt }]));
