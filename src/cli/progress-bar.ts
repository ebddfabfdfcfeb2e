/** How far something with a known length is, on a terminal; nothing elsewhere. */

import type { CommandContext } from "./command.ts";

const WIDTH = 30;
const ERASE_LINE = "\r\u001b[2K";
/** Drawing more often than this is only work for the terminal. */
const DRAW_EVERY_MS = 50;

export class ProgressBar {
  readonly #context: CommandContext;
  readonly #total: number;
  readonly #isOn: boolean;
  #isShown = false;
  #drawnAtMs = -Infinity;

  constructor(options: { context: CommandContext; total: number; isOn: boolean }) {
    this.#context = options.context;
    this.#total = options.total;
    this.#isOn = options.isOn && options.context.environment.isTty.stderr;
  }

  show(done: number, text: string): void {
    const { stderr, colors, environment } = this.#context;
    const nowMs = environment.clock.monotonicMs();
    if (!this.#isOn || (this.#isShown && nowMs - this.#drawnAtMs < DRAW_EVERY_MS)) return;
    const filled = Math.round((WIDTH * done) / Math.max(1, this.#total));
    const bar = colors.stderr.cyan("█".repeat(filled)) + colors.stderr.dim("░".repeat(WIDTH - filled));
    stderr.writeNow(`${ERASE_LINE}${bar} ${done}/${this.#total} ${text}`);
    this.#isShown = true;
    this.#drawnAtMs = nowMs;
  }

  hide(): void {
    if (this.#isShown) this.#context.stderr.writeNow(ERASE_LINE);
    this.#isShown = false;
  }
}
