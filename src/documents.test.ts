import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { agentSettings } from "./agent/settings.ts";
import { checkoutRoot } from "./base/checkout-root.ts";
import { settingsMarkdown } from "./base/settings.ts";
import { jobStateDiagram } from "./core/job-state-diagram.ts";
import { JOB_STATES, CAUSES } from "./core/job.ts";
import { serverSettings } from "./server/settings.ts";

const REPAIR = "run: npm run build && node scripts/print-documents.mjs";

test("docs/states.md shows the table of job states as it is", () => {
  const diagram = /```mermaid\n([\s\S]*?)```/.exec(read("docs/states.md"))?.[1];
  assert.equal(diagram, jobStateDiagram(), REPAIR);
});

test("docs/states.md describes every state and every cause", () => {
  const text = read("docs/states.md");
  for (const name of [...JOB_STATES, ...CAUSES])
    assert.match(text, new RegExp(`^\\| \`${name}\` \\|`, "m"), name);
});

test("docs/configuration.md shows the settings of every process as they are", () => {
  const text = read("docs/configuration.md");
  assert.ok(text.includes(settingsMarkdown("`hodei server` and `hodei dev`", serverSettings)), REPAIR);
  assert.ok(text.includes(settingsMarkdown("`hodei agent`", agentSettings)), REPAIR);
});

test("docs/configuration.md names every variable that the program uses", () => {
  const text = read("docs/configuration.md");
  for (const [variable, path] of variablesInSources()) {
    assert.ok(text.includes(`\`${variable}\``), `${variable} of ${path}`);
  }
});

test("docs/decisions/005 gives a reason for every dependency, and for nothing else", () => {
  const page = JSON.parse(read("package.json")) as Record<
    "dependencies" | "devDependencies",
    Record<string, string>
  >;
  const rows = read("docs/decisions/005-dependencies.md")
    .split("\n")
    .filter((line) => line.startsWith("| `"));
  const explained = rows.flatMap((line) =>
    [...(line.split("|")[1] ?? "").matchAll(/`([^`]+)`/g)].map(([, name]) => name),
  );
  const expected = [...Object.keys(page.dependencies), ...Object.keys(page.devDependencies)];
  assert.deepEqual(new Set(explained), new Set(expected));
  assert.equal(explained.length, expected.length, "each once");
});

test("every source file that the documents name exists", () => {
  const documents = [
    "CONTRIBUTING.md",
    "docs/states.md",
    ...list("docs/decisions").map((name) => `docs/decisions/${name}`),
  ];
  for (const path of documents) {
    for (const [, named = ""] of read(path).matchAll(/`((?:src|scripts|docs|proto)\/[\w./-]+\.\w+)`/g)) {
      assert.ok(existsSync(join(checkoutRoot(), named)), `${named} in ${path}`);
    }
  }
});

function variablesInSources(): Map<string, string> {
  const variables = new Map<string, string>();
  for (const name of list("src")) {
    if (!name.endsWith(".ts") || /(^|[/-])(test|fake)[-./]|\.test\.ts$|\/gen\//.test(name)) continue;
    for (const [, variable = ""] of read(`src/${name}`).matchAll(/["'.](HODEI_[A-Z_]*[A-Z])\b/g))
      variables.set(variable, name);
  }
  assert.ok(variables.size > 10);
  return variables;
}

function read(path: string): string {
  return readFileSync(join(checkoutRoot(), path), "utf8");
}

function list(folder: string): string[] {
  return readdirSync(join(checkoutRoot(), folder), { recursive: true, encoding: "utf8" });
}
