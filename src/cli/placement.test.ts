import assert from "node:assert/strict";
import { test } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import type { JobDefinition } from "../core/job.ts";
import { definitionFromWire } from "../protocol/convert-definition.ts";
import type { QueueJobRequest } from "../protocol/gen/hodei/v1/jobs_pb.ts";
import { cli, startFakeServer, type FakeServices } from "./fake-server.ts";

const JOB_ID = "01980000-0000-7000-8000-000000000001";

async function setup(t: { after(run: () => Promise<void>): void }, services: FakeServices): Promise<string> {
  const server = await startFakeServer(services);
  t.after(server.close);
  return server.url;
}

/** Keeps what is queued. */
function taking(seen: QueueJobRequest[]): FakeServices {
  return {
    jobs: {
      queueJob: (request) => {
        seen.push(request);
        return { jobId: JOB_ID };
      },
    },
  };
}

function definitionOf(request: QueueJobRequest | undefined): JobDefinition {
  assert.ok(request?.definition);
  return definitionFromWire(request.definition);
}

test("the options of a placement reach the job", async (t) => {
  const seen: QueueJobRequest[] = [];
  const url = await setup(t, taking(seen));
  const options = [
    ["--selector", "os=linux,zone in (a,b)"],
    ["--selector", "!spot"],
    ["--toleration", "gpu=a100:NoExecute"],
    ["--toleration", "*"],
    ["--capability", "pause"],
    ["--prefer", "zone=a:50"],
    ["--concurrency-key", "deploy"],
    ["--concurrency-limit", "2"],
    ["--preemptible", "--accept-unplaceable"],
    ["--cpu", "500m", "--memory", "1Gi", "--disk", "2Gi", "--gpu", "1"],
  ].flat();
  const run = await cli(["run", "--detach", ...options, "--", "true"], { url });
  assert.equal(run.exitCode, 0, run.stderr.text);
  const definition = definitionOf(seen[0]);
  assert.deepEqual(definition.selector, { os: "linux" });
  assert.deepEqual(definition.selectorExpressions, [
    { key: "zone", operator: "in", values: ["a", "b"] },
    { key: "spot", operator: "not_exists", values: [] },
  ]);
  assert.deepEqual(definition.tolerations, [
    { key: "gpu", operator: "equal", value: "a100", effect: "NoExecute" },
    { key: "", operator: "exists", value: "", effect: null },
  ]);
  const resources = { cpuMillis: 500, memoryBytes: 2 ** 30, diskBytes: 2 ** 31, gpu: 1 };
  assert.deepEqual(definition.resources, resources);
  assert.deepEqual(definition.capabilities, ["pause"]);
  assert.deepEqual(definition.preferences, [
    { weight: 50, workerLabels: [{ key: "zone", operator: "in", values: ["a"] }], jobLabels: {} },
  ]);
  assert.deepEqual(definition.concurrency, { key: "deploy", limit: 2 });
  assert.equal(definition.preemptible, true);
  assert.equal(seen[0]?.acceptUnplaceable, true);
});

test("options are added to what the file says, and count for a label that both name", async (t) => {
  const seen: QueueJobRequest[] = [];
  const url = await setup(t, taking(seen));
  const file = `
run: x
selector: [os=linux, "!spot"]
tolerations: [a]
concurrency: { key: k, limit: 3 }
`;
  const options = ["--selector", "os=mac,cores>4", "--toleration", "b", "--concurrency-limit", "5"];
  await cli(["run", "--detach", ...options, "-"], { url, stdin: file });
  const definition = definitionOf(seen[0]);
  assert.deepEqual(definition.selector, { os: "mac" });
  assert.deepEqual(
    definition.selectorExpressions.map(({ key }) => key),
    ["spot", "cores"],
  );
  assert.deepEqual(
    definition.tolerations.map(({ key }) => key),
    ["a", "b"],
  );
  assert.deepEqual(definition.concurrency, { key: "k", limit: 5 });
  assert.equal(seen[0]?.acceptUnplaceable, false);
});

test("a placement option that is wrong is named, with what to write, before anything is sent", async (t) => {
  const seen: QueueJobRequest[] = [];
  const url = await setup(t, taking(seen));
  for (const [options, expected] of [
    [["--selector", "os>=1"], /option --selector: column 1: .*>=/],
    [["--selector", "a=1", "--selector", "a=2"], /no worker has both a=1 and a=2/],
    [["--toleration", "gpu:Never"], /option --toleration: .*"Never" is none of NoSchedule/],
    [["--prefer", "zone=a"], /option --prefer: .*weight from -100 to 100/],
    [["--concurrency-limit", "2"], /--concurrency-limit: there is no key.*\nhint: add --concurrency-key KEY/],
  ] as const) {
    const run = await cli(["run", "-d", ...options, "--", "true"], { url });
    assert.equal(run.exitCode, 2);
    assert.match(run.stderr.text, expected);
  }
  assert.equal(seen.length, 0);
});

test("a job that could never run is refused in the words of the command line", async (t) => {
  const why = "no worker and no pool has gpu=h100; there is gpu=a100";
  const field = "; set `accept_unplaceable` to queue it all the same";
  const url = await setup(t, {
    jobs: {
      queueJob: () => {
        throw new ConnectError(`queue job: ${why}${field}`, Code.FailedPrecondition);
      },
      queueJobs: () => {
        throw new ConnectError(`jobs[1]: ${why}${field}`, Code.FailedPrecondition);
      },
    },
  });
  const hint =
    "hint: hodei workers and hodei pools show what there is; --accept-unplaceable queues it all the same\n";
  const run = await cli(["run", "--selector", "gpu=h100", "--", "train"], { url });
  assert.equal(run.exitCode, 5);
  assert.equal(run.stderr.text, `hodei: submit job train: ${why}\n${hint}`);
  const jobs = "- { name: first, run: x }\n- { name: second, run: x }\n";
  const submitted = await cli(["submit", "-"], { url, stdin: jobs });
  assert.equal(submitted.exitCode, 5);
  assert.equal(submitted.stderr.text, `hodei: submit 2 jobs: job second: ${why}\n${hint}`);
});

test("a refusal of the only job does not name it twice, and of a full queue says how to make room", async (t) => {
  let why = "jobs[0]: needs 64 cores; the largest is pool local with 2; set `accept_unplaceable` to queue it";
  const url = await setup(t, {
    jobs: {
      queueJobs: () => {
        throw new ConnectError(
          why,
          why.startsWith("jobs") ? Code.FailedPrecondition : Code.ResourceExhausted,
        );
      },
    },
  });
  const unplaceable = await cli(["submit", "--", "train"], { url });
  assert.equal(unplaceable.exitCode, 5);
  assert.match(unplaceable.stderr.text, /^hodei: submit job train: needs 64 cores; the largest is /);
  why = "queue job: queue nightly is full, no more than 2 of its jobs may wait; try again later";
  const full = await cli(["submit", "--", "train"], { url });
  assert.equal(full.exitCode, 7);
  assert.equal(
    full.stderr.text,
    "hodei: submit job train: queue nightly is full, no more than 2 of its jobs may wait; try again later\nhint: hodei queue nightly shows what waits; hodei queue set nightly --max-pending NUMBER lets more wait\n",
  );
});

test("commands that follow a command have help and completion of their own", async () => {
  const { spawnSync } = await import("node:child_process");
  const help = (await cli(["help", "pools", "apply"])).stdout.text;
  assert.match(help, /Usage: hodei pools apply /);
  assert.match(help, /--dry-run/);
  const wrong = await cli(["help", "pools", "aply"]);
  assert.equal(wrong.exitCode, 2);
  assert.match(wrong.stderr.text, /did you mean apply\?/);
  const bash = (await cli(["completion", "bash"])).stdout.text;
  const ask = (line: string, index: number): string[] => {
    const script = `${bash}\nCOMP_WORDS=(${line}); COMP_CWORD=${index}; _hodei; printf '%s\\n' "\${COMPREPLY[@]}"`;
    return spawnSync("bash", ["-c", script], { encoding: "utf8" }).stdout.trim().split("\n");
  };
  assert.deepEqual(ask("hodei workers unc", 2), ["uncordon"]);
  assert.deepEqual(ask("hodei pools apply --dry", 3), ["--dry-run"]);
  assert.deepEqual(ask("hodei queue s", 2), ["set"]);
});
