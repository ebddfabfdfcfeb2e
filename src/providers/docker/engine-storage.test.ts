import assert from "node:assert/strict";
import { tmpdir } from "node:os";
import { test } from "node:test";
import { AppError } from "../../base/errors.ts";
import {
  checkVolumes,
  diskLimitProblem,
  explainFailure,
  fullDiskProblem,
  lowDiskProblem,
  type EngineStorage,
} from "./engine-storage.ts";

test("knows the storage that can limit a container", () => {
  const overlay: EngineStorage["DriverStatus"] = [["Backing Filesystem", "xfs"]];
  for (const storage of [
    { Driver: "overlay2", DriverStatus: overlay },
    { Driver: "btrfs", DriverStatus: [["Build Version", "Btrfs v6.2"]] },
    { Driver: "zfs", DriverStatus: null },
  ] satisfies EngineStorage[]) {
    assert.equal(diskLimitProblem(storage), null);
  }
});

test("refuses storage that cannot, or that would take a limit and not hold it", () => {
  const snapshotter = ["driver-type", "io.containerd.snapshotter.v1"] as const;
  for (const [storage, name] of [
    [{ Driver: "overlay2", DriverStatus: [["Backing Filesystem", "extfs"]] }, "overlay2 on extfs"],
    [{ Driver: "overlay2" }, "overlay2 on an unknown file system"],
    [{ Driver: "vfs", DriverStatus: [] }, "vfs"],
    [{ Driver: "overlayfs", DriverStatus: [snapshotter] }, "overlayfs of containerd"],
    [{ Driver: "btrfs", DriverStatus: [snapshotter] }, "btrfs of containerd"],
    [{}, "unknown"],
  ] satisfies [EngineStorage, string][]) {
    const problem = diskLimitProblem(storage) ?? "";
    assert.ok(problem.includes(`with its storage driver ${name}; overlay2 on xfs`), problem);
  }
});

test("refuses an image with volumes, unless something is mounted in their place", () => {
  checkVolumes([], []);
  checkVolumes(["/data"], ["/srv/data:/data:ro"]);
  assert.throws(() => checkVolumes(["/data", "/cache"], ["/srv/data:/data"]), {
    code: "failed_precondition",
    message: /its image keeps \/cache in volumes, which no limit covers/,
  });
});

test("finds a disk full of which little is left, in parts and in bytes", async () => {
  const gib = 2 ** 30;
  assert.equal(lowDiskProblem("/d", { free: 4 * gib, all: 50 * gib }), null);
  assert.equal(lowDiskProblem("/d", { free: 20 * gib, all: 5000 * gib }), null);
  assert.match(
    lowDiskProblem("/d", { free: 2 * gib + 5, all: 50 * gib }) ?? "",
    /^2Gi are left on the engine's disk \(\/d\); `docker system prune`/,
  );
  assert.match(lowDiskProblem("/d", { free: 0, all: 50 * gib }) ?? "", /^0 are left/);
});

test("looks at the disk of an engine only on this machine, and only where it can", async () => {
  assert.equal(await fullDiskProblem({ DockerRootDir: "/proc" }, "unix:///e.sock"), null);
  assert.equal(await fullDiskProblem({ DockerRootDir: "/nowhere" }, "unix:///e.sock"), null);
  assert.equal(await fullDiskProblem({ DockerRootDir: tmpdir() }, "tcp://far:2375"), null);
  assert.equal(await fullDiskProblem({}, "unix:///e.sock"), null);
});

test("tells want of room on the engine's disk, which may pass, from a limit that is too small", () => {
  const full = new AppError("unavailable", "pull image x: write /a: no space left on device");
  const explained = explainFailure(full, 2 ** 26);
  assert.equal(explained.code, "resource_exhausted");
  assert.match(
    explained.message,
    /no space left on device: the engine's disk is full; `docker system prune`/,
  );
  const quota = new AppError("unavailable", "create the container: disk quota exceeded");
  assert.equal(explainFailure(quota, null).code, "resource_exhausted");
  assert.deepEqual(explainFailure(quota, 2 ** 26), {
    code: "failed_precondition",
    message:
      "create the container: disk quota exceeded: its limit is 64Mi, which the image counts against, too; give resources.disk (--docker-disk) more",
  });
  const other = { code: "not_found", message: "no such image" } as const;
  assert.deepEqual(explainFailure(new AppError(other.code, other.message), null), other);
  assert.deepEqual(explainFailure(new Error("?"), null), { code: "internal", message: "?" });
});
