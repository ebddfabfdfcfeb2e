/**
 * Makes sure that one server at a time owns a data directory.
 *
 * The lock is a file that names its owner. It is put in place by a hard link, which fails if it is
 * there; one whose owner is gone (a server that was killed) is taken over.
 */

import { link, mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { AppError, errorMessage, systemErrorCode } from "../base/errors.ts";
import { identifyProcess, isProcessAlive, type ProcessIdentity } from "../base/process-identity.ts";
import type { Service } from "../base/service.ts";

/** Two servers that find a dead owner at the same moment settle it within a few tries. */
const MAX_TRIES = 10;

/** What an owner is there for: to stay, or for one command, which may only read. */
export type LockHolder = "server" | "command" | "reading_command";

export interface DirectoryOwner extends ProcessIdentity {
  holder: LockHolder;
}

/** @throws AppError `already_exists` with `details.owner` if another server owns the directory. */
export async function lockDataDirectory(directory: string, holder: LockHolder): Promise<Service> {
  await makeDirectory(directory);
  const path = join(directory, "server.lock");
  const mine = join(directory, `server.lock.${process.pid}`);
  const text = JSON.stringify({ ...identifyProcess(process.pid), holder } satisfies DirectoryOwner);
  await writeOwn(directory, mine, text);
  try {
    for (let tries = 0; tries < MAX_TRIES; tries += 1) {
      if (await tryLink(mine, path)) return { stop: () => unlock(path, text) };
      const owner = await readOwner(path);
      if (owner && isProcessAlive(owner)) {
        throw new AppError(
          "already_exists",
          `lock data directory ${directory}: the server with process id ${owner.pid} uses it`,
          { details: { owner } },
        );
      }
      await removeDead(path, owner);
    }
    throw new AppError("unavailable", `lock data directory ${directory}: others take it all the time`);
  } finally {
    await rm(mine, { force: true });
  }
}

async function makeDirectory(directory: string): Promise<void> {
  try {
    // Others may pass through: as root, PostgreSQL runs as another user and lives below.
    await mkdir(directory, { recursive: true, mode: 0o711 });
  } catch (error) {
    throw new AppError(
      "failed_precondition",
      `make data directory ${directory}: ${errorMessage(error)}; choose another one with --data-dir`,
      { cause: error },
    );
  }
}

async function writeOwn(directory: string, path: string, text: string): Promise<void> {
  try {
    await writeFile(path, text, { mode: 0o600 });
  } catch (error) {
    throw new AppError(
      "failed_precondition",
      `lock data directory ${directory}: ${errorMessage(error)}; choose another one with --data-dir`,
      { cause: error },
    );
  }
}

/**
 * Takes the lock of a dead owner away. Another server may have put its own in the same place since it
 * was read, so what was taken is looked at again and put back if somebody lives who owns it.
 */
async function removeDead(path: string, dead: ProcessIdentity | null): Promise<void> {
  const aside = `${path}.dead.${process.pid}`;
  try {
    await rename(path, aside);
  } catch (error) {
    // Another server was faster.
    if (systemErrorCode(error) === "ENOENT") return;
    throw error;
  }
  const taken = await readOwner(aside);
  const isOther = taken !== null && (taken.pid !== dead?.pid || taken.startTicks !== dead.startTicks);
  if (isOther && isProcessAlive(taken)) await tryLink(aside, path);
  await rm(aside, { force: true });
}

async function tryLink(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if (systemErrorCode(error) === "EEXIST") return false;
    throw error;
  }
}

async function readOwner(path: string): Promise<DirectoryOwner | null> {
  try {
    return JSON.parse(await readFile(path, "utf8")) as DirectoryOwner;
  } catch {
    // Just released, or not written by us: nobody to wait for.
    return null;
  }
}

async function unlock(path: string, text: string): Promise<void> {
  const now = await readFile(path, "utf8").catch(() => null);
  if (now === text) await rm(path, { force: true });
}
