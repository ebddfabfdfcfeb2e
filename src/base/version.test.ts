import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { VERSION } from "./version.ts";

test("the version is that of package.json", () => {
  const text = readFileSync("package.json", "utf8");
  assert.equal(VERSION, (JSON.parse(text) as { version: string }).version);
});
