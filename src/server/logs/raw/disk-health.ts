/** Says, once for each change, whether the disk takes logs. */

import type { Clock } from "../../../base/clock.ts";
import type { AppError } from "../../../base/errors.ts";
import type { Logger } from "../../../base/log.ts";

/** A disk with little room takes some and refuses some: it is well when it has refused none for so long. */
const WELL_AFTER_MS = 5_000;

export class DiskHealth {
  readonly #clock: Clock;
  readonly #log: Logger;
  #sinceMs: number | null = null;
  #lastMs = 0;

  constructor(options: { clock: Clock; log: Logger }) {
    this.#clock = options.clock;
    this.#log = options.log;
  }

  refused(error: AppError): void {
    this.#lastMs = this.#clock.monotonicMs();
    if (this.#sinceMs !== null) return;
    this.#sinceMs = this.#lastMs;
    this.#log.error({ err: error }, "the disk refuses logs, workers keep theirs");
  }

  took(): void {
    if (this.#sinceMs === null) return;
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - this.#lastMs < WELL_AFTER_MS) return;
    this.#log.info({ refusedForMs: this.#lastMs - this.#sinceMs }, "the disk takes logs again");
    this.#sinceMs = null;
  }
}
