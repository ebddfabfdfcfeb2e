import assert from "node:assert/strict";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { eventually } from "../src/base/eventually.ts";
import { Place, type Finished } from "./program.ts";

const isGiven = process.env["HODEI_TEST_DATABASE_URL"] !== undefined;
const skip = isGiven ? "a database that was given is not ours to kill" : false;

interface CountingJob {
  id: string;
  exitCode: number;
  /** Resolves with the number of its last line when it has ended. */
  tellToEnd(): Promise<number>;
}

describe("a database that goes away", { skip }, () => {
  let place: Place;
  let url: string;
  before(async () => {
    place = await Place.make();
    ({ url } = await place.startDev());
  });
  after(() => place.remove());

  const dataFile = (name: string): string => join(place.dataDirectory, "postgres", "data", name);

  async function killDatabase(): Promise<void> {
    const pid = Number.parseInt(await readFile(dataFile("postmaster.pid"), "utf8"), 10);
    process.kill(pid, "SIGKILL");
  }

  async function killAgents(): Promise<void> {
    const workers = join(place.dataDirectory, "workers");
    for (const worker of await readdir(workers)) {
      const file = await readFile(join(workers, worker, "agent.pid"), "utf8");
      process.kill((JSON.parse(file) as { pid: number }).pid, "SIGKILL");
    }
  }

  async function submit(script: string): Promise<string> {
    const { code, stdout, stderr } = await place.run(["submit", "--", "bash", "-c", script]);
    assert.equal(code, 0, stderr);
    return stdout.toString().trim();
  }

  /** A job that counts, ten times a second, until it is told to end. */
  async function startCounting(exitCode: number): Promise<CountingJob> {
    const mark = join(place.directory, `told-${exitCode}`);
    const count = join(place.directory, `count-${exitCode}`);
    const loop = `i=0; until [ -e ${mark} ]; do i=$((i + 1)); echo line $i; sleep 0.1; done`;
    const id = await submit(`${loop}; echo $i > ${count}.new; mv ${count}.new ${count}; exit ${exitCode}`);
    const tellToEnd = async (): Promise<number> => {
      await writeFile(mark, "");
      return eventually(async () => Number(await readFile(count, "utf8").catch(() => 0)) || null, {
        timeoutMs: 30_000,
        what: "the end of the job",
      });
    };
    return { id, exitCode, tellToEnd };
  }

  async function assertEnd({ id, exitCode }: CountingJob, lastLine: number): Promise<void> {
    const watched = await place.run(["watch", id]);
    assert.equal(watched.code, exitCode, watched.stderr);
    const log = await place.run(["logs", id, "--raw", "--stream", "stdout"]);
    const lines = Array.from({ length: lastLine }, (_, index) => `line ${index + 1}\n`).join("");
    assert.equal(log.stdout.toString(), lines);
    const { stdout } = await place.run(["get", id, "--output", "json"]);
    const job = JSON.parse(stdout.toString()) as { attempts: unknown[]; exitCode: number };
    assert.equal(job.attempts.length, 1);
    assert.equal(job.exitCode, exitCode);
  }

  /** The pieces of log that the server has on disk, whatever their job. */
  async function storedLogs(): Promise<string> {
    const directory = join(place.dataDirectory, "logs");
    const names = await readdir(directory, { recursive: true });
    const texts = names
      .filter((name) => name.endsWith(".log"))
      .map((name) => readFile(join(directory, name), "latin1").catch(() => ""));
    return (await Promise.all(texts)).join("");
  }

  test("three kills cost a running job nothing, and calls wait for the restart", async () => {
    const job = await startCounting(3);
    for (let kills = 0; kills < 3; kills += 1) {
      const lengthSoFar = (await storedLogs()).length;
      await eventually(async () => (await storedLogs()).length > lengthSoFar, { what: "more log" });
      await killDatabase();
      const other = await submit("exit 0");
      assert.equal((await place.run(["watch", other])).code, 0);
    }
    await assertEnd(job, await job.tellToEnd());
  });

  test("while it stays away jobs go on, calls say so, and what ended is told when it is back", async () => {
    const job = await startCounting(5);
    await eventually(async () => (await storedLogs()).includes("line 2\n"), { what: "the first lines" });
    let lastLine = 0;
    let patient: Promise<Finished> | null = null;
    const settings = await readFile(dataFile("postgresql.conf"), "utf8");
    await writeFile(dataFile("postgresql.conf"), `${settings}\nwork_mem = nonsense\n`);
    try {
      await killDatabase();
      const readiness = await eventually(
        async () => {
          const response = await fetch(`${url}/readyz`);
          const text = await response.text();
          return text.includes("work_mem") && response.status === 503 ? text : null;
        },
        { timeoutMs: 30_000, what: "a server that is not ready" },
      );
      assert.match(readiness, /^not ready\n- database: start the embedded database/);
      assert.equal((await fetch(`${url}/healthz`)).status, 200);
      const refused = await place.run(["submit", "--", "true"], { env: { HODEI_RECONNECT_TIMEOUT: "1s" } });
      assert.notEqual(refused.code, 0);
      assert.match(refused.stderr, /the database cannot be reached now, try again soon/);
      patient = place.run(["submit", "--", "true"]);
      // The job ends while nobody can write that down.
      lastLine = await job.tellToEnd();
      await eventually(async () => (await storedLogs()).includes(`line ${lastLine}\n`), {
        what: "all lines",
      });
      // A new agent finds a server that cannot let it in yet.
      await killAgents();
    } finally {
      await writeFile(dataFile("postgresql.conf"), settings);
    }
    await eventually(async () => (await fetch(`${url}/readyz`)).status === 200, {
      timeoutMs: 30_000,
      what: "a server that is ready",
    });
    await assertEnd(job, lastLine);
    const submitted = await patient;
    assert.equal(submitted?.code, 0, submitted?.stderr);
    assert.equal((await place.run(["watch", submitted.stdout.toString().trim()])).code, 0);
  });

  test("nothing is left behind at the end", async () => {
    assert.equal(await place.stopDev(), 0);
    await eventually(async () => (await place.leftovers()).length === 0, {
      what: "the end of all processes",
    });
  });
});
