/** A worker made for one job, as a container. */

import { systemClock } from "../../src/base/clock.ts";
import type { Engine } from "../../src/providers/docker/engine.ts";
import {
  makeImage,
  skipWithoutEngine,
  TEST_ENGINE_HOST,
  testEngine,
} from "../../src/providers/docker/test-engine.ts";
import { medianOf, type BenchRow } from "../bench-row.ts";
import { startBenchServer } from "./bench-server.ts";
import { firstByteSeconds } from "./first-run.ts";

const RUNS = 7;

/** Shows nothing where no engine answers. */
export const dockerWorker: BenchRow = {
  name: "ephemeral docker worker, job waiting → first log byte",
  target: "≤ 1.2 s",
  rawName: "container of true, created, run and removed",
  async run() {
    if ((await skipWithoutEngine()) !== false) return { value: null, raw: null, unit: "s" };
    const image = await makeImage("shell");
    const docker = ["--docker-host", TEST_ENGINE_HOST, "--docker-image", image, "--docker-pull", "never"];
    const server = await startBenchServer(["--max-workers", "0", "--docker-max-workers", "8", ...docker]);
    const engine = testEngine();
    try {
      // The first one fills the volume with the program.
      await firstByteSeconds(server);
      const value = await medianOf(RUNS, () => firstByteSeconds(server));
      return { value, raw: await medianOf(RUNS, () => containerSeconds(engine, image)), unit: "s" };
    } finally {
      engine.close();
      await server.stop();
    }
  },
};

async function containerSeconds(engine: Engine, image: string): Promise<number> {
  const startedAtMs = systemClock.monotonicMs();
  const { Id: id } = await engine.call<{ Id: string }>({
    method: "POST",
    path: "/containers/create",
    body: { Image: image, Cmd: ["sh", "-c", "true"], HostConfig: { NetworkMode: "host" } },
    what: "create a container",
  });
  await engine.call({ method: "POST", path: `/containers/${id}/start`, what: "start a container" });
  await engine.call({ method: "POST", path: `/containers/${id}/wait`, what: "wait for a container" });
  await engine.call({ method: "DELETE", path: `/containers/${id}`, what: "remove a container" });
  return (systemClock.monotonicMs() - startedAtMs) / 1_000;
}
