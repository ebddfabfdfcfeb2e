import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError } from "../base/errors.ts";
import { readSettings, setting } from "../base/settings.ts";
import { reportError } from "./report-error.ts";

test("settings that are wrong are said once, in words", () => {
  const rule = { env: null, default: 1, min: 1, max: 9, description: "Some." };
  const table = {
    jobs: setting.integer({ ...rule, flag: "--jobs" }),
    cpus: setting.integer({ ...rule, flag: "--cpus" }),
  };
  let failure: unknown;
  try {
    readSettings(table, { env: {}, flags: { jobs: "0", cpus: "x" } });
  } catch (error) {
    failure = error;
  }
  assert.deepEqual(reportError(failure, false), {
    text:
      'hodei: read settings: 2 problems; --jobs: "0" is not a whole number from 1 to 9; ' +
      '--cpus: "x" is not a whole number from 1 to 9\n',
    exitCode: 2,
  });
});

test("each problem of a file has a line of its own", () => {
  const error = new AppError("invalid_argument", "read a.yaml: 2 problems", {
    details: { problems: ["a.yaml:1: one", "a.yaml:2: two"] },
  });
  assert.equal(
    reportError(error, false).text,
    "hodei: read a.yaml: 2 problems\n  a.yaml:1: one\n  a.yaml:2: two\n",
  );
});
