import assert from "node:assert/strict";
import { test } from "node:test";
import { commandOf, useBroughtPrograms } from "./brought-programs.ts";

test("are those of the machine, unless the worker brings its own with a loader", (t) => {
  t.after(() => useBroughtPrograms(""));
  assert.deepEqual(commandOf("node"), { file: process.execPath, args: [] });
  assert.deepEqual(commandOf("mkfifo"), { file: "mkfifo", args: [] });
  useBroughtPrograms("/x/ld.so --library-path /x/lib /x/bin/");
  assert.deepEqual(commandOf("mkfifo"), {
    file: "/x/ld.so",
    args: ["--library-path", "/x/lib", "/x/bin/mkfifo"],
  });
});
