/** What the disk of an engine allows: whether it can limit a container, and whether it has room left. */

import { statfs } from "node:fs/promises";
import { AppError, errorMessage } from "../../base/errors.ts";
import { formatBytes } from "../../base/quantities.ts";

/** The part of what an engine says of itself that is about its disk. */
export interface EngineStorage {
  /** The storage driver. */
  Driver?: string;
  /** What this driver says of itself, as names and values. */
  DriverStatus?: readonly (readonly [string, string])[] | null;
  DockerRootDir?: string;
}

/** An engine whose images are kept by containerd takes a limit, and does not hold it. */
const CONTAINERD = "io.containerd.snapshotter";
const WHICH_CAN = "overlay2 on xfs that is mounted with pquota, btrfs and zfs can";

/** Less than both is little: a twentieth of a large disk is much room, of a small one it is not. */
const LEAST_FREE_FRACTION = 0.05;
const LEAST_FREE_BYTES = 10 * 2 ** 30;
const HOW_TO_MAKE_ROOM = "`docker system prune` there removes what no container uses";

/**
 * Why this engine cannot limit the disk of a container; null if it can, as far as it says. Whether an
 * xfs is mounted with quotas shows only when a container is made: the engine refuses it.
 */
export function diskLimitProblem({ Driver: driver = "unknown", DriverStatus }: EngineStorage): string | null {
  const status = new Map(DriverStatus ?? []);
  const below = status.get("Backing Filesystem") ?? "an unknown file system";
  const isContainerd = status.get("driver-type")?.startsWith(CONTAINERD) === true;
  if (!isContainerd && (driver === "btrfs" || driver === "zfs")) return null;
  if (!isContainerd && driver === "overlay2" && below === "xfs") return null;
  const what = isContainerd
    ? `${driver} of containerd`
    : driver === "overlay2"
      ? `${driver} on ${below}`
      : driver;
  return `the engine cannot limit the disk of a container with its storage driver ${what}; ${WHICH_CAN}, else take the limit away (limitDisk, --docker-disk)`;
}

/** @throws AppError `failed_precondition` if an image has volumes, which no limit of a container covers. */
export function checkVolumes(volumes: readonly string[], mounts: readonly string[]): void {
  const mounted = new Set(mounts.map((mount) => mount.split(":")[1]));
  const open = volumes.filter((volume) => !mounted.has(volume));
  if (open.length === 0) return;
  throw new AppError(
    "failed_precondition",
    `limit the disk of a container: its image keeps ${open.join(", ")} in volumes, which no limit covers; take an image without VOLUME, mount a directory there, or take the limit away (limitDisk, --docker-disk)`,
  );
}

/** Says how much room is left if that is little; null if it is enough, or nobody here can see. */
export async function fullDiskProblem(
  { DockerRootDir: root }: EngineStorage,
  host: string,
): Promise<string | null> {
  if (!host.startsWith("unix:") || root === undefined) return null;
  // An engine in a virtual machine has its socket here, and its disk elsewhere.
  const disk = await statfs(root).catch(() => null);
  return disk && lowDiskProblem(root, { free: disk.bavail * disk.bsize, all: disk.blocks * disk.bsize });
}

export function lowDiskProblem(root: string, bytes: { free: number; all: number }): string | null {
  if (bytes.free >= LEAST_FREE_BYTES || bytes.free >= LEAST_FREE_FRACTION * bytes.all) return null;
  const left = formatBytes(Math.floor(bytes.free / 2 ** 20) * 2 ** 20);
  return `${left} are left on the engine's disk (${root}); ${HOW_TO_MAKE_ROOM}`;
}

/**
 * A failure of the engine, with the next step if it was for want of room. Of the engine's own disk that
 * may pass; a limit that is too small for what is in the container before its job stays too small.
 */
export function explainFailure(
  error: unknown,
  diskLimitBytes: number | null,
): { code: AppError["code"]; message: string } {
  const message = errorMessage(error);
  if (diskLimitBytes !== null && /quota exceeded/i.test(message)) {
    const limit = `its limit is ${formatBytes(diskLimitBytes)}, which the image counts against, too`;
    return {
      code: "failed_precondition",
      message: `${message}: ${limit}; give resources.disk (--docker-disk) more`,
    };
  }
  if (/no space left on device|quota exceeded/i.test(message)) {
    return {
      code: "resource_exhausted",
      message: `${message}: the engine's disk is full; ${HOW_TO_MAKE_ROOM}`,
    };
  }
  return { code: error instanceof AppError ? error.code : "internal", message };
}
