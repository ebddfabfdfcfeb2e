/**
 * Many workers in one process: each has its own connection, session and heartbeats, as a real
 * agent's link does, and holds no job. Started by workers.ts, which reads its reports.
 */

import { dial, ServerLink } from "../../src/agent/server-link.ts";
import { systemClock } from "../../src/base/clock.ts";
import { silentLogger } from "../../src/base/log.ts";
import { systemRandom, uuidV4 } from "../../src/base/random.ts";
import { HEARTBEAT_INTERVAL_MS } from "../../src/core/lease.ts";
import { PROTOCOL_VERSION, type WorkerMessage } from "../../src/core/link.ts";
import type { WorkerInfo } from "../../src/core/worker.ts";
import { workerInfoToWire } from "../../src/protocol/convert-worker.ts";

/** What the parent says: who shall connect where. */
export interface CrowdOrder {
  serverUrl: string;
  workers: { id: string; token: string }[];
}

/** What the crowd reports, a few times a second. */
export interface CrowdReport {
  connected: number;
}

const REPORT_INTERVAL_MS = 50;
/** Connections that are being made at a time. */
const PARALLEL = 50;

const connected = new Set<string>();

process.on("message", (order: CrowdOrder) => void connectAll(order));
report();

function report(): void {
  const state: CrowdReport = { connected: connected.size };
  process.send?.(state);
  systemClock.schedule(REPORT_INTERVAL_MS, report);
}

async function connectAll(order: CrowdOrder): Promise<void> {
  const waiting = [...order.workers];
  const next = async (): Promise<void> => {
    for (let worker = waiting.pop(); worker; worker = waiting.pop()) await connect(order.serverUrl, worker);
  };
  await Promise.all(Array.from({ length: PARALLEL }, next));
}

async function connect(serverUrl: string, { id, token }: { id: string; token: string }): Promise<void> {
  const server = dial(serverUrl);
  const info = describe(id);
  const { sessionToken } = await server.client.register({
    token,
    worker: workerInfoToWire(info),
    protocolVersion: PROTOCOL_VERSION,
    registrationKey: uuidV4(),
  });
  let sequence = 0;
  const link = new ServerLink({
    server,
    sessionToken,
    clock: systemClock,
    random: systemRandom,
    log: silentLogger,
    hello: () => ({ type: "hello", worker: info, attempts: [], draining: false, runnerId: "" }),
    onMessage: (message) => {
      if (message.type === "welcome") connected.add(id);
    },
    onClosed: () => connected.delete(id),
    nextLog: () => Promise.resolve(null),
    onRevoked: (message) => {
      throw new Error(`worker ${id} was sent away: ${message}`);
    },
  });
  const beat = (): void => {
    sequence += 1;
    const message: WorkerMessage = {
      type: "heartbeat",
      sequence,
      usage: null,
      attempts: [],
      draining: false,
    };
    link.send(message);
    systemClock.schedule(HEARTBEAT_INTERVAL_MS, beat);
  };
  // Spread over the interval, as real workers are.
  systemClock.schedule(HEARTBEAT_INTERVAL_MS * systemRandom.fraction(), beat);
}

function describe(workerId: string): WorkerInfo {
  return {
    workerId,
    name: `crowd-${workerId.slice(-6)}`,
    version: "bench",
    hostname: "bench",
    ipAddress: "127.0.0.1",
    capacity: { cpuMillis: 1_000, memoryBytes: 2 ** 30, diskBytes: 2 ** 30, gpu: 0, jobs: 1 },
    capabilities: [],
    labels: { crowd: "yes" },
    taints: [],
  };
}
