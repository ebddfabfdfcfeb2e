/**
 * Makes workers as containers of a Docker engine.
 *
 * Any image will do: the agent, its Node.js and its libraries come in a volume (worker-runtime.ts).
 * The container is the worker: when it ends, by itself or by whatever hand, every process of its jobs
 * has ended with it, so its end frees the jobs at once. Containers carry labels with the owner (the
 * server's data directory) and the worker, and a name made of the worker's id, by which a server that
 * comes back finds them, and by which a repeated `create` makes no second one.
 */

import type { Clock } from "../../base/clock.ts";
import { AppError, errorMessage } from "../../base/errors.ts";
import { eventually } from "../../base/eventually.ts";
import type { Logger } from "../../base/log.ts";
import { OneAtATime } from "../../base/one-at-a-time.ts";
import type {
  InstanceState,
  Provider,
  ProviderEvent,
  ProviderHealth,
  WorkerHandle,
  WorkerSpec,
} from "../provider.ts";
import { describeEnd, hasNotStarted, type EndedState } from "./container-end.ts";
import { ContainerEvents } from "./container-events.ts";
import {
  containerBody,
  containerName,
  OWNER_LABEL,
  tokenFiles,
  WORKER_LABEL,
  type ContainerOptions,
} from "./container.ts";
import {
  checkVolumes,
  diskLimitProblem,
  explainFailure,
  fullDiskProblem,
  type EngineStorage,
} from "./engine-storage.ts";
import { Engine, isConflict, isNotFound } from "./engine.ts";
import { ImageStore, type PullPolicy } from "./image-store.ts";
import { tarArchive } from "./tar-archive.ts";
import {
  checkMachine,
  ensureRuntimeVolume,
  readRuntimeFiles,
  type EngineMachine,
  type RuntimeFiles,
} from "./worker-runtime.ts";

export interface DockerProviderOptions extends ContainerOptions {
  /** Whose containers these are; another owner's are never touched. */
  owner: string;
  /** `unix:///path/of/socket` or `tcp://host:port`. */
  host: string;
  tlsDirectory: string | null;
  pull: PullPolicy;
  authFile: string | null;
  /** The one-file worker program; run by this process's own Node.js. */
  workerProgram: string;
  clock: Clock;
  log: Logger;
}

/** How long the engine may take to answer whether it is well. */
const HEALTH_TIMEOUT_MS = 3_000;
/** What an engine says of its init program if it cannot run it. */
const NO_INIT = "N/A";
/** Events may come late, but not by so many workers. */
const MAX_SETTLED = 10_000;
/** How long a container that is being removed by somebody may take to be gone. */
const REMOVE_TIMEOUT_MS = 30_000;

const ENDED: ReadonlySet<string> = new Set(["exited", "dead"]);

interface ContainerState extends EndedState {
  Status: string;
  Running: boolean;
  Paused: boolean;
}

interface ContainerView {
  Id: string;
  State: ContainerState;
  HostConfig: { Memory: number };
}

type EngineInfo = EngineMachine & EngineStorage & { InitCommit?: { ID?: string } };

/** What is the same for all containers and found out with the first. */
interface Prepared {
  runtime: RuntimeFiles;
  hasInit: boolean;
}

export class DockerProvider implements Provider {
  readonly name = "docker";
  readonly capabilities = { events: true };
  readonly #options: DockerProviderOptions;
  readonly #engine: Engine;
  readonly #images: ImageStore;
  readonly #listeners = new Set<(event: ProviderEvent) => void>();
  /** One verb at a time for each worker: a removal must see what a creation has made. */
  readonly #verbs = new OneAtATime();
  /** Workers that are destroyed on purpose, or of whose end the listeners know. */
  readonly #settled = new Set<string>();
  /** Workers that this process is making: a container that was only created belongs to one of them. */
  readonly #creating = new Set<string>();
  #prepared: Promise<Prepared> | null = null;
  #events: ContainerEvents | null = null;
  #isClosed = false;

  /** @throws AppError `invalid_argument` if the address of the engine or its TLS files are wrong. */
  constructor(options: DockerProviderOptions) {
    this.#options = options;
    this.#engine = new Engine(options);
    this.#images = new ImageStore(this.#engine, options);
  }

  async create(spec: WorkerSpec): Promise<WorkerHandle> {
    const { workerId } = spec;
    const name = nameOf(workerId);
    return this.#verbs.run(workerId, async () => {
      this.#creating.add(workerId);
      try {
        const found = await this.#inspect(name);
        if (found?.State.Running === true) return { workerId, instanceId: found.Id };
        // What an earlier server began and did not end.
        if (found) await this.#remove(workerId);
        return { workerId, instanceId: await this.#make(spec) };
      } catch (error) {
        this.#settle(workerId);
        await this.#remove(workerId).catch((cleanUpError: unknown) => {
          this.#options.log.error({ err: cleanUpError, workerId }, "could not remove a worker");
        });
        const { code, message } = explainFailure(error, this.#options.diskLimitBytes);
        throw new AppError(code, `make worker ${workerId} in a container: ${message}`, { cause: error });
      } finally {
        this.#creating.delete(workerId);
      }
    });
  }

  async destroy(workerId: string): Promise<void> {
    nameOf(workerId);
    this.#settle(workerId);
    await this.#verbs.run(workerId, () => this.#remove(workerId));
  }

  async inspect(workerId: string): Promise<InstanceState> {
    const state = (await this.#inspect(nameOf(workerId)))?.State;
    if (!state) return "gone";
    if (state.Running || state.Paused) return "running";
    // Whoever learns of the end here shall know its reason already, as with an event that was faster.
    if (ENDED.has(state.Status)) await this.#verbs.run(workerId, () => this.#report(workerId));
    // One that a server has made and not started before it ended will never start.
    return this.#creating.has(workerId) ? "starting" : "gone";
  }

  /** Containers that have ended are listed too: they still take room. */
  async list(): Promise<WorkerHandle[]> {
    const containers = await this.#containers({});
    return containers.map(({ Id: instanceId, Labels: labels }) => ({
      workerId: labels[WORKER_LABEL] ?? "",
      instanceId,
    }));
  }

  get activity(): string | null {
    return this.#images.activity;
  }

  async healthCheck(): Promise<ProviderHealth> {
    try {
      await this.#engine.bytes({
        method: "GET",
        path: "/_ping",
        what: "ask the container engine how it is",
        timeoutMs: HEALTH_TIMEOUT_MS,
      });
      const problems = [await this.#images.problem(), ...(await this.#storageProblems())];
      const reason = problems.filter((problem) => problem !== null).join("; ");
      return reason === "" ? { status: "healthy" } : { status: "degraded", reason };
    } catch (error) {
      return { status: "unhealthy", reason: errorMessage(error) };
    }
  }

  onEvent(listener: (event: ProviderEvent) => void): () => void {
    this.#listeners.add(listener);
    if (!this.#isClosed) this.#events ??= this.#follow();
    return () => this.#listeners.delete(listener);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#listeners.clear();
    await this.#events?.stop();
    this.#engine.close();
  }

  async #storageProblems(): Promise<(string | null)[]> {
    const { host, diskLimitBytes } = this.#options;
    const info = await this.#info(HEALTH_TIMEOUT_MS);
    return [diskLimitBytes === null ? null : diskLimitProblem(info), await fullDiskProblem(info, host)];
  }

  async #make(spec: WorkerSpec): Promise<string> {
    const { diskLimitBytes, mounts } = this.#options;
    const { variables: imageVariables, volumes } = await this.#images.ensure();
    if (diskLimitBytes !== null) checkVolumes(volumes, mounts);
    const prepared = await this.#prepare();
    const name = containerName(spec.workerId);
    const { Id: id } = await this.#engine.call<{ Id: string }>({
      method: "POST",
      path: "/containers/create",
      query: { name },
      body: containerBody(spec, {
        ...prepared,
        options: this.#options,
        owner: this.#options.owner,
        imageVariables,
      }),
      what: "create the container",
    });
    await this.#giveToken(name, spec.token);
    try {
      await this.#engine.call({
        method: "POST",
        path: `/containers/${name}/start`,
        what: "start the container",
      });
    } catch (error) {
      // As in `#report`, where the engine has no init program that hides it.
      this.#prepared = null;
      throw error;
    }
    return id;
  }

  /** In a file, since everybody who may look at the container sees its variables and arguments. */
  async #giveToken(container: string, token: string): Promise<void> {
    const { path, entries } = tokenFiles(token, this.#options);
    await this.#engine.call({
      method: "PUT",
      path: `/containers/${container}/archive`,
      query: { path },
      body: tarArchive(entries),
      what: "give the container its token",
    });
  }

  /** The volume and what the engine can do; forgotten when it fails, so that the next worker tries anew. */
  #prepare(): Promise<Prepared> {
    if (this.#prepared) return this.#prepared;
    const preparing = this.#prepareOnce();
    this.#prepared = preparing;
    preparing.catch(() => {
      if (this.#prepared === preparing) this.#prepared = null;
    });
    return preparing;
  }

  async #prepareOnce(): Promise<Prepared> {
    const { image, owner, workerProgram, diskLimitBytes } = this.#options;
    const info = await this.#info();
    checkMachine(info);
    const problem = diskLimitBytes === null ? null : diskLimitProblem(info);
    if (problem !== null) throw new AppError("failed_precondition", problem);
    const runtime = await readRuntimeFiles(workerProgram);
    await ensureRuntimeVolume(this.#engine, runtime, { image, owner });
    return { runtime, hasInit: info.InitCommit?.ID !== NO_INIT };
  }

  #info(timeoutMs?: number): Promise<EngineInfo> {
    return this.#engine.call({
      method: "GET",
      path: "/info",
      what: "ask the container engine what it can do",
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
    });
  }

  async #inspect(name: string): Promise<ContainerView | null> {
    try {
      return await this.#engine.call({
        method: "GET",
        path: `/containers/${name}/json`,
        what: `look at container ${name}`,
      });
    } catch (error) {
      if (isNotFound(error)) return null;
      throw error;
    }
  }

  #containers(filters: Record<string, string[]>): Promise<{ Id: string; Labels: Record<string, string> }[]> {
    const label = [`${OWNER_LABEL}=${this.#options.owner}`, WORKER_LABEL];
    return this.#engine.call({
      method: "GET",
      path: "/containers/json",
      query: { all: "true", filters: JSON.stringify({ ...filters, label }) },
      what: "list the containers of workers",
    });
  }

  /** With everything that runs in it, and its volume; resolves when it is gone. */
  async #remove(workerId: string): Promise<void> {
    const name = nameOf(workerId);
    try {
      await this.#engine.call({
        method: "DELETE",
        path: `/containers/${name}`,
        query: { force: "true", v: "true" },
        what: `remove container ${name}`,
      });
    } catch (error) {
      if (isNotFound(error)) return;
      if (!isConflict(error)) throw error;
      // Somebody else is removing it.
      await eventually(async () => (await this.#inspect(name)) === null, {
        timeoutMs: REMOVE_TIMEOUT_MS,
        intervalMs: 50,
        what: `the removal of container ${name}`,
      });
    }
  }

  #follow(): ContainerEvents {
    const { owner, clock, log } = this.#options;
    return new ContainerEvents({
      engine: this.#engine,
      owner,
      clock,
      log,
      onConnected: async () => {
        for (const { Labels: labels } of await this.#containers({ status: ["exited", "dead"] })) {
          this.#reportEnd(labels[WORKER_LABEL] ?? "");
        }
      },
      onEnded: (workerId) => this.#reportEnd(workerId),
    });
  }

  #settle(workerId: string): void {
    this.#settled.add(workerId);
    const [oldest] = this.#settled;
    if (this.#settled.size > MAX_SETTLED && oldest !== undefined) this.#settled.delete(oldest);
  }

  /** After what is being done with the worker: a container that was just made is started there. */
  #reportEnd(workerId: string): void {
    if (this.#settled.has(workerId)) return;
    this.#verbs
      .run(workerId, () => this.#report(workerId))
      .catch((error: unknown) => {
        // Whoever inspects the worker next finds it gone.
        this.#options.log.warn({ err: error, workerId }, "could not find out why a container ended");
      });
  }

  async #report(workerId: string): Promise<void> {
    const name = containerName(workerId);
    const found = await this.#inspect(name);
    // A removal may have begun while the engine answered.
    if (found?.State.Running === true || this.#settled.has(workerId) || this.#listeners.size === 0) return;
    this.#settle(workerId);
    // Somebody may have removed the volume with the program: it is filled again.
    if (found && hasNotStarted(found.State)) this.#prepared = null;
    const message = found
      ? await describeEnd(this.#engine, { name, state: found.State, memoryBytes: found.HostConfig.Memory })
      : "its container was removed";
    for (const listener of this.#listeners) listener({ type: "gone", workerId, message });
  }
}

/** @throws AppError `invalid_argument`: the id becomes part of a path. */
function nameOf(workerId: string): string {
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(workerId)) {
    throw new AppError("invalid_argument", `worker id ${JSON.stringify(workerId)} is no UUID`);
  }
  return containerName(workerId);
}
