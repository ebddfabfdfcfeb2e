/**
 * Directories that are made beside their place and renamed when they are complete. Their names say
 * which process makes them, so that what a killed one left behind can be told and removed.
 */

import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { isMarkAlive } from "./postmaster.ts";

/** Stands between the final name and the mark of the process. */
export const PARTIAL = ".new-";

export function removeAbandoned(home: string): void {
  for (const name of readdirSync(home)) {
    const [, mark] = name.split(PARTIAL);
    if (mark !== undefined && !isMarkAlive(mark)) rmSync(join(home, name), { recursive: true, force: true });
  }
}
