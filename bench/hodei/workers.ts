/** What many idle workers cost a server, and how fast they are back after it was killed. */

import { fork, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { systemClock } from "../../src/base/clock.ts";
import { eventually } from "../../src/base/eventually.ts";
import { silentLogger } from "../../src/base/log.ts";
import { sha256Hex, systemRandom, uuidV4, uuidV7 } from "../../src/base/random.ts";
import { openPostgresStore } from "../../src/storage/postgres/open-postgres-store.ts";
import { durationMs, type BenchRow } from "../bench-row.ts";
import { startBenchServer, type BenchServer } from "./bench-server.ts";
import type { CrowdOrder, CrowdReport } from "./crowd-main.ts";

const WORKERS = 2_000;
const IDLE_MS = 15_000;
const CONNECT_TIMEOUT_MS = 120_000;
/** Clock ticks in a second, as /proc/<pid>/stat counts. */
const TICKS_PER_SECOND = 100;

export const idleWorkersMemory: BenchRow = {
  name: "2,000 idle workers: memory of the server",
  target: "≤ 600 MB",
  rawName: "server without workers",
  run: () =>
    withCrowd(async (server, alone) => {
      await systemClock.sleep(IDLE_MS);
      return { value: (await memoryBytes(server.pid)) / 1e6, raw: alone.memoryBytes / 1e6, unit: "MB" };
    }),
};

export const idleWorkersCpu: BenchRow = {
  name: "2,000 idle workers: part of a core",
  target: "≤ 10 %",
  rawName: "server without workers",
  run: () =>
    withCrowd(async (server, alone) => {
      await systemClock.sleep(IDLE_MS);
      return { value: await cpuPercent(server.pid), raw: alone.cpuPercent, unit: "%" };
    }),
};

export const reconnect: BenchRow = {
  name: "2,000 workers back after kill -9 and restart of the server",
  target: "≤ 10 s",
  rawName: "start of the server alone",
  run: () =>
    withCrowd(async (server, _alone, crowd) => {
      let startMs = 0;
      const tookMs = await durationMs(async () => {
        startMs = await durationMs(() => server.killAndRestart());
        await crowd.untilConnected(WORKERS);
      });
      return { value: tookMs / 1_000, raw: startMs / 1_000, unit: "s" };
    }),
};

interface Crowd {
  untilConnected(count: number): Promise<void>;
}

interface Alone {
  memoryBytes: number;
  cpuPercent: number;
}

async function withCrowd<T>(
  measure: (server: BenchServer, alone: Alone, crowd: Crowd) => Promise<T>,
): Promise<T> {
  const server = await startBenchServer(["--max-workers", "0"]);
  const child = fork(fileURLToPath(new URL("./crowd-main.js", import.meta.url)));
  try {
    const alone = { memoryBytes: await memoryBytes(server.pid), cpuPercent: await cpuPercent(server.pid) };
    const crowd = watch(child);
    const order: CrowdOrder = { serverUrl: await server.workerUrl(), workers: await makeWorkers(server) };
    child.send(order);
    await crowd.untilConnected(WORKERS);
    return await measure(server, alone, crowd);
  } finally {
    child.kill("SIGKILL");
    await once(child, "exit");
    await server.stop();
  }
}

function watch(child: ChildProcess): Crowd {
  let connected = 0;
  child.on("message", (report: CrowdReport) => {
    connected = report.connected;
  });
  return {
    async untilConnected(count) {
      const what = `the connection of ${count} workers`;
      await eventually(() => connected >= count, { timeoutMs: CONNECT_TIMEOUT_MS, what });
    },
  };
}

/** Straight into the server's database: there is no provider for workers of a bench. */
async function makeWorkers(server: BenchServer): Promise<CrowdOrder["workers"]> {
  const store = await openPostgresStore({
    connection: server.databaseConnection,
    clock: systemClock,
    random: systemRandom,
    log: silentLogger,
  });
  const workers = Array.from({ length: WORKERS }, () => ({
    id: uuidV7(systemClock, systemRandom),
    token: uuidV4(),
  }));
  for (const { id, token } of workers) {
    const nowMs = systemClock.nowMs();
    const expiresAtMs = nowMs + CONNECT_TIMEOUT_MS;
    await store.insertWorker({
      id,
      name: `crowd-${id.slice(-6)}`,
      provider: "static",
      pool: "crowd",
      nowMs,
      token: { hash: sha256Hex(token), expiresAtMs },
    });
  }
  await store.close();
  return workers;
}

async function memoryBytes(pid: number): Promise<number> {
  const status = await readFile(join("/proc", String(pid), "status"), "utf8");
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024;
}

async function cpuPercent(pid: number): Promise<number> {
  const before = await cpuTicks(pid);
  await systemClock.sleep(IDLE_MS);
  const seconds = ((await cpuTicks(pid)) - before) / TICKS_PER_SECOND;
  return (100 * seconds) / (IDLE_MS / 1_000);
}

async function cpuTicks(pid: number): Promise<number> {
  const stat = await readFile(join("/proc", String(pid), "stat"), "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return Number(fields[11]) + Number(fields[12]);
}
