/** How far a download of an image is, from what the engine says line by line. */

interface PullLine {
  error?: string;
  id?: string;
  status?: string;
  progressDetail?: { current?: number; total?: number };
}

interface Layer {
  current: number;
  total: number;
}

const MEGABYTE = 1_000_000;

export class PullProgress {
  /** What went wrong, in the engine's words; null if nothing has. */
  problem: string | null = null;
  readonly #layers = new Map<string, Layer>();

  take(line: string): void {
    const { error, id, status, progressDetail } = JSON.parse(line) as PullLine;
    if (error !== undefined) this.problem ??= error;
    if (id === undefined) return;
    const { current, total } = progressDetail ?? {};
    if (status === "Downloading" && current !== undefined && total !== undefined) {
      this.#layers.set(id, { current, total });
    }
    const layer = this.#layers.get(id);
    if (layer && (status === "Download complete" || status === "Pull complete")) layer.current = layer.total;
  }

  /** Such as `12 of 80 MB`; empty while nothing is known. Layers that were not begun are not in it. */
  describe(): string {
    let current = 0;
    let total = 0;
    for (const layer of this.#layers.values()) {
      current += layer.current;
      total += layer.total;
    }
    return total === 0 ? "" : `${Math.floor(current / MEGABYTE)} of ${Math.ceil(total / MEGABYTE)} MB`;
  }
}
