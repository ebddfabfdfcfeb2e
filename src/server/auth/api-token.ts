/**
 * The API token of a data directory: whoever can read the file may use the API.
 *
 * The file holds the token and a newline, and only its owner can read it. It is written under
 * another name and then linked to its own, so that a server that is killed in between leaves no
 * half token, and of two servers that start at once both end up with the same one.
 */

import { chmod, link, mkdir, open, readFile, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { AppError, systemErrorCode } from "../../base/errors.ts";
import type { Random } from "../../base/random.ts";
import { systemRandom } from "../../base/random.ts";

const TOKEN_BYTES = 32;
/** 32 bytes in base64url without padding. */
const TOKEN_PATTERN = /^[A-Za-z0-9_-]{43}$/;

/**
 * Reads the token from `file`, or makes one.
 *
 * @throws AppError if the file cannot be read or made, or holds something else.
 */
export async function loadOrCreateApiToken(file: string, random: Random = systemRandom): Promise<string> {
  try {
    return (await readToken(file)) ?? (await createToken(file, random));
  } catch (error) {
    if (error instanceof AppError) throw error;
    throw new AppError("failed_precondition", `load the API token from ${file}: ${String(error)}`, {
      cause: error,
    });
  }
}

async function readToken(file: string): Promise<string | null> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return null;
    throw error;
  }
  const token = text.trim();
  if (!TOKEN_PATTERN.test(token)) {
    throw new AppError(
      "failed_precondition",
      `load the API token from ${file}: it does not hold a token; remove it to get a new one`,
    );
  }
  await closeToOthers(file);
  return token;
}

/** A token that was copied with loose permissions is closed again. */
async function closeToOthers(file: string): Promise<void> {
  const { mode } = await stat(file);
  if ((mode & 0o077) !== 0) await chmod(file, 0o600);
}

async function createToken(file: string, random: Random): Promise<string> {
  await mkdir(dirname(file), { recursive: true, mode: 0o700 });
  const suffix = Buffer.from(random.bytes(8)).toString("hex");
  const draft = `${file}.${suffix}`;
  const token = Buffer.from(random.bytes(TOKEN_BYTES)).toString("base64url");
  try {
    await writeDurably(draft, `${token}\n`);
    await link(draft, file);
    return token;
  } catch (error) {
    if (systemErrorCode(error) !== "EEXIST") throw error;
    const other = await readToken(file);
    if (other === null) throw error;
    return other;
  } finally {
    await rm(draft, { force: true });
  }
}

async function writeDurably(file: string, text: string): Promise<void> {
  const handle = await open(file, "wx", 0o600);
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
}
