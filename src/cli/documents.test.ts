import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { checkoutRoot } from "../base/checkout-root.ts";
import { parseJobFile } from "../spec/job-file.ts";
import { jobSchema, resourcesSchema, retrySchema, scriptSchema, stepSchema } from "../spec/job-schema.ts";
import { parsePoolFile } from "../spec/pool-file.ts";
import { dockerSchema, poolResourcesSchema, poolSchema } from "../spec/pool-schema.ts";
import { formatProblem } from "../spec/problem.ts";
import { CLI_COMMANDS } from "./commands/table.ts";
import { EXIT_CODE_HELP, JOB_EXIT_CODE_HELP } from "./exit-codes.ts";

function read(path: string): string {
  return readFileSync(join(checkoutRoot(), path), "utf8");
}

test("docs/cli.md names every command and every exit code", () => {
  const text = read("docs/cli.md");
  for (const { name } of CLI_COMMANDS) assert.match(text, new RegExp(`^\\| .*\`hodei ${name}\\b`, "m"), name);
  for (const { code, meaning } of [...EXIT_CODE_HELP, ...JOB_EXIT_CODE_HELP]) {
    assert.ok(text.includes(`\n| ${code} | ${meaning} |\n`), code);
  }
});

test("docs/job-file.md names every key", () => {
  const text = read("docs/job-file.md");
  for (const schema of [jobSchema, stepSchema, scriptSchema, resourcesSchema, retrySchema]) {
    for (const key of Object.keys(schema.shape)) assert.ok(text.includes(`\`${key}\``), key);
  }
});

test("docs/pools.md names every key of a pool", () => {
  const text = read("docs/pools.md");
  for (const schema of [poolSchema, dockerSchema, poolResourcesSchema]) {
    for (const key of Object.keys(schema.shape)) assert.ok(text.includes(`\`${key}\``), key);
  }
});

test("the example of a pool file has no problem", () => {
  const result = parsePoolFile(read("examples/pools.yaml"));
  assert.ok(
    result.ok,
    result.ok ? "" : result.problems.map((each) => formatProblem(each, "pools")).join("\n"),
  );
});

test("the examples are job files without a problem", () => {
  for (const name of ["hello", "check", "compile"]) {
    const result = parseJobFile(read(`examples/${name}.yaml`), { fileName: `${name}.yaml` });
    assert.ok(
      result.ok,
      result.ok ? "" : result.problems.map((problem) => formatProblem(problem, name)).join("\n"),
    );
    assert.equal(result.jobs[0]?.definition.name, name);
  }
});
