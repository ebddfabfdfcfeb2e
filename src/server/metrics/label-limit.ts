/**
 * Keeps the number of time series bounded where names are chosen by users: a queue per user would
 * cost the monitoring more than Hodei itself.
 */
export class LabelLimit {
  readonly #maxNames: number;
  readonly #names = new Set<string>();

  constructor(maxNames: number) {
    this.#maxNames = maxNames;
  }

  /** The name itself for the first ones that were asked for, `other` for the rest. */
  labelOf(name: string): string {
    if (this.#names.has(name)) return name;
    if (this.#names.size >= this.#maxNames) return "other";
    this.#names.add(name);
    return name;
  }
}
