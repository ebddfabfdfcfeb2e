/**
 * What a container needs to be a worker, whatever its image holds: the worker program, a Node.js and
 * the libraries that this Node.js is linked with, the dynamic loader among them.
 *
 * They are what this very process runs on. Nothing of the image is used, so an image may come with
 * another C library or with none. They lie in a volume of the engine, named for what is in it: it is
 * filled once, also when the engine is on another machine, and every container mounts it read-only.
 */

import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import type { BroughtProgram } from "../../base/brought-programs.ts";
import { AppError, errorMessage } from "../../base/errors.ts";
import { isConflict, isNotFound, type Engine } from "./engine.ts";
import { tarArchive, type TarEntry } from "./tar-archive.ts";

/** Where the volume is in a container. */
export const RUNTIME_DIRECTORY = "/hodei";
/** Of volumes with a runtime. */
export const RUNTIME_LABEL = "hodei.runtime";

const PROGRAM_DIRECTORIES = ["/usr/bin", "/bin", "/usr/local/bin"];
const WORKER_PROGRAM = `${RUNTIME_DIRECTORY}/worker.js`;
/** The last file of the archive: without it the volume is not whole. */
const COMPLETE = "complete";
/** A hundred megabytes, to an engine that may be far away. */
const FILL_TIMEOUT_MS = 5 * 60_000;

export interface RuntimeFiles {
  volume: string;
  entries: TarEntry[];
  /** Becomes a command with the name of a program at its end (base/brought-programs.ts). */
  programs: string;
  workerProgram: string;
}

/** The part of what an engine says of itself that tells what its containers can run. */
export interface EngineMachine {
  OSType?: string;
  /** As `uname -m` says it. */
  Architecture?: string;
}

/** How `uname -m` calls what Node.js calls otherwise. */
const MACHINES: Readonly<Record<string, string>> = { x64: "x86_64", arm64: "aarch64" };

/** @throws AppError `failed_precondition` if this Node.js cannot run in the containers of the engine. */
export function checkMachine({ OSType: os = "linux", Architecture: machine }: EngineMachine): void {
  const ours = MACHINES[process.arch];
  const isSame = machine === undefined || ours === undefined || machine === ours;
  if (os === "linux" && isSame) return;
  throw new AppError(
    "failed_precondition",
    `containers of this engine run ${os} on ${machine ?? "an unknown machine"}, and are given the Node.js of this server, which is for linux on ${ours ?? process.arch}`,
  );
}

/** Gathers the files of this process's own Node.js. @throws AppError `failed_precondition` */
export async function readRuntimeFiles(workerProgram: string): Promise<RuntimeFiles> {
  try {
    const worker = await readFile(workerProgram);
    const programs = [{ name: "node", path: process.execPath }, ...(await foundPrograms())];
    const libraries = await linkedLibraries(programs.map(({ path }) => path));
    const loader = libraries.find(({ name }) => name.startsWith("ld-"))?.name;
    if (process.platform !== "linux" || loader === undefined) {
      throw new Error("only a Node.js for Linux with the GNU C library can be given to a container");
    }
    const files = [
      ...(await Promise.all(programs.map(({ name, path }) => fileEntry(`bin/${name}`, path)))),
      ...(await Promise.all(libraries.map(({ name, path }) => fileEntry(`lib/${name}`, path)))),
    ];
    const lib = `${RUNTIME_DIRECTORY}/lib`;
    return {
      volume: `hodei-runtime-${digest(worker, files)}`,
      entries: [
        { type: "directory", name: "bin/", mode: 0o755 },
        { type: "directory", name: "lib/", mode: 0o755 },
        ...files.map(({ entry }) => entry),
        { type: "file", name: "worker.js", mode: 0o644, content: worker },
        { type: "file", name: COMPLETE, mode: 0o644, content: Buffer.alloc(0) },
      ],
      programs: `${lib}/${loader} --library-path ${lib} ${RUNTIME_DIRECTORY}/bin/`,
      workerProgram: WORKER_PROGRAM,
    };
  } catch (cause) {
    throw new AppError("failed_precondition", `gather what a worker runs on: ${errorMessage(cause)}`, {
      cause,
    });
  }
}

/**
 * Makes and fills the volume unless it is there and whole, and removes those of other versions that
 * nobody uses. `image` may be any: the container that the volume is filled through never starts.
 */
export async function ensureRuntimeVolume(
  engine: Engine,
  runtime: RuntimeFiles,
  options: { image: string; owner: string },
): Promise<void> {
  const what = `give the container engine the worker's program (volume ${runtime.volume})`;
  const name = `hodei-filler-${options.owner}`;
  await removeContainer(engine, name);
  await engine.call({
    method: "POST",
    path: "/volumes/create",
    body: { Name: runtime.volume, Labels: { [RUNTIME_LABEL]: runtime.volume } },
    what,
  });
  await engine.call({
    method: "POST",
    path: "/containers/create",
    query: { name },
    body: {
      Image: options.image,
      Entrypoint: ["/never"],
      Labels: { "hodei.owner": options.owner },
      HostConfig: {
        NetworkMode: "none",
        Mounts: [runtimeMount(runtime.volume, false)],
      },
    },
    what,
  });
  try {
    if (!(await isComplete(engine, name))) {
      await engine.call({
        method: "PUT",
        path: `/containers/${name}/archive`,
        query: { path: RUNTIME_DIRECTORY },
        body: tarArchive(runtime.entries),
        what,
        timeoutMs: FILL_TIMEOUT_MS,
      });
    }
  } finally {
    await removeContainer(engine, name);
  }
  await removeOtherVersions(engine, runtime.volume);
}

export function runtimeMount(volume: string, isReadOnly = true): object {
  return {
    Type: "volume",
    Source: volume,
    Target: RUNTIME_DIRECTORY,
    ReadOnly: isReadOnly,
    // What the image may have there must not get into a volume that others share.
    VolumeOptions: { NoCopy: true, Labels: { [RUNTIME_LABEL]: volume } },
  };
}

async function isComplete(engine: Engine, container: string): Promise<boolean> {
  try {
    await engine.bytes({
      method: "HEAD",
      path: `/containers/${container}/archive`,
      query: { path: `${RUNTIME_DIRECTORY}/${COMPLETE}` },
      what: "look into the volume of the worker's program",
    });
    return true;
  } catch (error) {
    if (isNotFound(error)) return false;
    throw error;
  }
}

async function removeContainer(engine: Engine, name: string): Promise<void> {
  try {
    await engine.call({
      method: "DELETE",
      path: `/containers/${name}`,
      query: { force: "true" },
      what: `remove container ${name}`,
    });
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
}

async function removeOtherVersions(engine: Engine, wanted: string): Promise<void> {
  const { Volumes } = await engine.call<{ Volumes: { Name: string }[] | null }>({
    method: "GET",
    path: "/volumes",
    query: { filters: JSON.stringify({ label: [RUNTIME_LABEL] }) },
    what: "list volumes",
  });
  for (const { Name: name } of Volumes ?? []) {
    if (name === wanted) continue;
    try {
      await engine.call({ method: "DELETE", path: `/volumes/${name}`, what: `remove volume ${name}` });
    } catch (error) {
      // A worker of another server or version runs on it.
      if (!isConflict(error) && !isNotFound(error)) throw error;
    }
  }
}

interface Library {
  /** As programs ask for it. */
  name: string;
  path: string;
}

/** Besides Node.js, where this machine has them; the runner says what it lacks. */
const PROGRAMS: readonly BroughtProgram[] = ["mkfifo", "prlimit"];

async function foundPrograms(): Promise<Library[]> {
  const found: Library[] = [];
  for (const name of PROGRAMS) {
    for (const directory of PROGRAM_DIRECTORIES) {
      const path = join(directory, name);
      if (found.some((other) => other.name === name) || !(await isFile(path))) continue;
      found.push({ name, path });
    }
  }
  return found;
}

/** What the dynamic loader loads for programs (ld.so(8)), the loader itself among it. */
async function linkedLibraries(programs: readonly string[]): Promise<Library[]> {
  const libraries = new Map<string, Library>();
  for (const program of programs) {
    // Programs are not run: the loader only lists.
    const { stdout } = await promisify(execFile)(program, ["--version"], {
      env: { LD_TRACE_LOADED_OBJECTS: "1" },
    });
    for (const [, asked = "", path = asked] of stdout.matchAll(/^\s+(\S+)(?: => (\/\S+))? \(0x/gm)) {
      if (path.startsWith("/")) libraries.set(basename(asked), { name: basename(asked), path });
    }
  }
  return [...libraries.values()];
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isFile();
  } catch {
    // Not here: the next directory may have it.
    return false;
  }
}

async function fileEntry(name: string, path: string): Promise<{ entry: TarEntry; mark: string }> {
  const { size, mtimeMs } = await stat(path);
  return {
    entry: { type: "file", name, mode: 0o755, path, sizeBytes: size },
    mark: `${name} ${path} ${size} ${mtimeMs}`,
  };
}

/** A Node.js of a hundred megabytes is told by its place, size and time; the program by its bytes. */
function digest(worker: Buffer, files: readonly { mark: string }[]): string {
  const hash = createHash("sha256").update(worker);
  for (const { mark } of files) hash.update(`\n${process.version} ${mark}`);
  return hash.digest("hex").slice(0, 24);
}
