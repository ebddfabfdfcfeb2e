/** The parent's end of a child process that runs seeds. */

import { fork, type ChildProcess } from "node:child_process";
import { join } from "node:path";
import type { BatchOrder, BatchResult } from "./seed-batch.ts";

export class BatchProcess {
  readonly #child: ChildProcess;

  /** `directory` holds the compiled `sim` and `src`. */
  constructor(directory: string) {
    this.#child = fork(join(directory, "sim", "seed-batch.js"), [], { execArgv: ["--enable-source-maps"] });
  }

  /** Rejects if the child dies, for example of an endless loop's memory, or takes longer than `timeoutMs`. */
  run(order: BatchOrder, timeoutMs: number): Promise<BatchResult> {
    const child = this.#child;
    return new Promise((resolve, reject) => {
      const done = (): void => {
        signal.removeEventListener("abort", onTimeout);
        child.off("message", onMessage);
        child.off("exit", onExit);
      };
      const onMessage = (result: BatchResult): void => {
        done();
        resolve(result);
      };
      const onExit = (code: number | null): void => {
        done();
        reject(new Error(`seeds from ${order.from}: the process ended with ${code}`));
      };
      const onTimeout = (): void => {
        done();
        child.kill("SIGKILL");
        reject(new Error(`seeds from ${order.from}: not done after ${timeoutMs} ms`));
      };
      const signal = AbortSignal.timeout(timeoutMs);
      signal.addEventListener("abort", onTimeout);
      child.on("message", onMessage);
      child.on("exit", onExit);
      child.send(order);
    });
  }

  close(): void {
    this.#child.kill();
  }
}
