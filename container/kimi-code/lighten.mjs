// Makes kimi-code lighter for `kimi acp`, and lets messages be steered into a turn, once, when the image is built:
//
//     node lighten.mjs node_modules/@moonshot-ai/kimi-code node_modules/esbuild-wasm/lib/main.js
//
// The engine comes as one bundle, dist/main.mjs, with everything in it: terminal, web server, updates. Of it is made a
// second one, dist/acp.cjs, with only what `kimi acp` reaches, and a few changes. The first one becomes dist/whole.mjs, as
// it was, and the new dist/main.mjs only chooses between the two: whatever is not exactly `kimi acp` gets the whole one.
// dist/light.mjs loads the second one as a script, since only of scripts V8 takes code that was compiled before
// (precompile.mjs).
//
// Every change says how often its place must be there. One that does not fit is left out, with a line on stderr; when the
// lighter bundle cannot be made or does not answer, all stays as it was. The exit code is 0 either way.

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, esbuild] = process.argv.slice(2);
const dist = resolve(folder, "dist");

/** Why something does not fit. */
class Unfit extends Error {}

/** The text with `from` replaced, which must be there exactly `times`. */
function swap(text, from, to, times = 1) {
  const found = typeof from === "string" ? text.split(from).length - 1 : (text.match(from)?.length ?? 0);
  if (found !== times) throw new Unfit(`${JSON.stringify(String(from).trim().slice(0, 50))} is there ${found} times, not ${times}`);
  return text.replaceAll(from, typeof to === "string" ? () => to : to);
}

/** In kimi-code 2.1.0 with zod 4.3.6. */
const METHODS = 116;

const changes = {
  // A message in the middle of a turn, by a method of our own: `_session/steer {sessionId, prompt}`, answered with {taken}.
  // The engine can do it, as it does for the end of a background task: loop.notify() puts a message before the running
  // turn's next request, and calls onConsume when it stands in the history that this request is made of, or onDrop when
  // the turn ends without it. One of the two always comes, and that is the answer. Without a turn of ours, or with another
  // one (nobody hears those), nothing is put anywhere. Looking and putting happen in one go, so no end comes in between;
  // and a turn with such a message waiting does not end by itself, but makes one more request.
  "a message can be steered into a turn"(text) {
    // What the engine lets the ACP server call.
    text = swap(text, "return { cancelFromUser: (turnId) => {\n", `return { steerFromUser: (turnId, input) => loop.snapshot().activeTurnId !== turnId ? void 0 : new Promise((resolve) => {
		loop.notify({
			message: {
				role: "user",
				content: gateImageFormatParts(input, agent.accessor.get(IAgentProfileService).getModelProviderType()),
				id: newMessageId(),
				toolCalls: [],
				origin: markInTurnOrigin({ kind: "user" })
			},
			bypassMaxSteps: true,
			onConsume: () => resolve({ turn_id: turnId }),
			onDrop: () => resolve(void 0)
		});
	}), cancelFromUser: (turnId) => {\n`);
    text = swap(text, "agentLoopContract = { cancelFromUser: {\n", `agentLoopContract = { steerFromUser: {
		input: tuple([number$1(), array(promptPartSchema)]),
		output: maybe(promptLaunchResultSchema)
	}, cancelFromUser: {\n`);
    text = swap(text, '\n\t\tcancel: (input) => call(scope, "agentLoopService", "cancelFromUser",',
      '\n\t\tsteerTurn: (turnId, input) => call(scope, "agentLoopService", "steerFromUser", [turnId, input]),' +
      '\n\t\tcancel: (input) => call(scope, "agentLoopService", "cancelFromUser",');
    // The ACP server. Two steers keep their order, also when the first has a picture that takes its time. A turn may have
    // been asked for and not begun. Its answer waits until its steers are told, so that the client can go by its order.
    text = swap(text, "\n\t\tasync preparePromptContent(blocks) {\n", `
		async steer(blocks) {
			const driver = this.driver;
			if (driver === void 0) return { taken: false };
			const prepared = this.lastSteer = (this.lastSteer ?? Promise.resolve()).catch(() => void 0).then(() => this.preparePromptContent(blocks));
			const steer = Promise.all([prepared, driver.launch]).then(([content]) => content?.length && driver.turnId !== void 0 && !driver.settled ? this.agent.steerTurn(driver.turnId, content) : void 0);
			driver.steers.push(steer);
			return { taken: await steer !== void 0 };
		}
		async preparePromptContent(blocks) {\n`);
    text = swap(text, "\t\t\t\tconst driver = {\n\t\t\t\t\tresolve,\n", "\t\t\t\tconst driver = {\n\t\t\t\t\tlaunch,\n\t\t\t\t\tsteers: [],\n\t\t\t\t\tresolve,\n");
    text = swap(text, "\t\t\tif (this.driver === driver) this.driver = void 0;\n\t\t\taction();\n",
      "\t\t\tif (this.driver === driver) this.driver = void 0;\n\t\t\tif (driver.steers.length > 0) Promise.allSettled(driver.steers).then(action);\n\t\t\telse action();\n");
    text = swap(text, "\n\t\tasync setSessionMode(params) {\n\t\t\tconst acpSession =", `
		async steer(params) {
			const acpSession = this.sessions.get(params.sessionId);
			if (!acpSession) throw RequestError$1.invalidParams(void 0, \`Unknown sessionId: \${params.sessionId}\`);
			return acpSession.steer(params.prompt);
		}
		async setSessionMode(params) {
			const acpSession =`);
    for (const used of ["\nfunction gateImageFormatParts(parts, providerType)", "\nfunction markInTurnOrigin(origin)", "\nfunction newMessageId()", "\tIAgentProfileService = createDecorator("])
      swap(text, used, "");
    // Before the other methods: each one that is asked before costs a moment, and a steer must not be overtaken by the prompt
    // of the next turn, which may hold the same message.
    return swap(text, '\n\treturn agent({ name: "kimi-code-acp" })', '\n\treturn agent({ name: "kimi-code-acp" }).onRequest("_session/steer", (params) => params ?? {}, (ctx) => getServer().steer(ctx.params))');
  },

  // zod makes some 12,000 schemas while the engine starts, and gives each some 60 functions of its own; few are ever used.
  // Now a new schema only remembers its definition. Its prototype is a proxy, which makes the rest at the first look at
  // it, with zod's own code, and then is the prototype no more. Most are asked at once to be wrapped, as optional and the
  // like; that needs none of the rest, so it does not wake them. Errors (they have a Parent) are as before.
  "schemas sleep until they are looked at"(text) {
    text = swap(text, "function $constructor(name, initializer, params) {\n", `
const asleep = new WeakMap(), clonedFrom = new WeakMap();
const wrappers = {
	optional: (inst) => optional(inst),
	nullable: (inst) => nullable(inst),
	nullish: (inst) => optional(nullable(inst)),
	catch: (inst, value) => _catch(inst, value)
};
function $constructor(name, initializer, params) {
	const wraps = /^Zod(?!Mini)/.test(name);
	const wake = (inst) => {
		const def = asleep.get(inst);
		if (def === undefined) return;
		asleep.delete(inst);
		make(Object.setPrototypeOf(inst, _.prototype), def);
		if (clonedFrom.has(inst)) inst._zod.parent = clonedFrom.get(inst);
		clonedFrom.delete(inst);
	};
	const sleeper = new Proxy(_.prototype, {
		get(prototype, key, inst) {
			if (wraps && Object.hasOwn(wrappers, key) && asleep.has(inst)) return (value) => wrappers[key](inst, value);
			wake(inst);
			return Reflect.get(inst, key);
		},
		has: (prototype, key) => key === "_zod" || Reflect.has(prototype, key),
		set(prototype, key, value, inst) {
			wake(inst);
			return Reflect.set(inst, key, value);
		}
	});
`);
    // Where zod makes an instance: the beginning of its function, and the rest of it as a function of its own.
    text = swap(text, "const inst = params?.Parent ? new Definition() : this;\n", `const inst = params?.Parent ? new Definition() : this;
		if (!params?.Parent && new.target === _ && def !== undefined) {
			asleep.set(inst, def);
			return Object.setPrototypeOf(inst, sleeper);
		}
		return make(inst, def);
	}
	function make(inst, def) {
		var _a;
`);
    // These are what the proxy calls, as zod does.
    for (const line of ["optional = () => optional(inst)", "nullable = () => nullable(inst)", "nullish = () => optional(nullable(inst))", "catch = (params) => _catch(inst, params)"])
      swap(text, `\n\t\tinst.${line};\n`, "");
    for (const name of ["optional", "nullable", "_catch"])
      swap(text, new RegExp(`^function ${name}\\(innerType`, "gm"), "");
    // A clone is told of its parent right after it was made.
    return swap(text, "cl._zod.parent = inst;", "if (asleep.has(cl)) clonedFrom.set(cl, inst); else cl._zod.parent = inst;");
  },

  // And those that do wake get their functions each when it is first asked for, as newer versions of zod have it.
  "schemas make their functions when asked"(text) {
    // Every line or block `inst.name = (...) => ...;` in what makes a schema becomes a maker of that function.
    let [makers, count] = [0, 0];
    text = text.replace(/(= \/\* @__PURE__ \*\/ \$constructor\("(?:ZodType|_ZodString|ZodString|ZodNumber|ZodArray|ZodObject)", \(inst, def\) => \{\n)([^]*?)\n\t\}\);/g, (_, head, body) => {
      const methods = new Map();
      const rest = `${body}\n`.replace(/^\t\tinst\.(\w+) = ((?:async )?\(.*\) => (?:.*[^{\n]|(?:inst\.clone\()?\{\n(?:\t{3}.*\n)*\t\t\}\)?)|inst\.\w+|createToJSONSchemaMethod\(inst, \{\}\));\n/gm, (_, name, value) => {
        methods.set(name, value);
        count += 1;
        return "";
      });
      makers += 1;
      const all = Array.from(methods, ([name, value]) => `\t\t${name}: (inst, def) => ${value}`);
      return `${head}${rest}\t}, void 0, {\n${all.join(",\n")}\n\t});`;
    });
    if (makers !== 6 || count !== METHODS) throw new Unfit(`${count} functions in ${makers} kinds of schemas`);
    text = swap(text, /^function \$constructor\(name, initializer, params\) \{\n/gm, `
function lend(inst, methods) {
	const prototype = Object.getPrototypeOf(inst);
	const keep = (inst, name, value) => Object.defineProperty(inst, name, { value, writable: true, enumerable: true, configurable: true });
	for (const name of Object.keys(methods)) Object.defineProperty(prototype, name, {
		get() {
			const value = methods[name](this, this._zod.def);
			keep(this, name, value);
			return value;
		},
		set(value) {
			keep(this, name, value);
		},
		configurable: true
	});
}
function $constructor(name, initializer, params, methods) {
	const lent = new WeakSet();
`);
    return swap(text, "\t\tinst._zod.traits.add(name);\n\t\tinitializer(inst, def);\n", `\t\tinst._zod.traits.add(name);
		initializer(inst, def);
		const prototype = Object.getPrototypeOf(inst);
		if (methods && !lent.has(prototype)) {
			lent.add(prototype);
			lend(inst, methods);
		}
`);
  },

  // A list of all models of all makers, 2 MB, for `/provider`: read from a file when it is asked for.
  "the list of models lies in a file"(text) {
    const [whole, quoted] = /^\tBUILT_IN_MODELS_DEV_JSON = ("(?:[^"\\]|\\.)*");\n/m.exec(text) ?? ["no list"];
    text = swap(text, whole, "");
    text = swap(text, "loadBuiltInModelsDevCatalog(BUILT_IN_MODELS_DEV_JSON)",
      'loadBuiltInModelsDevCatalog(readFileSync(new URL("./models-dev.json", import.meta.url), "utf8"))');
    swap(text, /\bBUILT_IN_MODELS_DEV_JSON\b/g, "", 1);
    const list = JSON.parse(quoted);
    JSON.parse(list);
    writeFileSync(join(dist, "models-dev.json"), list);
    return text;
  },

  // A package for WebSockets, which only one API's live conversations want: loaded when they do.
  "web sockets are loaded when wanted"(text) {
    return swap(text, 'import * as NodeWs from "ws";\n', 'const NodeWs = { get WebSocket() { return __require("ws").WebSocket; } };\n');
  },
};

/** Only what `kimi acp` reaches; without this nothing pays. */
function reached(text) {
  // Modules are functions which others call, so that nobody outside can see that they do nothing else.
  text = text.replace(/(?<== )(?=__(?:esmMin|commonJSMin|toESM|exportAll)\()/g, "/* @__PURE__ */ ");
  // The modules of the command line are not functions: they run as they come. Now they do not, unless it is the one for
  // acp, or what they declare is used.
  const loose = [];
  const regions = text.split(/^(?=\/\/#region )/m).map((region) => {
    const wrapped = /= \/\* @__PURE__ \*\/ __(?:esmMin|commonJSMin)\(/.test(region);
    if (region.startsWith(`//#region ${START}`) || (wrapped && !/^init_[\w$]+\(\);\n/m.test(region))) return region;
    loose.push(region);
    return region.replace(/^init_[\w$]+\(\);\n/gm, "").replace(
      /^((?:const|let|var) [\w$]+) = (?!\/\* @__PURE|(?:async )?\(.*=> \{|(?:async )?function)((?:.|\n(?![a-zA-Z]))*?);\n(?=[a-zA-Z\/]|$)/gm,
      (_, name, value) => `${name} = /* @__PURE__ */ (() => (${value}))();\n`);
  });
  const last = regions.findLastIndex((region) => region.startsWith("//#region src/main.ts\n"));
  swap(text, "//#region src/main.ts\n", "");
  for (const name of ["installCrashHandlers", "installGlobalProxyDispatcher", "registerAcpCommand"])
    swap(text, `\nfunction ${name}(`, "");
  swap(text, /^\tPROCESS_NAME = "/gm, "");
  // What its main() does where nothing is to be updated, and the command itself, without a parser for its options.
  regions[last] = `
process.title = PROCESS_NAME;
installCrashHandlers();
installGlobalProxyDispatcher();
const command = { command: () => command, description: () => command, option: () => command, action: (run) => run({ login: false }) };
registerAcpCommand(command);
`;
  return [regions.join(""), loose];
}

const START = "src/cli/sub/acp.ts\n";
/** Reached by name from there, but only for --login, which is never given. */
const NEVER_RUN = "src/cli/sub/login-flow.ts\n";

/** What loads the lighter bundle, which lies beside it. */
const LOADER = `// Made by lighten.mjs.
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { Script } from "node:vm";

const place = new URL("./acp.cjs", import.meta.url);
/** Where precompile.mjs keeps what V8 has compiled. */
export const COMPILED = new URL("./acp.compiled", import.meta.url);
const [before, after] = ['(function (exports, require, module, __dirname, __url) { "use strict";', "\\n})"];
export const script = new Script(before + readFileSync(place, "latin1") + after, {
  filename: fileURLToPath(place),
  cachedData: existsSync(COMPILED) ? readFileSync(COMPILED) : undefined,
});
const module = { exports: {} };
script.runInThisContext()(module.exports, createRequire(import.meta.url), module, import.meta.dirname, import.meta.url);
`;

async function lighter() {
  let text = readFileSync(join(dist, "main.mjs"), "utf8");
  for (const [name, change] of Object.entries(changes)) {
    try {
      text = change(text);
    } catch (error) {
      process.stderr.write(`lighten: left out "${name}": ${error.message}\n`);
    }
  }
  const [source, loose] = reached(text);
  const { default: tool } = await import(pathToFileURL(resolve(esbuild)));
  // Names stay as they are: some are told to the model and to the log.
  const made = await tool.build({
    stdin: { contents: source, resolveDir: dist, sourcefile: "main.mjs", loader: "js" },
    // Packages and Node's own modules stay outside, and none is loaded that nothing uses.
    plugins: [{ name: "outside", setup: (build) => build.onResolve({ filter: /^[^.\/]/ }, () => ({ external: true, sideEffects: false })) }],
    bundle: true, platform: "node", format: "cjs", target: "node22", charset: "ascii",
    define: { "import.meta.url": "__url", "import.meta.dirname": "__dirname" }, supported: { "dynamic-import": false },
    minifyWhitespace: true, minifySyntax: true, legalComments: "none", logLevel: "silent", write: false,
  });
  let result = made.outputFiles[0].text.replace(/^#!.*\n/, "");
  // One character beyond ASCII makes Node keep all of it in twice the space. esbuild leaves them in regular expressions.
  result = result.replace(/[^\x00-\x7f]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
  // Whatever else of the command line is reached was not made ready.
  const kept = new Set(Array.from(result.matchAll(/\bfunction\*? ([\w$]+)\(/g), (found) => found[1]));
  for (const region of loose) {
    if (region.startsWith(`//#region ${NEVER_RUN}`)) continue;
    for (const [, name] of region.matchAll(/^(?:async )?function\*? ([\w$]+)\(/gm)) {
      if (kept.has(name) && text.split(`function ${name}(`).length === 2)
        throw new Unfit(`${name} of ${region.slice(10, region.indexOf("\n"))} is reached`);
    }
  }
  return result;
}

/** Whether `kimi acp` from this file answers; what it says otherwise. */
async function tried(file) {
  const home = mkdtempSync(join(tmpdir(), "lighten-"));
  try {
    const engine = spawn(process.execPath, [file, "acp"], {
      cwd: home, env: { PATH: process.env.PATH, HOME: home, KIMI_CODE_HOME: home, KIMI_DISABLE_TELEMETRY: "1", KIMI_CODE_NO_AUTO_UPDATE: "1" },
    });
    const over = setTimeout(() => engine.kill("SIGKILL"), 60_000);
    let said = "";
    engine.stdout.on("data", (data) => (said += data));
    engine.stderr.on("data", (data) => (said += data));
    engine.stdin.end('{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":1}}\n');
    const code = await new Promise((resolve) => engine.on("close", resolve));
    clearTimeout(over);
    const answer = said.split("\n").find((line) => line.includes('"agentCapabilities"'));
    if (code !== 0 || !answer) throw new Unfit(`it does not answer (${code}): ${said.trim().slice(0, 200)}`);
    const { authMethods, ...rest } = JSON.parse(answer).result;
    return JSON.stringify(rest);
  } finally {
    rmSync(home, { recursive: true, force: true });
  }
}

const [main, whole, acp, light] = ["main.mjs", "whole.mjs", "acp.cjs", "light.mjs"].map((name) => join(dist, name));
if (existsSync(whole)) {
  process.stderr.write("lighten: the engine is light already\n");
  process.exit(0);
}
try {
  writeFileSync(acp, await lighter());
  writeFileSync(light, LOADER);
  const before = await tried(main);
  writeFileSync(`${main}.new`, `#!/usr/bin/env node
// Made by lighten.mjs.
await import(process.argv.length === 3 && process.argv[2] === "acp" ? "./light.mjs" : "./whole.mjs");
`, { mode: 0o755 });
  renameSync(main, whole);
  renameSync(`${main}.new`, main);
  try {
    const after = await tried(main);
    if (before !== after) throw new Unfit(`it answers differently: ${after.slice(0, 200)}`);
  } catch (error) {
    renameSync(whole, main);
    throw error;
  }
} catch (error) {
  process.stderr.write(`lighten: the engine stays as it was: ${error.message}\n`);
  for (const left of [acp, light, join(dist, "models-dev.json")]) rmSync(left, { force: true });
}
