/** Where this process stands in the cgroup hierarchies that are mounted here. */

import { readFileSync } from "node:fs";
import { join } from "node:path";

export interface CgroupMounts {
  /** The directory of our own cgroup by v1 controller: `freezer`, `memory`, …. */
  v1: Map<string, string>;
  /** The directory of our own cgroup in the v2 hierarchy. */
  v2: string | null;
}

export function readCgroupMounts(): CgroupMounts {
  try {
    return parseCgroupMounts(
      readFileSync("/proc/self/cgroup", "utf8"),
      readFileSync("/proc/self/mountinfo", "utf8"),
    );
  } catch {
    // No Linux, or /proc is hidden: there are no cgroups for us.
    return { v1: new Map(), v2: null };
  }
}

/**
 * @param cgroupText the text of /proc/self/cgroup: `4:memory:/path` or `0::/path` (cgroups(7))
 * @param mountText the text of /proc/self/mountinfo (proc_pid_mountinfo(5))
 */
function parseCgroupMounts(cgroupText: string, mountText: string): CgroupMounts {
  const mounts = mountText.split("\n").flatMap(parseMount);
  const result: CgroupMounts = { v1: new Map(), v2: null };
  for (const line of cgroupText.split("\n")) {
    const [, controllers, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (controllers === undefined || path === undefined) continue;
    if (controllers === "") {
      const mount = mounts.find(({ type }) => type === "cgroup2");
      if (mount) result.v2 = directoryIn(mount, path);
      continue;
    }
    const names = controllers.split(",");
    const mount = mounts.find(
      ({ type, options }) => type === "cgroup" && names.every((name) => options.includes(name)),
    );
    if (mount) for (const name of names) result.v1.set(name, directoryIn(mount, path));
  }
  return result;
}

interface Mount {
  root: string;
  point: string;
  type: string;
  options: string[];
}

function parseMount(line: string): Mount[] {
  const [before, after] = line.split(" - ");
  const [, , , root, point] = before?.split(" ") ?? [];
  const [type, , options] = after?.split(" ") ?? [];
  if (root === undefined || point === undefined || type === undefined) return [];
  return [{ root, point, type, options: options?.split(",") ?? [] }];
}

/** In a container the mount shows only a part of the hierarchy, from `root` on. */
function directoryIn(mount: Mount, path: string): string {
  if (mount.root === "/") return join(mount.point, path);
  return path.startsWith(mount.root) ? join(mount.point, path.slice(mount.root.length)) : mount.point;
}
