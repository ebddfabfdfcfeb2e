import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { Agent } from "node:http";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { eventually } from "../src/base/eventually.ts";
import { JobService, JobState } from "../src/protocol/gen/hodei/v1/jobs_pb.ts";
import { LogService, LogStream } from "../src/protocol/gen/hodei/v1/logs_pb.ts";
import { isProcessAlive } from "../src/storage/embedded/postmaster.ts";
import { finished, Place } from "./program.ts";

const WORKERS = ["--max-workers", "2", "--worker-jobs", "8"];
const isGiven = process.env["HODEI_TEST_DATABASE_URL"] !== undefined;
const skip = isGiven ? "a database that was given is not ours to stop" : false;
const JOBS = 100;
const LINES = 10;

describe("a server that is restarted, again and again", () => {
  let place: Place;
  before(async () => {
    place = await Place.make();
    await place.startServer(WORKERS);
  });
  after(() => place.remove());

  async function restart(): Promise<void> {
    assert.equal(await place.stopDev(), 0, "a graceful stop is exit code 0");
    await place.startServer(WORKERS);
  }

  async function killAndStart(): Promise<void> {
    const { pid } = await place.server();
    process.kill(pid, "SIGKILL");
    await eventually(() => !isAlive(pid), { what: "the end of the server" });
    await place.startServer(WORKERS);
  }

  /** A submission that finds no server has done nothing, and is made again by whoever made it. */
  async function submit(args: string[], input = ""): Promise<string[]> {
    const { stdout } = await eventually(
      async () => {
        const run = await place.run(["submit", ...args], { input });
        assert.ok(run.code === 0 || run.code === 4, run.stderr);
        return run.code === 0 ? run : null;
      },
      { timeoutMs: 20_000, intervalMs: 100, what: "a submission" },
    );
    return stdout.toString().trim().split("\n");
  }

  async function attemptsOf(id: string): Promise<{ cause: string | null; state: string }[]> {
    const { stdout } = await place.run(["get", id, "--output", "json"]);
    return (JSON.parse(stdout.toString()) as { attempts: { cause: string | null; state: string }[] })
      .attempts;
  }

  test("a hundred jobs that are submitted meanwhile all succeed, each once and with its whole log", async () => {
    const witness = join(place.directory, "ran");
    const script = `echo "$HODEI_JOB_NAME $HODEI_ATTEMPT" >> ${witness}; for i in $(seq ${LINES}); do echo "$HODEI_JOB_NAME line $i"; sleep 0.03; done`;
    const jobs = Array.from({ length: JOBS }, (_, index) =>
      JSON.stringify({ name: `job-${index}`, run: script }),
    );
    const ids: string[] = [];
    const submitPart = async (): Promise<void> => {
      const part = jobs.slice(ids.length, ids.length + JOBS / 4);
      ids.push(...(await submit(["-"], part.join("\n"))));
    };
    for (const change of [restart, killAndStart, restart]) await Promise.all([submitPart(), change()]);
    await submitPart();
    assert.equal(new Set(ids).size, JOBS);

    const client = openClient(await connectionOf(place));
    try {
      for (const [index, id] of ids.entries()) {
        await eventually(async () => (await client.state(id)) === JobState.SUCCEEDED, {
          timeoutMs: 20_000,
          intervalMs: 50,
          what: `the success of job ${index}`,
        });
        const lines = Array.from({ length: LINES }, (_, line) => `job-${index} line ${line + 1}\n`).join("");
        assert.equal(await client.stdout(id), lines);
      }
    } finally {
      client.close();
    }
    const ran = (await readFile(witness, "utf8")).trimEnd().split("\n").toSorted();
    assert.deepEqual(ran, Array.from({ length: JOBS }, (_, index) => `job-${index} 1`).toSorted());
  });

  test("hodei run goes on over the restart of its server and of its database", async () => {
    const script = "for i in $(seq 1 45); do echo line $i; sleep 0.1; done; exit 3";
    const child = place.start(["run", "--", "bash", "-c", script]);
    let said = "";
    child.stdout?.on("data", (chunk: Buffer) => (said += chunk.toString()));
    const end = finished(child);
    await eventually(() => said.includes("line 3\n"), { what: "the first lines" });
    await killAndStart();
    await eventually(() => said.includes("line 25\n"), { what: "the lines after the first restart" });
    await restart();
    const { code, stdout, stderr } = await end;
    assert.equal(code, 3, stderr);
    assert.equal(stdout.toString(), Array.from({ length: 45 }, (_, index) => `line ${index + 1}\n`).join(""));
    const notices = stderr.split("\n").filter((line) => line.startsWith("hodei: "));
    assert.ok(notices.length <= 4, `each loss is said once: ${stderr}`);
  });

  test("an agent that is told to hand over is replaced, and its job does not notice", async () => {
    const [id = ""] = await submit(["--", "bash", "-c", "for i in 1 2 3 4 5 6; do echo $i; sleep 0.3; done"]);
    const agent = await agentOf(place, id);
    process.kill(agent, "SIGHUP");
    await eventually(() => !isAlive(agent), { what: "the end of the old agent" });
    assert.equal((await place.run(["watch", id])).code, 0);
    const log = await place.run(["logs", id, "--raw"]);
    assert.equal(log.stdout.toString(), "1\n2\n3\n4\n5\n6\n");
    assert.equal((await attemptsOf(id)).length, 1);
    assert.notEqual(await agentOf(place, id), agent);
  });

  test("the job of an agent that must go is tried elsewhere at once", async () => {
    const [id = ""] = await submit(["--", "bash", "-c", 'test "$HODEI_ATTEMPT" = 2 || sleep 600']);
    const agent = await agentOf(place, id);
    process.kill(agent, "SIGTERM");
    assert.equal((await place.run(["watch", id])).code, 0);
    assert.deepEqual(
      (await attemptsOf(id)).map(({ state, cause }) => [state, cause]),
      [
        ["failed", "worker_lost"],
        ["succeeded", null],
      ],
    );
  });

  test("a command that reads while the server is away gives way to it, and goes on with it", async () => {
    const gate = place.gate("reader");
    const script = `i=0; while ${gate.isClosed}; do i=$((i + 1)); echo "line $i"; sleep 0.2; done; echo last`;
    const [id = ""] = await submit(["--", "bash", "-c", script]);
    await eventually(async () => (await place.run(["logs", id])).stdout.includes("line 3\n"), {
      what: "the first lines",
    });
    assert.equal(await place.stopDev(), 0);
    const follower = place.start(["logs", "--follow", id]);
    let said = "";
    follower.stdout?.on("data", (chunk: Buffer) => (said += chunk.toString()));
    const end = finished(follower);
    await eventually(() => said.includes("line 3\n"), { what: "the log without the server" });
    assert.equal((await place.server()).pid, follower.pid);
    const refused = await place.run(["submit", "--", "true"]);
    assert.match(refused.stderr, /no server is running/);
    await place.startServer(WORKERS);
    await gate.open();
    const { code, stdout, stderr } = await end;
    assert.equal(code, 0, stderr);
    const lines = stdout.toString().trimEnd().split("\n");
    assert.equal(lines.pop(), "last");
    assert.deepEqual(
      lines,
      lines.map((_, index) => `line ${index + 1}`),
    );
  });

  test("a server that cannot stop leaves with its database, and says what hung", { skip }, async () => {
    assert.equal(await place.stopDev(), 0);
    const child = place.start(["server", "--http-port", "0", "--grpc-port", "0", "--shutdown-timeout", "1s"]);
    const end = finished(child);
    await eventually(async () => (await place.server().catch(() => null))?.pid === child.pid, {
      timeoutMs: 30_000,
      what: "the start of the server",
    });
    const pidFile = join(place.dataDirectory, "postgres", "data", "postmaster.pid");
    const database = Number.parseInt(await readFile(pidFile, "utf8"), 10);
    process.kill(database, "SIGSTOP");
    try {
      child.kill("SIGTERM");
      const { code, stderr } = await end;
      assert.equal(code, 1);
      assert.match(stderr, /"waitsFor":"[^"]+"/);
      assert.ok(!isProcessAlive(database), "its database goes along");
    } finally {
      if (isProcessAlive(database)) process.kill(database, "SIGCONT");
    }
  });

  test("nothing is left behind at the end", async () => {
    assert.equal(await place.stopDev(), 0);
    await place.startDev();
    assert.equal(await place.stopDev(), 0);
    await eventually(async () => (await place.leftovers()).length === 0, {
      what: "the end of all processes",
    });
  });
});

/** The agent of the worker that runs a job; waits until it runs. */
async function agentOf(place: Place, id: string): Promise<number> {
  const workerId = await eventually(
    async () => {
      const { stdout } = await place.run(["get", id, "--output", "json"]);
      const job = JSON.parse(stdout.toString()) as { startedAt: string | null; workerId: string };
      return job.startedAt === null ? null : job.workerId;
    },
    { what: "the start of the job" },
  );
  const text = await readFile(join(place.dataDirectory, "workers", workerId, "agent.pid"), "utf8");
  return (JSON.parse(text) as { pid: number }).pid;
}

async function connectionOf(place: Place): Promise<{ url: string; token: string }> {
  const { url } = await place.server();
  const token = (await readFile(join(place.dataDirectory, "api-token"), "utf8")).trim();
  return { url, token };
}

/** For questions about many jobs: a process for each would take longer than the jobs. */
function openClient({ url, token }: { url: string; token: string }) {
  const agent = new Agent({ keepAlive: true });
  const transport = createConnectTransport({
    baseUrl: url,
    httpVersion: "1.1",
    nodeOptions: { agent },
    interceptors: [
      (next) => (request) => {
        request.header.set("authorization", `Bearer ${token}`);
        return next(request);
      },
    ],
  });
  const jobs = createClient(JobService, transport);
  const logs = createClient(LogService, transport);
  return {
    state: async (jobId: string) => (await jobs.getJob({ jobId })).job?.state,
    async stdout(jobId: string): Promise<string> {
      const pieces: Uint8Array[] = [];
      for await (const { entries } of logs.readLog({ jobId, streams: [LogStream.STDOUT] })) {
        pieces.push(...entries.map(({ data }) => data));
      }
      return Buffer.concat(pieces).toString("utf8");
    },
    close: () => agent.destroy(),
  };
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    // No such process: that is the answer.
    return false;
  }
}
