/**
 * The logs of the server: what is durable survives, what was only accepted may be gone after a
 * crash. The disk can be full or slow for a while.
 */

import { AppError } from "../src/base/errors.ts";
import type { AppendResult } from "../src/server/logs/log-store.ts";
import type { ConnectionLogs } from "../src/server/workers/worker-connection.ts";
import type { SealedLog, Store } from "../src/storage/store.ts";
import type { Checker } from "./checker.ts";
import type { SimProcess } from "./sim-process.ts";
import type { SimRandom } from "./sim-random.ts";

export interface DiskConditions {
  syncMs: number;
}

/** The disk of the server's machine. */
export class ServerDisk {
  readonly random: SimRandom;
  readonly checker: Checker;
  readonly conditions: DiskConditions;
  isFull = false;
  isSlow = false;
  readonly #durable = new Map<string, number>();

  constructor(deps: { random: SimRandom; checker: Checker; conditions: DiskConditions }) {
    this.random = deps.random;
    this.checker = deps.checker;
    this.conditions = deps.conditions;
  }

  durable(attemptId: string): number {
    return this.#durable.get(attemptId) ?? 0;
  }

  harden(attemptId: string, length: number): void {
    if (length <= this.durable(attemptId)) return;
    this.#durable.set(attemptId, length);
  }

  get syncMs(): number {
    return (
      this.conditions.syncMs * (this.isSlow ? this.random.between(20, 400) : this.random.between(0.5, 1.5))
    );
  }
}

interface OpenLog {
  accepted: number;
  isEnded: boolean;
}

/** What one server process knows of its logs. */
export class SimLogs implements ConnectionLogs {
  readonly #disk: ServerDisk;
  readonly #process: SimProcess;
  readonly #store: Pick<Store, "setSealedLog">;
  readonly #open = new Map<string, OpenLog>();

  constructor(deps: { disk: ServerDisk; process: SimProcess; store: Pick<Store, "setSealedLog"> }) {
    this.#disk = deps.disk;
    this.#process = deps.process;
    this.#store = deps.store;
    // A killed process leaves its pages to the kernel: some of what was accepted gets to the disk.
    deps.process.onDeath(() => {
      for (const [attemptId, log] of this.#open) {
        const durable = deps.disk.durable(attemptId);
        const kept = Math.floor(deps.disk.random.between(durable, log.accepted + 1));
        deps.disk.harden(attemptId, Math.min(kept, log.accepted));
      }
    });
  }

  async append(attemptId: string, offset: number, data: Uint8Array): Promise<AppendResult> {
    const log = this.#log(attemptId);
    const { checker } = this.#disk;
    if (log.isEnded && offset + data.byteLength > log.accepted) {
      return { ok: false, refusal: "ended", length: this.#disk.durable(attemptId) };
    }
    if (offset > log.accepted) return { ok: false, refusal: "gap", length: this.#disk.durable(attemptId) };
    checker.logArrived(attemptId, offset, data);
    const end = offset + data.byteLength;
    log.accepted = Math.max(log.accepted, end);
    await this.#sleep(this.#disk.syncMs);
    if (this.#disk.isFull && this.#disk.durable(attemptId) < end) {
      log.accepted = this.#disk.durable(attemptId);
      throw new AppError("resource_exhausted", `append to log of attempt ${attemptId}: the disk is full`);
    }
    // After a failed write, what was accepted behind it is gone as well.
    if (end > log.accepted) return { ok: false, refusal: "gap", length: this.#disk.durable(attemptId) };
    this.#disk.harden(attemptId, end);
    return { ok: true, length: this.#disk.durable(attemptId) };
  }

  async length(attemptId: string): Promise<number> {
    await this.#sleep(this.#disk.syncMs / 10);
    return this.#disk.durable(attemptId);
  }

  async finish(attemptId: string): Promise<SealedLog> {
    this.#log(attemptId).isEnded = true;
    await this.#sleep(this.#disk.syncMs);
    if (this.#disk.isFull) {
      throw new AppError("resource_exhausted", `seal log of attempt ${attemptId}: the disk is full`);
    }
    const sealed = { attemptId, logBytes: this.#disk.durable(attemptId), blobKey: attemptId, digest: "" };
    await this.#store.setSealedLog(sealed);
    return sealed;
  }

  wake(): void {
    // Nobody reads logs here.
  }

  #log(attemptId: string): OpenLog {
    const known = this.#open.get(attemptId);
    if (known) return known;
    const log = { accepted: this.#disk.durable(attemptId), isEnded: false };
    this.#open.set(attemptId, log);
    return log;
  }

  #sleep(delayMs: number): Promise<void> {
    return new Promise((resolve) => this.#process.deliverAfter(delayMs, resolve));
  }
}
