/**
 * Turns of the event loop, for the simulation: between two of them all promises that can settle
 * have settled, so that what one event sets off is over before the next one happens.
 */

/** Turns that are asked for at once: a round of the event loop for each costs ten times as much. */
const TURNS_AT_ONCE = 32;

/** Calls `step` again and again, each in a turn of its own, until it returns false or throws. */
export function eachTurn(step: () => boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    let isOver = false;
    const turn = (isLast: boolean): void => {
      if (isOver) return;
      try {
        isOver = !step();
      } catch (error) {
        isOver = true;
        reject(error instanceof Error ? error : new Error("a step failed", { cause: error }));
      }
      if (isOver) resolve();
      else if (isLast) ask();
    };
    const ask = (): void => {
      for (let count = 1; count <= TURNS_AT_ONCE; count += 1) setImmediate(turn, count === TURNS_AT_ONCE);
    };
    ask();
  });
}
