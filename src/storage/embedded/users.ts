/**
 * Which processes use one embedded database, so that the last one to leave stops it. Each has a
 * file named by its pid and the time it started; a file of a process that is gone counts for nothing.
 */

import { chownSync, existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Random } from "../../base/random.ts";
import { isMarkAlive, ownMark } from "./postmaster.ts";

export interface Use {
  /** Ends the use; true if it was the last one. */
  end(): boolean;
}

export function beginUse(home: string, random: Random): Use {
  const directory = join(home, "users");
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  if (process.getuid?.() === 0) giveTo(directory, statSync(home));
  removeDead(directory);
  const chance = Buffer.from(random.bytes(4)).toString("hex");
  const file = join(directory, `${ownMark()}-${chance}`);
  writeFileSync(file, "");
  return {
    end() {
      rmSync(file, { force: true });
      removeDead(directory);
      return readdirSync(directory).length === 0;
    },
  };
}

/** A cluster that root started may later be started by its owner, who must be able to write here. */
function giveTo(path: string, owner: { uid: number; gid: number }): void {
  chownSync(path, owner.uid, owner.gid);
}

function removeDead(directory: string): void {
  for (const name of readdirSync(directory)) {
    if (!isMarkAlive(name)) rmSync(join(directory, name), { force: true });
  }
}

/** Takes all uses of this process away, as when it had been killed; true if they were the last ones. */
export function endOwnUses(home: string): boolean {
  const directory = join(home, "users");
  if (!existsSync(directory)) return true;
  for (const name of readdirSync(directory)) {
    if (name.startsWith(`${ownMark()}-`) || !isMarkAlive(name))
      rmSync(join(directory, name), { force: true });
  }
  return readdirSync(directory).length === 0;
}

/** Whether every process that used the database was killed: one that stopped takes its file along. */
export function isAbandoned(home: string): boolean {
  const directory = join(home, "users");
  const names = existsSync(directory) ? readdirSync(directory) : [];
  return names.length > 0 && !names.some(isMarkAlive);
}
