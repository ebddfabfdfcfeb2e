import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { CommandSpec } from "../core/job.ts";
import { bash, makeStep, startRunnerUnderTest, type FakeAgent, type RunnerUnderTest } from "./fake-agent.ts";
import { planScript } from "./job/script-file.ts";

let setup: RunnerUnderTest;
let agent: FakeAgent;
before(async () => {
  setup = await startRunnerUnderTest();
  agent = setup.agent;
});
after(() => setup.stop());

function shell(cmd: string, ...args: string[]): { command: CommandSpec } {
  return { command: { kind: "shell", cmd, args } };
}

function script(interpreter: string, content: string, safetyHeaders = true): { command: CommandSpec } {
  return { command: { kind: "script", interpreter, content, safetyHeaders } };
}

describe("shell commands", { concurrency: true }, () => {
  test("arguments reach the program as they are", async () => {
    const words = ["a b", `"`, "'", "$HOME", "*", "", "\\", "ü\n!"];
    const end = await agent.finish(shell("printf", "%s|", ...words));
    assert.equal(end.state, "succeeded");
    assert.equal(end.exitCode, 0);
    assert.equal(end.log, words.map((word) => `${word}|`).join(""));
  });

  test("an exit code and a signal are told apart", async () => {
    const code = await agent.finish(shell("bash", "-c", "exit 7"));
    assert.deepEqual(
      [code.state, code.cause, code.exitCode, code.message],
      ["failed", "exit_code", 7, "exit code 7"],
    );
    const signal = await agent.finish(shell("bash", "-c", "kill -KILL $$"));
    assert.deepEqual([signal.cause, signal.exitCode, signal.signal], ["signal", null, "SIGKILL"]);
  });

  test("a command that is not there is named, with where it was looked for", async () => {
    const end = await agent.finish({ ...shell("no-such-command"), env: { PATH: "/bin:/nowhere" } });
    assert.deepEqual([end.state, end.cause, end.startedAtMs], ["failed", "start_failed", null]);
    assert.equal(end.message, "command not found: no-such-command (looked in PATH=/bin:/nowhere)");
    assert.match(end.log, /command not found: no-such-command/);
  });

  test("a command is looked up in the PATH of the job", async () => {
    const bin = join(setup.directory, "bin");
    await mkdir(bin, { recursive: true });
    await writeFile(join(bin, "only-here"), "#!/bin/sh\necho found it\n", { mode: 0o755 });
    const end = await agent.finish({ ...shell("only-here"), env: { PATH: `${bin}:/usr/bin:/bin` } });
    assert.equal(end.log, "found it\n");
  });

  test("what cannot be executed is explained", async () => {
    const plain = join(setup.directory, "plain.txt");
    await writeFile(plain, "text", { mode: 0o644 });
    const broken = join(setup.directory, "broken");
    await writeFile(broken, "#!/no/such/interpreter\n", { mode: 0o755 });
    const messages = await Promise.all(
      [plain, setup.directory, broken, "/no/such/file", ""].map(
        async (file) => (await agent.finish(shell(file))).message,
      ),
    );
    assert.deepEqual(messages, [
      `command is not executable: ${plain}`,
      `command is a directory: ${setup.directory}`,
      `cannot start ${broken}: the interpreter in its first line, or its loader, is missing`,
      "command not found: /no/such/file",
      "the command is empty",
    ]);
  });

  test("arguments that are too long, or hold a zero byte, do not start", async () => {
    const long = await agent.finish(shell("true", "x".repeat(3_000_000)));
    assert.deepEqual(
      [long.cause, long.message],
      ["start_failed", "cannot start true: arguments and environment are too long for this system"],
    );
    const zero = await agent.finish(shell("true", "a\0b"));
    assert.equal(zero.cause, "start_failed");
  });

  test("the working directory is relative to the workspace, and a missing one is named", async () => {
    const absolute = await agent.finish({ ...shell("pwd"), workingDirectory: "/usr" });
    assert.equal(absolute.log, "/usr\n");
    const missing = await agent.finish({ ...shell("pwd"), workingDirectory: "no/such" });
    assert.equal(missing.cause, "start_failed");
    assert.match(missing.message, /^working directory not found: .*\/workspace\/no\/such$/);
    const inside = await agent.finish({
      steps: [makeStep("make", "mkdir sub"), makeStep("use", "pwd", { workingDirectory: "sub" })],
    });
    assert.match(inside.log, /\/workspace\/sub\n/);
  });

  test("standard input is empty", async () => {
    const end = await agent.finish(shell("wc", "-c"));
    assert.equal(end.log.trim(), "0");
  });

  test("outputs that are opened again by their name work", async () => {
    const end = await agent.finish(
      shell("bash", "-c", "echo one > /dev/stdout; echo two > /dev/stderr; echo three | tee /dev/stderr"),
    );
    assert.equal(end.state, "succeeded", end.log);
    assert.equal(await agent.logBytes(end.attemptId, "stderr").then(String), "two\nthree\n");
  });
});

describe("scripts", { concurrency: true }, () => {
  test("bash scripts stop at the first error, at unset variables, and within pipes", async () => {
    for (const content of ["false\necho on", "echo $unset_variable\necho on", "false | true\necho on"]) {
      const end = await agent.finish(bash(content));
      assert.equal(end.cause, "exit_code", content);
      assert.doesNotMatch(end.log, /^on$/m);
    }
  });

  test("safety headers can be left out", async () => {
    const end = await agent.finish(script("bash", "false\necho $unset_variable on", false));
    assert.deepEqual([end.state, end.log], ["succeeded", "on\n"]);
  });

  test("sh stops at the first error", async () => {
    assert.equal((await agent.finish(script("sh", "false\necho on"))).cause, "exit_code");
  });

  test("an interpreter may be a name, a path, or env with arguments", async () => {
    const content = "console.log(1 + 1, process.argv.length)";
    for (const interpreter of [
      "node",
      process.execPath,
      "/usr/bin/env node",
      "/usr/bin/env -S node --no-warnings",
    ]) {
      const end = await agent.finish(script(interpreter, content));
      assert.equal(end.log, "2 2\n", interpreter);
    }
  });

  test("a script's own shebang is followed, and keeps its safety headers", async () => {
    const other = await agent.finish(script("bash", "#!/usr/bin/env node\nconsole.log('by node')"));
    assert.equal(other.log, "by node\n");
    const own = await agent.finish(script("node", "#!/bin/bash\nfalse\necho on"));
    assert.deepEqual([own.cause, own.log], ["exit_code", ""]);
  });

  test("an interpreter that is not there is named", async () => {
    for (const interpreter of ["no-such-interpreter", "/usr/bin/env no-such-interpreter"]) {
      const end = await agent.finish(script(interpreter, "x"));
      assert.equal(end.cause, "start_failed");
      assert.match(end.message, /^interpreter not found: no-such-interpreter \(looked in PATH=/);
    }
  });

  test("a script can run itself again, is private, and its text is gone afterwards", async () => {
    const end = await agent.finish(
      bash(`[ $# = 1 ] || { stat -c %a "$0" "$(dirname "$0")"; echo "$0"; "$0" again; }`),
    );
    assert.equal(end.state, "succeeded", end.log);
    const [mode, directoryMode, path] = end.log.split("\n");
    assert.deepEqual([mode, directoryMode], ["700", "700"]);
    assert.equal(
      await readFile(path ?? "", "utf8").catch(() => ""),
      "",
      "it is empty, or not there any more",
    );
  });

  test("the first line names the interpreter in a way that a kernel can follow", () => {
    const texts = ["bash", "/bin/sh", "node --no-warnings", "/usr/bin/env python3"].map(
      (interpreter) => planScript({ interpreter, content: "x\n", safetyHeaders: true }).text,
    );
    assert.deepEqual(texts, [
      "#!/usr/bin/env bash\nset -euo pipefail\nx\n",
      "#!/bin/sh\nset -eu\nx\n",
      "#!/usr/bin/env -S node --no-warnings\nx\n",
      "#!/usr/bin/env python3\nx\n",
    ]);
  });
});

describe("the environment", () => {
  test("is made of a few inherited variables, those of Hodei, the job's and the step's", async () => {
    const end = await agent.finish({
      steps: [makeStep("env", "env", { env: { B: "step", HODEI_ATTEMPT_ID: "forged" } })],
      env: { A: "job", B: "job" },
      name: "my job",
    });
    const found = new Map(
      end.log
        .split("\n")
        .map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]),
    );
    const expected = {
      A: "job",
      B: "step",
      CI: "true",
      HODEI: "true",
      HODEI_ATTEMPT: "1",
      HODEI_ATTEMPT_ID: end.attemptId,
      HODEI_JOB_ID: `job-of-${end.attemptId}`,
      HODEI_JOB_NAME: "my job",
    };
    for (const [name, value] of Object.entries(expected)) assert.equal(found.get(name), value, name);
    const root = join(setup.directory, "attempts", end.attemptId);
    assert.equal(found.get("HODEI_WORKSPACE"), join(root, "workspace"));
    assert.equal(found.get("TMPDIR"), join(root, "tmp"));
    assert.equal(found.has("HODEI_TOKEN"), false);
  });
});
