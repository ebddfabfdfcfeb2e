/** Opens what makes the workers of a pool. */

import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import { systemErrorCode } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { uuidV7, type Random } from "../../base/random.ts";
import type { DockerTemplate, PoolDefinition } from "../../core/pool.ts";
import { ProcessProvider } from "../../providers/process/process-provider.ts";
import type { Provider } from "../../providers/provider.ts";

export interface MakeProviderContext {
  dataDirectory: string;
  workerProgram: string;
  environment: Record<string, string | undefined>;
  /** For pools that name none. */
  dockerHost: string;
  dockerTlsDirectory: string | null;
  clock: Clock;
  random: Random;
  log: Logger;
}

/** @throws AppError `invalid_argument` with what is wrong with the template. */
export async function makeProvider(
  { provider, resources }: Pick<PoolDefinition, "provider" | "resources">,
  context: MakeProviderContext,
): Promise<Provider> {
  if (provider.type === "docker") return await openDocker(provider.docker, resources, context);
  const { dataDirectory, ...rest } = context;
  return new ProcessProvider({ directory: join(dataDirectory, "workers"), ...rest });
}

async function openDocker(
  template: DockerTemplate,
  { cpuMillis, memoryBytes, diskBytes }: PoolDefinition["resources"],
  context: MakeProviderContext,
): Promise<Provider> {
  // Who makes no containers does not load it.
  const { DockerProvider } = await import("../../providers/docker/docker-provider.ts");
  const { workerProgram, clock, log } = context;
  const isDefault = template.host === null;
  return new DockerProvider({
    ...template,
    host: template.host ?? context.dockerHost,
    tlsDirectory: template.tlsDirectory ?? (isDefault ? context.dockerTlsDirectory : null),
    owner: await loadOrCreateOwner(context.dataDirectory, context),
    cpuMillis,
    memoryBytes,
    diskLimitBytes: template.limitDisk ? diskBytes : null,
    workerProgram,
    clock,
    log,
  });
}

/** Whose containers these are; another data directory is another owner. */
async function loadOrCreateOwner(
  dataDirectory: string,
  { clock, random }: { clock: Clock; random: Random },
): Promise<string> {
  const path = join(dataDirectory, "owner");
  try {
    return (await readFile(path, "utf8")).trim();
  } catch (error) {
    if (systemErrorCode(error) !== "ENOENT") throw error;
  }
  const owner = uuidV7(clock, random);
  await mkdir(dataDirectory, { recursive: true });
  await writeFile(`${path}.new`, `${owner}\n`);
  await rename(`${path}.new`, path);
  return owner;
}
