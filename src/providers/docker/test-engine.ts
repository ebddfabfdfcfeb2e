/** A container engine for tests, and images made here: nothing is pulled from anywhere. */

import { execFile } from "node:child_process";
import { chmod, copyFile, mkdir, mkdtemp, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { promisify } from "node:util";
import { systemClock } from "../../base/clock.ts";
import { errorMessage } from "../../base/errors.ts";
import { Engine } from "./engine.ts";

const run = promisify(execFile);

export const TEST_ENGINE_HOST = process.env["HODEI_TEST_DOCKER_HOST"] ?? "unix:///var/run/docker.sock";

/** Of an engine whose storage driver can limit the disk of a container; undefined if none was named. */
export const QUOTA_ENGINE_HOST = process.env["HODEI_TEST_QUOTA_DOCKER_HOST"];

/** Why tests of such limits are skipped, or false. */
export async function skipWithoutQuotaEngine(): Promise<string | false> {
  if (QUOTA_ENGINE_HOST !== undefined) return await skipWithoutEngine(QUOTA_ENGINE_HOST);
  return "HODEI_TEST_QUOTA_DOCKER_HOST names no engine that can limit disk, such as one on btrfs";
}

/** False if an engine answers, else why the tests are skipped. */
export async function skipWithoutEngine(host = TEST_ENGINE_HOST): Promise<string | false> {
  const engine = testEngine(host);
  try {
    await engine.bytes({ method: "GET", path: "/_ping", what: "ask for an engine", timeoutMs: 3_000 });
    return false;
  } catch (error) {
    return `${errorMessage(error)}; HODEI_TEST_DOCKER_HOST may name another`;
  } finally {
    engine.close();
  }
}

export function testEngine(host = TEST_ENGINE_HOST): Engine {
  return new Engine({ host, tlsDirectory: null, clock: systemClock });
}

export const TEST_IMAGES = {
  /** Node.js, bash and the tools of coreutils, with their libraries. */
  node: "hodei-test-node:1",
  /** The same without Node.js. */
  shell: "hodei-test-shell:1",
  /** One static program that is a shell and its tools; no library at all. */
  static: "hodei-test-static:1",
  /** One static program that is no shell, and nothing else: not even a directory. */
  bare: "hodei-test-bare:1",
  /** As `static`, of programs for another kind of machine. */
  foreign: "hodei-test-foreign:1",
} as const;
export type TestImage = keyof typeof TEST_IMAGES;

const SHELL_TOOLS = [
  "bash",
  "cat",
  "sleep",
  "env",
  "id",
  "seq",
  "head",
  "base64",
  "sha256sum",
  "touch",
  "yes",
];
const STATIC_SHELL = "/bin/busybox";
/** Where a program says for which machine it is (elf(5): e_machine), and what none is called. */
const MACHINE_OFFSET = 18;
const NO_MACHINE = 0xffff;

/** Why an image cannot be made here, or false. */
export async function skipWithoutParts(image: TestImage): Promise<string | false> {
  if (image === "node" || image === "shell") return false;
  const found = await stat(STATIC_SHELL).catch(() => null);
  return found ? false : `needs ${STATIC_SHELL} of the package busybox-static`;
}

/** Makes an image of programs of this machine, unless the engine has it. */
export async function makeImage(image: TestImage, host = TEST_ENGINE_HOST): Promise<string> {
  const name = TEST_IMAGES[image];
  const found = await run("docker", ["-H", host, "image", "inspect", name]).catch(() => null);
  if (found) return name;
  const root = await mkdtemp(join(tmpdir(), "hodei-image-"));
  try {
    // Some storage drivers give it to the root of each container.
    await chmod(root, 0o755);
    if (image === "bare") await copyFile(STATIC_SHELL, join(root, "echo"));
    else await addSystem(root, image);
    const archive = join(root, "root.tar");
    await run("tar", ["-C", root, "--exclude=./root.tar", "-cf", archive, "."]);
    const settings = ["-c", "ENV IMAGE_SAYS=hello", "-c", "ENV NODE_OPTIONS=--no-such-option"];
    await run("docker", ["-H", host, "import", ...settings, archive, name]);
    return name;
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

async function addSystem(root: string, image: Exclude<TestImage, "bare">): Promise<void> {
  await mkdir(join(root, "bin"));
  await mkdir(join(root, "etc"));
  await mkdir(join(root, "tmp"), { mode: 0o1777 });
  await writeFile(join(root, "etc", "passwd"), "root:x:0:0::/:/bin/sh\nworker:x:1000:1000::/:/bin/sh\n");
  await writeFile(join(root, "etc", "image-kind"), image);
  if (image === "node") await addPrograms(root, [...SHELL_TOOLS, process.execPath]);
  else if (image === "shell") await addPrograms(root, SHELL_TOOLS);
  else await addStaticShell(root, image === "foreign");
}

async function addStaticShell(root: string, isForeign: boolean): Promise<void> {
  const program = await readFile(STATIC_SHELL);
  if (isForeign) program.writeUInt16LE(NO_MACHINE, MACHINE_OFFSET);
  await writeFile(join(root, "bin", "busybox"), program, { mode: 0o755 });
  for (const tool of ["sh", "cat", "sleep", "env", "id", "seq"]) {
    await symlink("busybox", join(root, "bin", tool));
  }
}

async function addPrograms(root: string, programs: readonly string[]): Promise<void> {
  for (const program of programs) {
    const { stdout: found } = await run("which", [program]);
    const path = found.trim();
    await copyFile(path, join(root, "bin", basename(path)));
    const { stdout: linked } = await run("ldd", [path]);
    for (const [, library = ""] of linked.matchAll(/(?:=> |^\s+)(\/\S+) \(0x/gm)) {
      await mkdir(join(root, dirname(library)), { recursive: true });
      await copyFile(library, join(root, library));
    }
  }
  await symlink("bash", join(root, "bin", "sh"));
}
