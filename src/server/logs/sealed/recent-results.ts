/**
 * Keeps the results of the last few computations. Callers that ask for one that is under way share
 * it; a failure is given to those who wait and not kept.
 */

export class RecentResults<T> {
  readonly #limit: number;
  /** Least recently used first. */
  readonly #results = new Map<string, Promise<T>>();

  constructor(limit: number) {
    this.#limit = limit;
  }

  get(key: string, compute: () => Promise<T>): Promise<T> {
    const result = this.#results.get(key) ?? this.#begin(key, compute);
    this.#results.delete(key);
    this.#results.set(key, result);
    if (this.#results.size > this.#limit) this.#forgetOldest();
    return result;
  }

  #begin(key: string, compute: () => Promise<T>): Promise<T> {
    const result = compute();
    result.catch(() => {
      if (this.#results.get(key) === result) this.#results.delete(key);
    });
    return result;
  }

  #forgetOldest(): void {
    const oldest = this.#results.keys().next();
    if (!oldest.done) this.#results.delete(oldest.value);
  }
}
