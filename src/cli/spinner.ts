/**
 * Says what is being waited for: on a terminal in a line that moves, elsewhere, as in the log of a CI
 * job, in a plain line once the wait is a long one.
 */

import type { Clock } from "../base/clock.ts";
import type { Colors, CommandContext } from "./command.ts";
import { formatDuration } from "./job-text.ts";
import type { Output } from "./output.ts";
import { printable } from "./table.ts";

const FRAMES = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
const FRAME_MS = 100;
/** Most waits are over before: nothing should flicker then. */
const SHOW_AFTER_MS = 300;
/** Without a terminal, a wait that is shorter is not worth a line. */
const SAY_AFTER_MS = 10_000;
/** A reason that changes all the time, such as the progress of a download, must not fill a log. */
const SAY_AGAIN_MS = 60_000;
const ERASE_LINE = "\r\u001b[2K";

/** On standard error. */
export function createSpinner(context: CommandContext, isWanted: boolean): Spinner {
  const { environment, stderr, colors } = context;
  return new Spinner({
    output: stderr,
    colors: colors.stderr,
    clock: environment.clock,
    mode: !isWanted ? "off" : environment.isTty.stderr ? "moving" : "lines",
    // A terminal may say 0 when it does not know.
    columns: (environment.stderr as { columns?: number }).columns || 80,
  });
}

export interface SpinnerOptions {
  output: Output;
  colors: Colors;
  clock: Clock;
  /** Moving needs a terminal. */
  mode: "moving" | "lines" | "off";
  columns: number;
}

export class Spinner {
  readonly #options: SpinnerOptions;
  readonly #sinceMs: number;
  #text = "";
  #frame = 0;
  #isShown = false;
  #said = "";
  #callOff: (() => void) | null = null;

  constructor(options: SpinnerOptions) {
    this.#options = options;
    this.#sinceMs = options.clock.monotonicMs();
  }

  show(text: string): void {
    const { mode, clock } = this.#options;
    if (mode === "off") return;
    this.#text = printable(text.replaceAll("\n", " "));
    this.#callOff ??=
      mode === "moving"
        ? clock.schedule(SHOW_AFTER_MS, () => this.#draw())
        : clock.schedule(SAY_AFTER_MS, () => this.#say());
  }

  /** Removes the line, and leaves the place to other output. */
  hide(): void {
    this.#callOff?.();
    this.#callOff = null;
    if (this.#isShown) this.#options.output.writeNow(ERASE_LINE);
    this.#isShown = false;
  }

  #say(): void {
    if (this.#text !== this.#said) this.#options.output.writeNow(`hodei: ${this.#text}\n`);
    this.#said = this.#text;
    this.#callOff = this.#options.clock.schedule(SAY_AGAIN_MS, () => this.#say());
  }

  #draw(): void {
    const { output, colors, clock, columns } = this.#options;
    const frame = FRAMES[this.#frame % FRAMES.length] ?? "";
    this.#frame += 1;
    const elapsed = formatDuration(clock.monotonicMs() - this.#sinceMs);
    const room = Math.max(10, columns - elapsed.length - 6);
    const text = this.#text.length > room ? `${this.#text.slice(0, room - 1)}…` : this.#text;
    output.writeNow(`${ERASE_LINE}${colors.cyan(frame)} ${text} ${colors.dim(elapsed)}`);
    this.#isShown = true;
    this.#callOff = clock.schedule(FRAME_MS, () => this.#draw());
  }
}
