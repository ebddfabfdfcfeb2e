/**
 * Going on over an absence of the server: a restart of it, or of its database, should not end a
 * `hodei run` of an hour.
 *
 * A server that never was there is not waited for: its address is more likely wrong.
 */

import { Backoff } from "../base/backoff.ts";
import { AppError } from "../base/errors.ts";
import { formatDurationMs } from "../base/quantities.ts";
import { sharedAbortController } from "../base/shared-abort.ts";
import { explain } from "./call.ts";
import type { CommandContext } from "./command.ts";
import type { Connection } from "./connection.ts";
import { isNoServerThere } from "./no-server-there.ts";
import type { Spinner } from "./spinner.ts";

export interface FollowContext {
  connection: Connection;
  context: CommandContext;
  /** Tells people that the connection is lost, and that it is back. */
  notice: LossNotice;
  signal: AbortSignal;
}

const RECONNECT_BACKOFF = { baseMs: 100, maxMs: 5_000 };

/** For a command whose calls go on over an absence of the server. */
export function followContext(
  connection: Connection,
  context: CommandContext,
  options: { isQuiet?: boolean; spinner?: Pick<Spinner, "hide">; signal?: AbortSignal } = {},
): FollowContext {
  return {
    connection,
    context,
    notice: new LossNotice(context, options),
    signal: options.signal ?? sharedAbortController().signal,
  };
}

/**
 * A call that is made again until the server has answered it. Only for what may be done twice.
 *
 * @throws AppError when the server refuses, or is away for too long.
 */
export async function callPersistently<T>(
  attempted: string,
  follow: FollowContext,
  run: () => Promise<T>,
): Promise<T> {
  const reconnect = new Reconnect(follow, { attempted, hint: "" });
  for (;;) {
    try {
      const answer = await run();
      reconnect.succeeded();
      return answer;
    } catch (error) {
      if (follow.signal.aborted) throw explain(error, attempted);
      await reconnect.wait(error);
    }
  }
}

/** One line when the connection of a command is lost and one when it is back, whatever its streams do. */
export class LossNotice {
  readonly #context: CommandContext;
  readonly #isQuiet: boolean;
  readonly #spinner: Pick<Spinner, "hide"> | null;
  readonly #lost = new Set<unknown>();

  constructor(context: CommandContext, options: { isQuiet?: boolean; spinner?: Pick<Spinner, "hide"> }) {
    this.#context = context;
    this.#isQuiet = options.isQuiet ?? false;
    this.#spinner = options.spinner ?? null;
  }

  get isLost(): boolean {
    return this.#lost.size > 0;
  }

  lost(stream: unknown): void {
    const isNews = this.#lost.size === 0;
    this.#lost.add(stream);
    if (isNews) this.#say("connection lost, trying again…");
  }

  back(stream: unknown): void {
    if (this.#lost.delete(stream) && this.#lost.size === 0) this.#say("connected again");
  }

  #say(text: string): void {
    if (this.#isQuiet) return;
    const { stderr, colors } = this.#context;
    this.#spinner?.hide();
    stderr.writeNow(`${colors.stderr.dim(`hodei: ${text}`)}\n`);
  }
}

/** The waits of one stream or call between its tries. */
export class Reconnect {
  readonly #follow: FollowContext;
  readonly #attempted: string;
  readonly #hint: string;
  readonly #backoff: Backoff;
  #failures = 0;
  #goneSinceMs: number | null = null;

  /** The hint is for whoever is left alone when the server stays away. */
  constructor(follow: FollowContext, options: { attempted: string; hint: string }) {
    this.#follow = follow;
    this.#attempted = options.attempted;
    this.#hint = options.hint;
    this.#backoff = new Backoff(RECONNECT_BACKOFF, follow.context.environment.random);
  }

  succeeded(): void {
    this.#failures = 0;
    this.#goneSinceMs = null;
    this.#backoff.reset();
    this.#follow.notice.back(this);
  }

  /**
   * After a failure, or with null after a stream that ended early: the server is about to stop.
   *
   * @throws AppError if it makes no sense to try again.
   */
  async wait(error: unknown): Promise<void> {
    const { signal, context, connection, notice } = this.#follow;
    if (signal.aborted) return;
    const { clock } = context.environment;
    const failure =
      error === null
        ? new AppError("unavailable", `${this.#attempted}: the server ended the stream`)
        : explain(error, this.#attempted);
    if (failure.code !== "unavailable" || connection.isEmbedded || connection.closed.aborted) throw failure;
    if (!connection.hasAnswered() && isNoServerThere(failure)) throw failure;
    this.#goneSinceMs ??= clock.monotonicMs();
    if (clock.monotonicMs() - this.#goneSinceMs >= connection.reconnectTimeoutMs)
      throw this.#givenUp(failure);
    this.#failures += 1;
    // Most streams that break can be opened again at once, and nobody needs to know.
    if (this.#failures > 1) notice.lost(this);
    await clock.sleep(this.#backoff.nextDelayMs(), AbortSignal.any([signal, connection.closed]));
    if (connection.closed.aborted) throw failure;
    if (!signal.aborted) await connection.relocate();
  }

  #givenUp(failure: AppError): AppError {
    const forText = formatDurationMs(this.#follow.connection.reconnectTimeoutMs);
    const hint = this.#hint === "" ? {} : { details: { hint: this.#hint } };
    return new AppError("unavailable", `${failure.message} (tried for ${forText})`, {
      cause: failure,
      ...hint,
    });
  }
}
