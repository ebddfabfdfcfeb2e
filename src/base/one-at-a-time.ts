/** Runs one piece of work at a time for each key, in the order in which they were given. */
export class OneAtATime {
  readonly #last = new Map<string, Promise<unknown>>();

  /** Settles as the work does. That of earlier calls may fail: this one runs all the same. */
  async run<T>(key: string, work: () => Promise<T>): Promise<T> {
    const before = this.#last.get(key) ?? Promise.resolve();
    const done = before.then(work, work);
    this.#last.set(key, done);
    try {
      return await done;
    } finally {
      if (this.#last.get(key) === done) this.#last.delete(key);
    }
  }

  isBusy(key: string): boolean {
    return this.#last.has(key);
  }
}
