/** A machine that a person joins to a server: from its token to its removal. */

import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { eventually } from "../src/base/eventually.ts";
import { finished, Place } from "./program.ts";

interface ShownWorker {
  id: string;
  state: string;
  provider: string;
  info: { labels: Record<string, string>; taints: unknown[] };
}

async function setup(t: TestContext) {
  const place = await Place.make();
  const agents: ChildProcess[] = [];
  t.after(async () => {
    for (const agent of agents) {
      if (agent.exitCode !== null) continue;
      agent.kill();
      await finished(agent);
    }
    await place.stopDev();
    await eventually(async () => (await place.leftovers()).length === 0, {
      what: "the end of all processes",
    });
    await rm(place.directory, { recursive: true, force: true });
  });
  await place.startServer(["--max-workers", "0"]);

  const hodei = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await place.run(args);
    assert.equal(code, 0, `hodei ${args.join(" ")}: ${stderr}`);
    return stdout.toString();
  };
  const token = async (): Promise<string> => {
    const file = join(place.directory, "token");
    await rm(file, { force: true });
    const { stderr } = await place.run(["workers", "token", "--write", file]);
    const nextStep = `hodei agent --server http://${await place.grpcAddress()} --token-file ${file}\n`;
    assert.ok(stderr.includes(nextStep), stderr);
    return file;
  };
  /** In `worker`, if the arguments name no other directory. */
  const agent = async (...args: string[]): Promise<ChildProcess> => {
    const server = `http://${await place.grpcAddress()}`;
    const directory = args.includes("--directory") ? [] : ["--directory", join(place.directory, "worker")];
    const started = place.start(["agent", "--server", server, ...directory, ...args]);
    agents.push(started);
    return started;
  };
  const workers = async (): Promise<ShownWorker[]> =>
    JSON.parse(await hodei("workers", "--output", "json")) as ShownWorker[];
  const ready = (): Promise<ShownWorker> =>
    eventually(async () => (await workers()).find(({ state }) => state === "ready"), {
      what: "a worker that is ready",
      timeoutMs: 20_000,
    });
  return { place, hodei, token, agent, workers, ready };
}

test("a static worker stays the same through restarts, until it is removed; then its directory takes a new token", async (t) => {
  const { place, hodei, token, agent, workers, ready } = await setup(t);
  const flags = ["--labels", "zone=eu", "--taints", "gpu=a100:PreferNoSchedule"];
  const tokenFile = await token();
  const used = await readFile(tokenFile, "utf8");
  const first = await agent("--token-file", tokenFile, ...flags);
  const firstEnd = finished(first);
  const joined = await ready();
  assert.equal(joined.provider, "static");
  assert.equal(joined.info.labels["zone"], "eu");
  assert.equal(joined.info.labels["provider"], "static");
  assert.deepEqual(joined.info.taints, [{ key: "gpu", value: "a100", effect: "PreferNoSchedule" }]);
  await assert.rejects(stat(tokenFile), /ENOENT/, "the used token is removed");
  const run = ["run", "--selector", "provider=static,zone=eu", "--", "echo"];
  assert.equal(await hodei(...run, "one"), "one\n");

  first.kill("SIGTERM");
  const { code, stderr } = await firstEnd;
  assert.equal(code, 0, stderr);
  assert.match(
    stderr,
    new RegExp(`"workerId":"${joined.id}".*"msg":"connected"`),
    "it says that it has joined",
  );
  const second = await agent(...flags);
  assert.equal(await hodei(...run, "two"), "two\n");
  await place.stopDev();
  await place.startServer(["--max-workers", "0"]);
  assert.equal(await hodei(...run, "three"), "three\n");
  assert.deepEqual(
    (await workers()).map(({ id }) => id),
    [joined.id],
  );

  await writeFile(tokenFile, used);
  const thief = await agent("--directory", join(place.directory, "other"), "--token-file", tokenFile);
  const refused = await finished(thief);
  assert.equal(refused.code, 78);
  assert.match(refused.stderr, /^hodei: .*was used already; `hodei workers token` makes a new one$/m);

  const ended = finished(second);
  await hodei("workers", "remove", joined.id, "--reason", "moved");
  assert.match((await ended).stderr, /^hodei: .*(moved|`hodei workers token`)/m);
  assert.deepEqual(await workers(), []);

  await agent("--token-file", await token(), ...flags);
  assert.notEqual((await ready()).id, joined.id);
  assert.equal(await hodei(...run, "four"), "four\n");
});

test("a worker that was removed while it was away is refused, and says what to do", async (t) => {
  const { hodei, token, agent, workers, ready } = await setup(t);
  const first = await agent("--token-file", await token());
  const { id } = await ready();
  first.kill("SIGTERM");
  await finished(first);
  await hodei("workers", "remove", id);
  const { code, stderr } = await finished(await agent());
  assert.equal(code, 78);
  assert.match(stderr, /^hodei: .*session.* revoked; it was removed, .*`hodei workers token`/m);
  assert.deepEqual(await workers(), []);
});

test("the metrics of a server show the job that a static worker ran, to those who have the token", async (t) => {
  const { place, hodei, token, agent, ready } = await setup(t);
  await agent("--token-file", await token());
  await ready();
  const output = await hodei("run", "--", "bash", "-c", "head -c 6000000 /dev/zero | base64 -w 99");
  const url = `${(await place.server()).url}/metrics`;
  assert.equal((await fetch(url)).status, 401);
  const apiToken = (await readFile(join(place.dataDirectory, "api-token"), "utf8")).trim();
  const response = await fetch(url, { headers: { authorization: `Bearer ${apiToken}` } });
  const text = await response.text();
  for (const line of [
    'hodei_jobs_ended_total{state="succeeded",cause=""} 1',
    "hodei_attempts_started_total 1",
    'hodei_job_start_part_seconds_count{part="total"} 1',
    "hodei_workers_connected 1",
    "hodei_database_up 1",
  ]) {
    assert.ok(text.split("\n").includes(line), `${line} is not in\n${text}`);
  }
  // As stored: with a few bytes around each piece.
  const stored = Number(/^hodei_log_stored_bytes_total (\d+)$/m.exec(text)?.[1]);
  assert.ok(stored >= output.length && stored < output.length * 1.01, `${stored} for ${output.length}`);
});
