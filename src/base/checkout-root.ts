/** Where the checkout lies, for tests that read its documents and sources. */

import { existsSync } from "node:fs";
import { dirname, join } from "node:path";

/** The nearest folder above this file, compiled or not, that holds the package. */
export function checkoutRoot(): string {
  let folder = import.meta.dirname;
  while (!existsSync(join(folder, "package.json"))) {
    const above = dirname(folder);
    if (above === folder) throw new Error(`find the checkout above ${import.meta.dirname}: no package.json`);
    folder = above;
  }
  return folder;
}
