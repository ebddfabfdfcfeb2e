/** The long scenarios of `npm run chaos -- --scenario NAME`. */

export interface Scenario {
  name: string;
  /** One line for the list. */
  description: string;
  /** Resolves with what was wrong, in words; empty if nothing was. */
  run(onProgress: (line: string) => void): Promise<string[]>;
}

export const SCENARIOS: readonly Scenario[] = [];
