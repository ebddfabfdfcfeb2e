import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { eventually } from "../src/base/eventually.ts";
import { finished, Place } from "./program.ts";

describe("the life of a server", () => {
  let place: Place;
  before(async () => {
    place = await Place.make();
  });
  after(() => place.remove());

  test("a second server on the same data directory is refused and names the first", async () => {
    const { pid } = await place.startDev();
    const second = await place.run(["server", "--http-port", "0", "--grpc-port", "0"]);
    assert.notEqual(second.code, 0);
    assert.match(second.stderr, new RegExp(String(pid)));
  });

  test("a job that runs goes on when the server is killed, and ends once with its whole log", async () => {
    const script = "for i in $(seq 1 40); do echo line $i; sleep 0.1; done";
    const submitted = await place.run(["submit", "--", "bash", "-c", script]);
    const id = submitted.stdout.toString().trim();
    const { pid } = await place.server();
    await eventually(async () => (await place.run(["logs", id, "--raw"])).stdout.includes("line 5\n"), {
      what: "the first lines of the job",
    });
    process.kill(pid, "SIGKILL");
    await eventually(() => !isAlive(pid), { what: "the end of the server" });

    await place.startDev();
    const watched = await place.run(["watch", id]);
    assert.equal(watched.code, 0, watched.stderr);
    const log = await place.run(["logs", id, "--raw", "--stream", "stdout"]);
    const lines = Array.from({ length: 40 }, (_, index) => `line ${index + 1}\n`).join("");
    assert.equal(log.stdout.toString(), lines);
    const job = await place.run(["get", id, "--output", "json"]);
    assert.equal((JSON.parse(job.stdout.toString()) as { attemptCount: number }).attemptCount, 1);
  });

  test("a follower sees the log while the job runs", async () => {
    const gate = place.gate("follower");
    const script = `echo first; while ${gate.isClosed}; do sleep 0.05; done; echo last`;
    const submitted = await place.run(["submit", "--", "sh", "-c", script]);
    const id = submitted.stdout.toString().trim();
    const follower = place.start(["logs", "--follow", id]);
    let said = "";
    follower.stdout?.on("data", (chunk: Buffer) => (said += chunk.toString()));
    const done = finished(follower);
    await eventually(() => said === "first\n", { what: "the log of a job that waits" });
    await gate.open();
    const { code, stdout } = await done;
    assert.equal(code, 0);
    assert.equal(stdout.toString(), "first\nlast\n");
  });

  test("a running job is cancelled with its whole tree", async () => {
    const marker = "7341";
    const script = `sleep ${marker} & setsid sleep ${marker} & wait`;
    const submitted = await place.run(["submit", "--", "bash", "-c", script]);
    const id = submitted.stdout.toString().trim();
    await eventually(() => place.countProcesses(`sleep\0${marker}`).then((count) => count === 2), {
      what: "both children",
    });
    const cancelled = await place.run(["cancel", id]);
    assert.equal(cancelled.code, 0, cancelled.stderr);
    assert.equal((await place.run(["watch", id])).code, 130);
    assert.equal(await place.countProcesses(`sleep\0${marker}`), 0);
  });

  test("a running job is paused and goes on, as the command line is told when it is done", async () => {
    const gate = place.gate("pause");
    const script = `while ${gate.isClosed}; do sleep 0.05; done; echo done`;
    const submitted = await place.run(["submit", "--", "bash", "-c", script]);
    const id = submitted.stdout.toString().trim();
    await eventually(async () => (await place.run(["get", id])).stdout.toString().includes("running"), {
      what: "the start of the job",
    });
    const paused = await place.run(["pause", id]);
    assert.equal(paused.stdout.toString(), `${id}  paused\n`, paused.stderr);
    const resumed = await place.run(["resume", id]);
    assert.equal(resumed.stdout.toString(), `${id}  running\n`, resumed.stderr);
    await gate.open();
    assert.equal((await place.run(["watch", id])).code, 0);
    assert.equal((await place.run(["pause", id])).code, 5);
  });

  test("a failed job can be retried by hand and keeps both attempts", async () => {
    const submitted = await place.run(["submit", "--wait", "--", "sh", "-c", "exit $((4 - HODEI_ATTEMPT))"]);
    const id = submitted.stdout.toString().trim().split(/\s/)[0] ?? "";
    assert.equal((await place.run(["watch", id])).code, 3);
    assert.equal((await place.run(["retry", id])).code, 0);
    assert.equal((await place.run(["watch", id])).code, 2);
    const job = await place.run(["get", id, "--output", "json"]);
    const { attempts } = JSON.parse(job.stdout.toString()) as { attempts: { exitCode: number }[] };
    assert.deepEqual(
      attempts.map(({ exitCode }) => exitCode),
      [3, 2],
    );
  });
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    // No such process: that is the answer.
    return false;
  }
}
