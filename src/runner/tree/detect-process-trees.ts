/** Picks how process trees are kept here, by trying what really works. */

import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import { AppError, errorMessage } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { readCgroupMounts, type CgroupMounts } from "./cgroup-mounts.ts";
import { CgroupV1Trees, V1_CONTROLLERS } from "./cgroup-v1.ts";
import { CgroupV2Trees, measuresMemoryInV2 } from "./cgroup-v2.ts";
import { GroupTrees } from "./process-groups.ts";
import { SweptTrees } from "./process-sweep.ts";
import type { CgroupMode, ProcessTrees } from "./process-tree.ts";

export interface TreeOptions {
  /** Of the cgroup; equal for every runner of the same directory, so that strays are found. */
  name: string;
  clock: Clock;
  log: Logger;
}

/**
 * In the order of what they give: version 2 that measures, version 1, version 2 that only finds and
 * kills, none. A mode that is asked for by name and does not work is an error.
 *
 * @throws AppError `failed_precondition`
 */
export function detectProcessTrees(wanted: CgroupMode | "auto", options: TreeOptions): ProcessTrees {
  const mounts = readCgroupMounts();
  if (wanted !== "auto") {
    try {
      return open(wanted, mounts, options);
    } catch (cause) {
      throw new AppError("failed_precondition", `use cgroups ${wanted}: ${errorMessage(cause)}`, { cause });
    }
  }
  for (const mode of preferredModes(mounts)) {
    try {
      return open(mode, mounts, options);
    } catch (error) {
      options.log.debug({ err: error, mode }, "cgroup mode does not work here");
    }
  }
  return open("none", mounts, options);
}

/** Where a runner of this name may make cgroups, whatever its mode. */
export function possibleCgroups(name: string): string[] {
  const { v1, v2 } = readCgroupMounts();
  const parents = [...V1_CONTROLLERS.map((controller) => v1.get(controller)), v2];
  return parents.flatMap((parent) => (parent ? [join(parent, name)] : []));
}

/** The modes to try, best first. */
export function preferredModes(mounts: Pick<CgroupMounts, "v2">): CgroupMode[] {
  return mounts.v2 !== null && measuresMemoryInV2(mounts.v2) ? ["v2", "v1"] : ["v1", "v2"];
}

function open(mode: CgroupMode, mounts: CgroupMounts, options: TreeOptions): ProcessTrees {
  const { name, clock } = options;
  switch (mode) {
    case "v1":
      return new CgroupV1Trees({ name, clock, mounts: mounts.v1 });
    case "v2":
      if (mounts.v2 === null) throw new Error("no cgroup2 file system is mounted");
      return new CgroupV2Trees({ name, clock, path: mounts.v2 });
    case "none":
      return existsSync("/proc/self/stat") ? new SweptTrees({ clock }) : new GroupTrees();
  }
}
