import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { bash, makeStep, startRunnerUnderTest, type FakeAgent, type RunnerUnderTest } from "../fake-agent.ts";
import { MAX_SUMMARY_BYTES } from "./job-files.ts";
import { parseOutputs } from "./output-file.ts";
import { parseProgress } from "./progress-file.ts";

let setup: RunnerUnderTest;
let agent: FakeAgent;
before(async () => {
  setup = await startRunnerUnderTest();
  agent = setup.agent;
});
after(() => setup.stop());

describe("what a job tells Hodei", { concurrency: true }, () => {
  test("outputs of all steps are in the result; a bad line is reported with its number", async () => {
    const end = await agent.finish({
      steps: [
        makeStep("one", `echo "version=1.2=3" >> "$HODEI_OUTPUT"; echo nonsense >> "$HODEI_OUTPUT"`),
        makeStep("two", `printf 'notes<<END\\nfirst\\n\\nsecond\\nEND\\n' >> "$HODEI_OUTPUT"`),
      ],
    });
    assert.deepEqual(end.outputs, { version: "1.2=3", notes: "first\n\nsecond" });
    assert.equal(end.state, "succeeded");
    assert.match(end.log, /HODEI_OUTPUT line 2: expected key=value/);
    assert.match(end.message, /HODEI_OUTPUT line 2/);
  });

  test("too many outputs are cut, and the message says so", async () => {
    const end = await agent.finish(bash(`for i in $(seq 1200); do echo "k$i=v"; done > "$HODEI_OUTPUT"`));
    assert.equal(Object.keys(end.outputs).length, 1_000);
    assert.match(end.message, /only 1000 keys are kept; 200 more were ignored/);
    const long = await agent.finish(
      bash(`(echo a=1; head -c 1100000 /dev/zero | tr '\\0' x; echo; echo b=2) > "$HODEI_OUTPUT"`),
    );
    assert.deepEqual(long.outputs, { a: "1" });
    assert.match(long.message, /what lies beyond 1048576 was ignored/);
  });

  test("a summary is text, cut at a megabyte", async () => {
    const end = await agent.finish(bash(`echo "# Done ü" > "$HODEI_SUMMARY"`));
    assert.equal(end.summary, "# Done ü\n");
    const long = await agent.finish(bash(`head -c 1500000 /dev/zero | tr '\\0' x > "$HODEI_SUMMARY"`));
    assert.ok(Buffer.byteLength(long.summary) <= MAX_SUMMARY_BYTES);
    assert.match(long.summary, /\[cut: the summary has 1500000 bytes/);
  });

  test("a pipe or directory in the place of a file holds up nothing", async () => {
    const end = await agent.finish(bash(`mkfifo "$HODEI_OUTPUT" "$HODEI_PROGRESS"; mkdir "$HODEI_SUMMARY"`));
    assert.equal(end.state, "succeeded");
    assert.match(end.message, /HODEI_OUTPUT could not be read: it is not a regular file/);
    assert.match(end.message, /HODEI_SUMMARY could not be read/);
  });

  test("progress is told while the job runs, and the last one before the result", async () => {
    const attemptId = agent.run(
      bash(
        `echo "10 first" > "$HODEI_PROGRESS"; while ! [ -e go ]; do sleep 0.02; done; echo 100% >> "$HODEI_PROGRESS"`,
      ),
    );
    const told = await agent.next("progress", (message) => message.attemptId === attemptId);
    assert.deepEqual(told.progress, { percent: 10, message: "first" });
    const release = bash(`touch "${setup.directory}/attempts/${attemptId}/workspace/go"`);
    await agent.finish(release);
    await agent.result(attemptId);
    const kinds = agent.heard
      .filter((message) => "attemptId" in message && message.attemptId === attemptId)
      .map(({ type }) => type);
    assert.deepEqual(
      kinds.filter((type) => type === "progress" || type === "result"),
      ["progress", "progress", "result"],
    );
  });
});

describe("progress lines", () => {
  test("may have a percent sign, a message, a fraction; the newest that can be read counts", () => {
    assert.deepEqual(parseProgress("1\n42 compiling ü\n"), { percent: 42, message: "compiling ü" });
    assert.deepEqual(parseProgress("42%"), { percent: 42, message: "" });
    assert.deepEqual(parseProgress("12.5 % half way\nnonsense\n"), { percent: 12.5, message: "half way" });
    assert.deepEqual(parseProgress("900 too much\n"), { percent: 100, message: "too much" });
    assert.equal(parseProgress("none\n-1\n"), null);
  });
});

describe("output lines", () => {
  test("keep everything after the first equals sign, and the last value of a key", () => {
    assert.deepEqual(parseOutputs("a=1\r\nb= x = y \na=2\n\nc=").outputs, { a: "2", b: " x = y ", c: "" });
  });

  test("a value that has << in it is a value", () => {
    assert.deepEqual(parseOutputs("a=b<<c\n").outputs, { a: "b<<c" });
  });

  test("every problem names its line", () => {
    const { outputs, problems } = parseOutputs("1a=x\nok=1\nopen<<END\nlost\n");
    assert.deepEqual(outputs, { ok: "1" });
    assert.deepEqual(
      problems.map((text) => text.slice(0, 21)),
      ["HODEI_OUTPUT line 1: ", "HODEI_OUTPUT line 3: ", "HODEI_OUTPUT line 4: "],
    );
  });

  test("a key named like a property of every object is only a key", () => {
    assert.equal(Object.hasOwn(parseOutputs("__proto__=x\n").outputs, "__proto__"), true);
  });
});
