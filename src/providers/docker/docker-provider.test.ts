import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { systemClock } from "../../base/clock.ts";
import { silentLogger } from "../../base/log.ts";
import { systemRandom, uuidV7 } from "../../base/random.ts";
import { providerConformance } from "../provider-conformance.ts";
import { containerName } from "./container.ts";
import { DockerProvider, type DockerProviderOptions } from "./docker-provider.ts";
import { makeImage, skipWithoutEngine, TEST_ENGINE_HOST, testEngine } from "./test-engine.ts";

// One file, as a worker has it: parts of it would be missing in the container.
const workerProgram = fileURLToPath(new URL("../../../bundle/worker.js", import.meta.url));

async function setup(t: TestContext) {
  const image = await makeImage("shell");
  const owner = uuidV7(systemClock, systemRandom);
  const engine = testEngine();
  const providers: DockerProvider[] = [];
  const open = (changes: Partial<DockerProviderOptions> = {}): DockerProvider => {
    const provider = new DockerProvider({
      image,
      owner,
      host: TEST_ENGINE_HOST,
      tlsDirectory: null,
      pull: "never",
      authFile: null,
      network: "host",
      cpuMillis: null,
      memoryBytes: null,
      pids: null,
      user: null,
      noNewPrivileges: true,
      dropCapabilities: [],
      readOnlyRoot: false,
      mounts: [],
      workerProgram,
      clock: systemClock,
      log: silentLogger,
      ...changes,
    });
    providers.push(provider);
    return provider;
  };
  t.after(async () => {
    for (const provider of providers) await provider.close();
    const last = open();
    for (const { workerId } of await last.list()) await last.destroy(workerId);
    assert.deepEqual(await last.list(), []);
    await last.close();
    engine.close();
  });
  const kill = async (workerId: string): Promise<void> => {
    const path = `/containers/${containerName(workerId)}/kill`;
    await engine.call({ method: "POST", path, what: "kill a container" });
  };
  return { provider: open(), open, reopen: async () => open(), kill, engine, owner };
}

const skip = await skipWithoutEngine();

if (skip === false) providerConformance("docker", setup);
else test("provider docker", { skip }, () => {});
