/** Which names a blob may have. A key is also a path below a directory, so it must not lead out. */

import { AppError } from "../base/errors.ts";

const KEY = /^[a-z0-9._-]+(\/[a-z0-9._-]+)*$/;
const MAX_KEY_CHARACTERS = 512;

export function requireBlobKey(key: string): void {
  const parts = key.split("/");
  const isValid =
    key.length <= MAX_KEY_CHARACTERS && KEY.test(key) && !key.includes("..") && !parts.includes(".");
  if (!isValid) throw new AppError("invalid_argument", `blob key ${JSON.stringify(key)} is not valid`);
}
