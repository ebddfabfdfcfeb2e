import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { CAUSES, definitionWith, type JobDefinition } from "../core/job.ts";
import { poolWith, type PoolDefinition } from "../core/pool.ts";
import { sampleWorker } from "../core/session-fixtures.ts";
import type { Worker } from "../core/worker.ts";
import { definitionFromWire, definitionToWire } from "./convert-definition.ts";
import { poolDefinitionFromWire, poolDefinitionToWire, poolFromWire, poolToWire } from "./convert-pool.ts";
import {
  decisionFromWire,
  decisionToWire,
  queueConfigFromWire,
  queueConfigToWire,
} from "./convert-scheduling.ts";
import { workerFromWire, workerToWire } from "./convert-worker.ts";
import { causeFromWire, causeToWire } from "./convert.ts";
import { JobDefinitionSchema } from "./gen/hodei/v1/jobs_pb.ts";
import { PoolDefinitionSchema } from "./gen/hodei/v1/pools_pb.ts";
import { QueueConfigSchema } from "./gen/hodei/v1/scheduling_pb.ts";

const definition: JobDefinition = definitionWith({
  name: "picky",
  command: { kind: "shell", cmd: "true", args: [] },
  selector: { os: "linux" },
  selectorExpressions: [
    { key: "zone", operator: "in", values: ["a", "b"] },
    { key: "zone", operator: "not_in", values: ["c"] },
    { key: "gpu", operator: "exists", values: [] },
    { key: "spot", operator: "not_exists", values: [] },
    { key: "cores", operator: "gt", values: ["4"] },
    { key: "cores", operator: "lt", values: ["64"] },
  ],
  tolerations: [
    { key: "", operator: "exists", value: "", effect: null },
    { key: "spot", operator: "equal", value: "yes", effect: "NoExecute" },
  ],
  capabilities: ["pause"],
  preferences: [
    { weight: -7, workerLabels: [{ key: "disk", operator: "exists", values: [] }], jobLabels: {} },
    { weight: 100, workerLabels: [], jobLabels: { team: "a" } },
  ],
  concurrency: { key: "deploy", limit: 3 },
  preemptible: true,
});

test("where a job may run is the same after a way over the wire", () => {
  assert.deepEqual(definitionFromWire(definitionToWire(definition)), definition);
  const plain = definitionWith({ name: "plain", command: { kind: "shell", cmd: "true", args: [] } });
  assert.deepEqual(definitionFromWire(definitionToWire(plain)), plain);
});

test("a concurrency key without a limit lets one job run", () => {
  const message = create(JobDefinitionSchema, { name: "x", concurrency: { key: "k" } });
  assert.deepEqual(definitionFromWire(message).concurrency, { key: "k", limit: 1 });
});

test("every cause is the same after a way over the wire", () => {
  for (const cause of CAUSES) assert.equal(causeFromWire(causeToWire(cause)), cause);
});

const dockerPool: PoolDefinition = {
  name: "containers",
  provider: {
    type: "docker",
    docker: {
      image: "debian:13",
      host: "unix:///run/docker.sock",
      tlsDirectory: "/tls",
      pull: "always",
      authFile: "/auth.json",
      network: "bridge",
      pids: 100,
      user: "1000:1000",
      noNewPrivileges: false,
      dropCapabilities: ["ALL"],
      readOnlyRoot: true,
      limitDisk: true,
      mounts: ["/cache:/cache:ro"],
    },
  },
  labels: { zone: "a" },
  taints: [{ key: "spot", value: "yes", effect: "PreferNoSchedule" }],
  resources: { cpuMillis: 0, memoryBytes: 2 ** 33, diskBytes: 2 ** 40, gpu: 2 },
  jobsPerWorker: 3,
  minWorkers: 1,
  maxWorkers: 0,
  warmSpares: 2,
  ephemeral: false,
  idleTimeoutMs: 0,
  maxLifetimeMs: 3_600_500,
  startTimeoutMs: 1_000,
  strategy: "round_robin",
  costPerHour: 0.25,
  serverUrl: "http://10.0.0.1:9090",
};

test("a pool is the same after a way over the wire", () => {
  assert.deepEqual(poolDefinitionFromWire(poolDefinitionToWire(dockerPool)), dockerPool);
  const plain = poolWith({ name: "plain", provider: { type: "process" } });
  assert.deepEqual(poolDefinitionFromWire(poolDefinitionToWire(plain)), plain);
  const status = {
    definition: plain,
    isFromSettings: true,
    isDeleting: true,
    workers: 3,
    arriving: 2,
    busy: 1,
    problem: "away",
    retryAtMs: 5_000,
    startTimeMs: 1_500,
  };
  assert.deepEqual(poolFromWire(poolToWire(status)), status);
});

test("what a pool leaves out gets the defaults of its kind", () => {
  const pool = (provider: "process" | "docker"): PoolDefinition =>
    poolDefinitionFromWire(
      create(PoolDefinitionSchema, {
        name: "p",
        provider:
          provider === "docker" ? { case: provider, value: { image: "i" } } : { case: provider, value: {} },
      }),
    );
  assert.deepEqual(pool("process"), poolWith({ name: "p", provider: { type: "process" } }));
  const docker = pool("docker");
  assert.equal(docker.ephemeral, true);
  assert.deepEqual(docker.provider, {
    type: "docker",
    docker: {
      image: "i",
      host: null,
      tlsDirectory: null,
      pull: "missing",
      authFile: null,
      network: "host",
      pids: null,
      user: null,
      noNewPrivileges: true,
      dropCapabilities: [],
      readOnlyRoot: false,
      limitDisk: false,
      mounts: [],
    },
  });
});

test("a queue without a weight weighs one, and a limit of nothing is no missing limit", () => {
  const none = { name: "q", weight: 1, maxRunning: null, maxPending: null, paused: false };
  assert.deepEqual(queueConfigFromWire(create(QueueConfigSchema, { name: "q" })), none);
  const full = { name: "q", weight: 7, maxRunning: 0, maxPending: 0, paused: true };
  assert.deepEqual(queueConfigFromWire(queueConfigToWire(full)), full);
});

test("a decision is the same after a way over the wire", () => {
  const decision = { jobId: "j", queue: "q", reason: "r", atMs: 7, workerId: null, pool: "p" };
  for (const kind of [
    "assigned",
    "provisioning",
    "preempting",
    "waiting",
    "impossible",
    "failed",
    "ended",
  ] as const) {
    assert.deepEqual(decisionFromWire(decisionToWire({ ...decision, kind })), { ...decision, kind });
  }
});

test("a worker is the same after a way over the wire", () => {
  const worker: Omit<Worker, "takesOneJob"> = {
    id: sampleWorker.workerId,
    name: sampleWorker.name,
    state: "ready",
    provider: "docker",
    pool: "p",
    info: { ...sampleWorker, taints: [{ key: "k", value: "v", effect: "NoExecute" }] },
    usage: null,
    createdAtMs: 1,
    madeAtMs: 2,
    registeredAtMs: 3,
    lastHeartbeatAtMs: 4,
    message: "m",
    cordoned: true,
  };
  assert.deepEqual(workerFromWire(workerToWire(worker, ["a-1"])), { ...worker, attemptIds: ["a-1"] });
});
