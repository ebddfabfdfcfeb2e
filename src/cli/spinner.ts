/** A line on a terminal that says what is being waited for. */

import type { Clock } from "../base/clock.ts";
import type { Colors, CommandContext } from "./command.ts";
import { formatDuration } from "./job-text.ts";
import type { Output } from "./output.ts";
import { printable } from "./table.ts";

const FRAMES = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
const FRAME_MS = 100;
/** Most waits are over before: nothing should flicker then. */
const SHOW_AFTER_MS = 300;
const ERASE_LINE = "\r\u001b[2K";

/** On standard error, if that is a terminal. */
export function createSpinner(context: CommandContext, isWanted: boolean): Spinner {
  const { environment, stderr, colors } = context;
  return new Spinner({
    output: stderr,
    colors: colors.stderr,
    clock: environment.clock,
    isOn: isWanted && environment.isTty.stderr,
    // A terminal may say 0 when it does not know.
    columns: (environment.stderr as { columns?: number }).columns || 80,
  });
}

export interface SpinnerOptions {
  output: Output;
  colors: Colors;
  clock: Clock;
  /** False if the output is no terminal: then the spinner does nothing. */
  isOn: boolean;
  columns: number;
}

export class Spinner {
  readonly #options: SpinnerOptions;
  readonly #sinceMs: number;
  #text = "";
  #frame = 0;
  #isShown = false;
  #callOff: (() => void) | null = null;

  constructor(options: SpinnerOptions) {
    this.#options = options;
    this.#sinceMs = options.clock.monotonicMs();
  }

  show(text: string): void {
    if (!this.#options.isOn) return;
    this.#text = printable(text.replaceAll("\n", " "));
    this.#callOff ??= this.#options.clock.schedule(SHOW_AFTER_MS, () => this.#draw());
  }

  /** Removes the line, and leaves the place to other output. */
  hide(): void {
    this.#callOff?.();
    this.#callOff = null;
    if (this.#isShown) this.#options.output.writeNow(ERASE_LINE);
    this.#isShown = false;
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
