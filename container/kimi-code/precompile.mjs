// Keeps the code that kimi-code compiles while it starts and answers, once, when the image is built:
//
//     node OPTIONS precompile.mjs node_modules/@moonshot-ai/kimi-code
//
// Node's own cache has of a program only what is compiled as it is loaded, not the functions that are compiled when they are
// first called, which is most of a start. So the lighter engine of lighten.mjs runs once from its greeting to an answer, with a
// tool server, as in a container; then what V8 has compiled is kept beside it. It counts for this Node and these options only:
// for others V8 does not take it, and compiles anew.
//
// If the engine was not made lighter, or does not answer, all stays as it was, with a line on stderr. The exit code is 0 either
// way.

import { spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const PATIENCE_MS = 60_000;
const [folder, run] = process.argv.slice(2);
const dist = resolve(folder, "dist");

/** The engine in this process, which keeps its code when it ends. */
async function runEngine() {
  process.argv = [process.argv[0], join(dist, "main.mjs"), "acp"];
  const { script, COMPILED } = await import(pathToFileURL(join(dist, "light.mjs")));
  process.on("exit", () => writeFileSync(COMPILED, script.createCachedData()));
}

/** A model that says yes, and a tool server with one tool. */
function answer(path, body) {
  if (path.endsWith("/chat/completions")) {
    const chunk = (delta, reason) => ({ id: "c", object: "chat.completion.chunk", created: 1, model: "m", choices: [{ index: 0, delta, finish_reason: reason }] });
    const usage = { prompt_tokens: 10, completion_tokens: 1, total_tokens: 11 };
    const chunks = [chunk({ role: "assistant", content: "yes" }, null), chunk({}, "stop"), { ...chunk({}, null), choices: [], usage }];
    return ["text/event-stream", [...chunks.map((chunk) => JSON.stringify(chunk)), "[DONE]"].map((data) => `data: ${data}\n\n`).join("")];
  }
  const { id, method, params } = JSON.parse(body);
  const tool = { name: "note", description: "Notes a text.", inputSchema: { type: "object", properties: { text: { type: "string" } }, required: ["text"] } };
  const results = {
    initialize: { protocolVersion: params?.protocolVersion, capabilities: { tools: {} }, serverInfo: { name: "n", version: "1" } },
    "tools/list": { tools: [tool] },
  };
  return ["application/json", JSON.stringify({ jsonrpc: "2.0", id, result: results[method] ?? {} })];
}

async function startServer() {
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const piece of request) body += piece;
    const isNotification = request.url === "/mcp" && JSON.parse(body || "{}").id === undefined;
    if (request.method !== "POST") return response.writeHead(405).end();
    if (isNotification) return response.writeHead(202).end();
    const [type, text] = answer(request.url, body);
    response.writeHead(200, { "content-type": type }).end(text);
  });
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  return server;
}

function settings(api) {
  return `default_model = "m"
default_permission_mode = "yolo"
telemetry = false
[models.m]
provider = "managed:kimi-code"
model = "m"
max_context_size = 262144
capabilities = ["thinking", "image_in"]
[providers."managed:kimi-code"]
type = "kimi"
base_url = "${api}"
api_key = "none"
`;
}

/** Leads an engine from its greeting to an answer, and lets it end. */
async function leadEngine(home) {
  const server = await startServer();
  const egress = `http://127.0.0.1:${server.address().port}`;
  const own = join(home, ".kimi-code");
  mkdirSync(own);
  writeFileSync(join(own, "config.toml"), settings(`${egress}/coding/v1`));
  const engine = spawn(process.execPath, [...process.execArgv, fileURLToPath(import.meta.url), resolve(folder), "run"], {
    cwd: home,
    env: {
      PATH: process.env.PATH, HOME: home, KIMI_CODE_HOME: own, KIMI_CODE_BASE_URL: `${egress}/coding/v1`, KIMI_CODE_OAUTH_HOST: egress,
      KIMI_DISABLE_TELEMETRY: "1", KIMI_DISABLE_CRON: "1", KIMI_CODE_NO_AUTO_UPDATE: "1",
    },
  });
  const over = setTimeout(() => engine.kill("SIGKILL"), PATIENCE_MS);
  const closed = new Promise((resolve) => engine.on("close", resolve));
  const ask = (id, method, params) => engine.stdin.write(`${JSON.stringify({ jsonrpc: "2.0", id, method, params })}\n`);
  let [said, line] = ["", ""];
  engine.stderr.on("data", (data) => (said += data));
  engine.stdout.on("data", (data) => {
    line += data;
    for (let end; (end = line.indexOf("\n")) >= 0; line = line.slice(end + 1)) {
      const { id, result, error } = JSON.parse(line.slice(0, end));
      if (error) said += JSON.stringify(error);
      if (error || id === 3) engine.stdin.end();
      else if (id === 1) ask(2, "session/new", { cwd: home, mcpServers: [{ type: "http", name: "n", url: `${egress}/mcp`, headers: [] }] });
      else if (id === 2) ask(3, "session/prompt", { sessionId: result.sessionId, prompt: [{ type: "text", text: "Hello" }] });
    }
  });
  ask(1, "initialize", { protocolVersion: 1, clientCapabilities: {}, clientInfo: { name: "nanokimi", version: "0" } });
  const code = await closed;
  clearTimeout(over);
  server.close();
  server.closeAllConnections();
  if (code !== 0 || said) throw new Error(`the engine has not answered (${code}): ${said.trim().slice(0, 300)}`);
}

if (run) {
  await runEngine();
} else {
  const home = mkdtempSync(join(tmpdir(), "precompile-"));
  const compiled = join(dist, "acp.compiled");
  try {
    if (!existsSync(join(dist, "light.mjs"))) throw new Error("the engine was not made lighter");
    await leadEngine(home);
    if (!existsSync(compiled)) throw new Error("the engine has kept nothing");
  } catch (error) {
    process.stderr.write(`precompile: each start compiles anew: ${error.message}\n`);
    rmSync(compiled, { force: true });
  } finally {
    rmSync(home, { recursive: true, force: true });
  }
}
