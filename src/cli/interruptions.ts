/**
 * What Ctrl-C means while a job runs.
 *
 * On a terminal it asks: detach, cancel or keep watching; a second one cancels, a third one leaves
 * at once. Without a terminal the first signal cancels, so that a stopped CI job leaves nothing
 * behind, and the second one leaves. A job of the server in this process cannot be detached.
 */

import { explain } from "./call.ts";
import { EXIT } from "./exit-codes.ts";
import { callPersistently, type FollowContext } from "./reconnect.ts";
import type { Spinner } from "./spinner.ts";

export interface InterruptionOptions {
  jobId: string;
  follow: FollowContext;
  spinner: Spinner;
}

export interface Left {
  type: "left";
  exitCode: number;
}

const CTRL_C = "\u0003";

export class Interruptions {
  readonly #options: InterruptionOptions;
  readonly #stopListening: () => void;
  #leave: (left: Left) => void = () => {};
  #phase: "watching" | "asking" | "cancelling" = "watching";
  #stopAsking: () => void = () => {};
  #isStopped = false;
  /** Resolves if the user wants to be away before the job has ended. */
  readonly left: Promise<Left>;

  constructor(options: InterruptionOptions) {
    this.#options = options;
    this.left = new Promise((resolve) => {
      this.#leave = resolve;
    });
    const { context } = options.follow;
    context.takeInterruptions();
    this.#stopListening = context.environment.onInterruption((signal) => this.#onSignal(signal));
  }

  stop(): void {
    this.#isStopped = true;
    this.#stopAsking();
    this.#stopListening();
  }

  #onSignal(signal: "SIGINT" | "SIGTERM"): void {
    const { isTty } = this.#options.follow.context.environment;
    if (this.#phase === "cancelling") {
      this.#say("left before the job has ended");
      this.#leave({ type: "left", exitCode: EXIT.cancelled });
    } else if (this.#phase === "watching" && signal === "SIGINT" && isTty.stdin && isTty.stderr) {
      this.#ask();
    } else {
      this.#cancel(signal);
    }
  }

  #ask(): void {
    const { follow, spinner } = this.#options;
    const { connection, context } = follow;
    const { stdin } = context.environment;
    this.#phase = "asking";
    spinner.hide();
    const choices = connection.isEmbedded
      ? "cancel (c), or keep watching (k)"
      : "detach (d), cancel (c), or keep watching (k)";
    context.stderr.writeNow(`\n${choices}? `);
    const onData = (data: Buffer | string): void => {
      for (const key of data.toString().toLowerCase()) if (this.#phase === "asking") this.#answer(key);
    };
    stdin.setRawMode?.(true);
    stdin.on("data", onData);
    stdin.resume();
    this.#stopAsking = () => {
      this.#stopAsking = () => {};
      stdin.off("data", onData);
      stdin.setRawMode?.(false);
      stdin.pause();
    };
  }

  #answer(key: string): void {
    const { follow, jobId } = this.#options;
    if (key === "c" || key === CTRL_C) {
      this.#cancel("SIGINT");
    } else if (key === "d" && !follow.connection.isEmbedded) {
      this.#stopAsking();
      this.#say(`\ndetached; go on with: hodei logs --follow ${jobId}`);
      this.#leave({ type: "left", exitCode: EXIT.ok });
    } else if (key === "k") {
      this.#stopAsking();
      this.#phase = "watching";
      this.#say("");
    }
  }

  #cancel(signal: string): void {
    const { follow, jobId } = this.#options;
    this.#stopAsking();
    this.#phase = "cancelling";
    this.#say("\ncancelling; once more to leave at once");
    // The end of the job is seen by the watch. A refusal means that it has ended already.
    const cancel = () => follow.connection.jobs.cancelJob({ jobId, reason: `${signal} of hodei run` });
    callPersistently(`cancel job ${jobId}`, follow, cancel).catch((error: unknown) => {
      // After the end nobody wants to know, and the connection is closed under this call.
      if (this.#isStopped) return;
      const failure = explain(error, `cancel job ${jobId}`);
      if (failure.code !== "failed_precondition") this.#say(`hodei: ${failure.message}`);
    });
  }

  #say(text: string): void {
    this.#options.follow.context.stderr.writeNow(`${text}\n`);
  }
}
