import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { jobNameFromFile, parseJobFile, type ParsedJob } from "./job-file.ts";
import { jobFileJsonSchema } from "./job-schema.ts";
import { formatProblem, type Problem } from "./problem.ts";
import { MAX_SOURCE_BYTES } from "./source-entries.ts";

function jobs(text: string | Uint8Array, fileName = "dir/hello.yaml"): ParsedJob[] {
  const result = parseJobFile(text, { fileName });
  assert.ok(result.ok, result.ok ? "" : result.problems.map((p) => formatProblem(p, fileName)).join("\n"));
  return result.jobs;
}

function problems(text: string | Uint8Array): Problem[] {
  const result = parseJobFile(text, { fileName: "hello.yaml" });
  assert.ok(!result.ok, "the file was accepted");
  return result.problems;
}

function firstLine(text: string | Uint8Array): string {
  const [problem] = problems(text);
  assert.ok(problem);
  return formatProblem(problem, "hello.yaml");
}

test("a text to run is a bash script with defaults around it, named for its file", () => {
  const [job] = jobs("run: |\n  echo hi\n");
  assert.deepEqual(job, {
    idempotencyKey: null,
    definition: {
      name: "hello",
      command: { kind: "script", interpreter: "bash", content: "echo hi\n", safetyHeaders: true },
      steps: [],
      env: {},
      workingDirectory: "",
      resources: { cpuMillis: 0, memoryBytes: 0, diskBytes: 0, gpu: 0 },
      selector: {},
      selectorExpressions: [],
      tolerations: [],
      capabilities: [],
      preferences: [],
      concurrency: null,
      preemptible: false,
      timeoutMs: 3_600_000,
      queueTimeoutMs: 86_400_000,
      graceMs: 10_000,
      leaseMs: 900_000,
      onWorkerLost: "retry",
      logQuotaBytes: 4 * 2 ** 30,
      onLogQuota: "fail",
      retry: {
        maxRetries: 0,
        maxInfrastructureRetries: 2,
        backoffMs: 1000,
        maxBackoffMs: 300_000,
        exitCodes: [],
      },
      priority: 0,
      queue: "default",
      labels: {},
    },
  });
});

test("every key of the format reaches the definition", () => {
  const text = `
name: all
command: [make, -j, 2, 1.10]
env: {A: 1, B: true, C: 1.10, D: 0x1F, E: ""}
workingDirectory: src
resources: {cpu: 500m, memory: 512Mi, disk: 1G, gpu: 1}
selector: {os: linux, size: 2}
timeout: 1h30m
queueTimeout: 90
grace: 0
lease: 2m
onWorkerLost: wait
logQuota: 10Mi
onLogQuota: truncate
retry: {max: 3, infrastructure: 0, backoff: 250ms, maxBackoff: 1m, exitCodes: [1, 75]}
priority: -5
queue: builds
labels: {team: a/b}
idempotencyKey: k-1
`;
  const [job] = jobs(text);
  assert.equal(job?.idempotencyKey, "k-1");
  assert.deepEqual(job?.definition, {
    name: "all",
    command: { kind: "shell", cmd: "make", args: ["-j", "2", "1.10"] },
    steps: [],
    env: { A: "1", B: "true", C: "1.10", D: "0x1F", E: "" },
    workingDirectory: "src",
    resources: { cpuMillis: 500, memoryBytes: 512 * 2 ** 20, diskBytes: 1e9, gpu: 1 },
    selector: { os: "linux", size: "2" },
    selectorExpressions: [],
    tolerations: [],
    capabilities: [],
    preferences: [],
    concurrency: null,
    preemptible: false,
    timeoutMs: 5_400_000,
    queueTimeoutMs: 90_000,
    graceMs: 0,
    leaseMs: 120_000,
    onWorkerLost: "wait",
    logQuotaBytes: 10 * 2 ** 20,
    onLogQuota: "truncate",
    retry: {
      maxRetries: 3,
      maxInfrastructureRetries: 0,
      backoffMs: 250,
      maxBackoffMs: 60_000,
      exitCodes: [1, 75],
    },
    priority: -5,
    queue: "builds",
    labels: { team: "a/b" },
  });
});

test("steps run scripts, commands and interpreters, and get names from what they do", () => {
  const text = `
steps:
  - run: |
      # a comment
      npm test
  - name: lint
    run: [oxlint, src]
    if: always
    timeout: 30s
    continueOnError: true
    env: {X: y}
    workingDirectory: a
  - script: {interpreter: python3, content: print(1), safetyHeaders: false}
`;
  const steps = jobs(text)[0]?.definition.steps ?? [];
  assert.deepEqual(
    steps.map((step) => step.name),
    ["npm test", "lint", "print(1)"],
  );
  assert.deepEqual(steps[1], {
    name: "lint",
    command: { kind: "shell", cmd: "oxlint", args: ["src"] },
    env: { X: "y" },
    workingDirectory: "a",
    condition: "always",
    timeoutMs: 30_000,
    continueOnError: true,
  });
  assert.deepEqual(steps[2]?.command, {
    kind: "script",
    interpreter: "python3",
    content: "print(1)",
    safetyHeaders: false,
  });
});

test("a script file is read through the given function, and its problems have a place", () => {
  const options = (content: Uint8Array | null) => ({
    fileName: "x.yaml",
    readFile: (path: string) => {
      if (content === null) throw new Error(`no such file: ${path}`);
      return content;
    },
  });
  const text = "script:\n  interpreter: sh\n  file: a.sh\n";
  const good = parseJobFile(text, options(Buffer.from("echo ä\n")));
  assert.ok(good.ok);
  assert.deepEqual(good.jobs[0]?.definition.command, {
    kind: "script",
    interpreter: "sh",
    content: "echo ä\n",
    safetyHeaders: true,
  });
  for (const [content, expected] of [
    [null, "x.yaml:3:9: script.file: cannot read a.sh: no such file: a.sh"],
    [new Uint8Array(), "x.yaml:3:9: script.file: a.sh is empty"],
    [Buffer.from([65, 0]), "x.yaml:3:9: script.file: a.sh has a NUL byte: it is not a script"],
    [Buffer.from([0xff]), "x.yaml:3:9: script.file: a.sh is not UTF-8 text"],
    [Buffer.alloc(1024 * 1024 + 1, "a"), "x.yaml:3:9: script.file: a.sh is longer than 1 MiB"],
  ] as const) {
    const bad = parseJobFile(text, options(content));
    assert.ok(!bad.ok);
    assert.deepEqual(
      bad.problems.map((p) => formatProblem(p, "x.yaml")),
      [expected],
    );
  }
});

test("one file holds many jobs: documents, a jobs list, a list, JSON Lines", () => {
  const names = (text: string) => jobs(text).map((job) => job.definition.name);
  assert.deepEqual(names("run: a\n---\nname: two\nrun: b\n---\n"), ["hello-1", "two"]);
  assert.deepEqual(names("jobs:\n  - run: a\n  - {name: z, run: [b]}\n"), ["hello-1", "z"]);
  assert.deepEqual(names('[{"run":"a"},{"run":"b","name":"y"}]'), ["hello-1", "y"]);
  assert.deepEqual(names('{"run":"a","name":"1"}\n\n{"run":"b","name":"2"}\n'), ["1", "2"]);
  assert.deepEqual(names('{"jobs":[{"run":"a"}]}'), ["hello"]);
});

test("every problem is told at once, with place, reason and remedy", () => {
  const text = `nmae: x
run: echo
command: [a]
timeout: soon
env:
  1BAD: x
  GOOD:
resources:
  memory: lots
  cpus: 2
priority: 1.5
steps:
  - if: never
    run: [ok, [no]]
    tiemout: 3
  - {}
  - 7
`;
  const lines = problems(text).map((problem) => formatProblem(problem, "hello.yaml"));
  const expected = [
    "hello.yaml:1:1: nmae: unknown key `nmae`; did you mean `name`?",
    "hello.yaml:3:10: command: run and command and steps are given, but a job has only one of run, script, command, steps; keep one of them",
    `hello.yaml:4:10: timeout: "soon" is not a duration: 90s, 5m, 1h30m or a number of seconds`,
    "hello.yaml:6:3: env.1BAD: is not a possible name: must be letters, digits and _, and not begin with a digit",
    `hello.yaml:7:8: env.GOOD: must be text (write "" for none), not nothing`,
    `hello.yaml:9:11: resources.memory: "lots" is not a size: 512Mi, 2Gi, 1G or a number of bytes`,
    "hello.yaml:10:3: resources.cpus: unknown key `cpus`; did you mean `cpu`?",
    "hello.yaml:11:11: priority: must be a whole number from -1000 to 1000, not number 1.5",
    'hello.yaml:13:9: steps[0].if: must be success, failure, always, not the text "never"',
    `hello.yaml:14:15: steps[0].run[1]: must be text (write "" for none), not a list`,
    "hello.yaml:15:5: steps[0].tiemout: unknown key `tiemout`; did you mean `timeout`?",
    "hello.yaml:16:5: steps[1]: nothing to run: a step needs run, script or command; add `run:`",
    "hello.yaml:17:5: steps[2]: must be a mapping, not number 7",
  ];
  assert.deepEqual(lines.toSorted(), expected.toSorted());
});

test("problems of JSON Lines name their own line", () => {
  const text = '{"run":"a"}\n{"run":"b","timeout":"x"}\n{"run":"c"\n';
  assert.match(firstLine(text), /^hello\.yaml:3:\d+: not valid YAML/);
  assert.equal(
    firstLine('{"run":"a"}\n{"run":"b", "timeout":"x"}\n'),
    'hello.yaml:2:23: timeout: "x" is not a duration: 90s, 5m, 1h30m or a number of seconds',
  );
});

test("hostile files get a clear answer", () => {
  const cases: [string | Uint8Array, RegExp][] = [
    ["", /has no job; write at least/],
    ["# only a comment\n", /has no job/],
    ["jobs: []", /has no job/],
    ["jobs: 3", /:1:1: jobs: must be a list of jobs/],
    ["jobs: [{run: a}]\nenv: {}", /:2:1: env: cannot stand beside `jobs`/],
    ["just text", /must be a mapping, not the text "just text"/],
    ["run: a\nrun: b", /:2:1: not valid YAML: Map keys must be unique; remove or rename/],
    ['{"run":"a","run":"b"}', /:1:12: not valid YAML: Map keys must be unique/],
    ['{"run":"a","\\u0072un":"b"}', /Map keys must be unique/],
    ["run: a\n\tname: b", /:2:1: not valid YAML: Tabs are not allowed as indentation; indent with spaces/],
    ["run: [", /not valid YAML/],
    ["run: a\0b", /:1:7: has a NUL byte/],
    ['run: "a\\0b"', /:1:6: run: has a NUL character/],
    [Buffer.from([0x72, 0x0a, 0xff]), /:2:1: is not UTF-8 text/],
    ["[".repeat(100_000), /nested more than 64 levels deep/],
    ["- ".repeat(100_000), /nested more than 64 levels deep/],
    ["{a: ".repeat(5000), /nested more than 64 levels deep/],
    [`${'{"a":'.repeat(5000)}1${"}".repeat(5000)}`, /nested more than 64 levels deep/],
    ["run: *nothing", /not valid YAML: Unresolved alias/],
    [aliasBomb(), /aliases expand to too many values/],
    ["env: {__proto__: x}\nrun: a", /env\.__proto__: is not a possible name/],
    ['{"run":"a","env":{"__proto__":"x"}}', /env\.__proto__: is not a possible name/],
    ["run: a\nlease: 10s", /lease: "10s" must be 40s to 7d/],
    ["run: a\nenv: [x]", /env: must be a mapping of names to values, not a list/],
    [`run: [a, ${"x".repeat(140_000)}]`, /run\[1\]: is longer than 128 KiB/],
    [`run: ${"x".repeat(1024 * 1024 + 1)}`, /run: is longer than 1 MiB/],
    ["run: ''", /run: must not be empty/],
    ["script: {content: a, file: b}", /script\.file: content and file are given/],
    ["script: {}", /script: nothing to run: a script needs content or file/],
    ["script: {file: b}", /script\.file: script files cannot be read here/],
  ];
  for (const [text, expected] of cases) assert.match(firstLine(text), expected);
  assert.match(firstLine(Buffer.alloc(MAX_SOURCE_BYTES + 1, "a")), /is larger than 32 MiB/);
});

function aliasBomb(): string {
  const lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"];
  for (let level = 1; level < 12; level += 1) {
    lines.push(`a${level}: &a${level} [${Array.from({ length: 9 }, () => `*a${level - 1}`).join(", ")}]`);
  }
  return lines.join("\n");
}

test("a file with a thousand bad jobs lists a hundred problems", () => {
  assert.equal(problems("- 1\n".repeat(1000)).length, 100);
});

test("aliases may be used by many jobs", () => {
  const text = `jobs:\n  - env: &e {A: 1}\n    run: a\n${"  - {env: *e, run: b}\n".repeat(500)}`;
  assert.deepEqual(jobs(text).at(-1)?.definition.env, { A: "1" });
});

test("names come from the file without directory and extension", () => {
  assert.equal(jobNameFromFile("/a/b.c.yml"), "b.c");
  assert.equal(jobNameFromFile("-"), "job");
  assert.equal(jobNameFromFile(""), "job");
});

test("the JSON Schema describes each key and refuses unknown ones", () => {
  const schema = jobFileJsonSchema() as {
    $defs: { job: { properties: Record<string, { description?: string }>; additionalProperties: boolean } };
  };
  const { job } = schema.$defs;
  assert.equal(job.additionalProperties, false);
  for (const key of [
    "name",
    "run",
    "script",
    "command",
    "steps",
    "env",
    "timeout",
    "retry",
    "idempotencyKey",
  ]) {
    assert.ok(job.properties[key], key);
  }
  assert.deepEqual(JSON.parse(JSON.stringify(schema)), schema);
});

test("no text makes the parser throw, and what is refused has a reason", () => {
  const words = fc.constantFrom(
    "run",
    ":",
    "- ",
    "\n",
    "  ",
    "{",
    "}",
    "[",
    "]",
    "&a",
    "*a",
    "'",
    '"',
    "|",
    ">",
    "---",
    "!!x",
    "jobs",
    "steps",
    "env",
    "0",
    "#",
    "\t",
    "? ",
    ",",
    "\\",
    "<<",
    "__proto__",
    "%YAML",
    "\r",
  );
  const text = fc.oneof(
    fc.string({ unit: "grapheme" }),
    fc.array(words, { maxLength: 40 }).map((list) => list.join("")),
  );
  fc.assert(fc.property(fc.oneof(text, fc.uint8Array({ maxLength: 200 })), holdsItsPromise), {
    numRuns: 3000,
  });
});

test("no value makes the parser throw, and JSON and YAML readers agree", () => {
  const keys = [
    "name",
    "run",
    "script",
    "command",
    "steps",
    "env",
    "resources",
    "timeout",
    "retry",
    "labels",
    "jobs",
    "queue",
    "if",
  ];
  const job = fc.dictionary(fc.oneof(fc.constantFrom(...keys), fc.string()), fc.jsonValue({ maxDepth: 3 }), {
    maxKeys: 6,
  });
  fc.assert(
    fc.property(job, (value) => {
      holdsItsPromise(JSON.stringify(value));
      const fast = parseJobFile(JSON.stringify(value), { fileName: "a.yaml" });
      // A document marker keeps the fast reader away.
      const slow = parseJobFile(`---\n${JSON.stringify(value)}`, { fileName: "a.yaml" });
      assert.equal(fast.ok, slow.ok);
    }),
    { numRuns: 1000 },
  );
});

function holdsItsPromise(text: string | Uint8Array): void {
  const result = parseJobFile(text, { fileName: "fuzz.yaml" });
  if (result.ok) assert.ok(result.jobs.length > 0);
  else assert.ok(result.problems.length > 0 && result.problems.every((problem) => problem.message !== ""));
}
