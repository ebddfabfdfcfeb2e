/** As whom PostgreSQL runs: it refuses root, so a server that is root lends it another account. */

import { chmodSync, readFileSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { AppError } from "../../base/errors.ts";

export interface Account {
  uid: number;
  gid: number;
}

/** The first that exists is taken for a new cluster. */
const ACCOUNT_NAMES = ["hodei", "postgres", "nobody"];

/**
 * Null if PostgreSQL can run as we do. `dataDirectory` is that of the cluster: its owner is kept.
 *
 * @throws AppError `failed_precondition` if the cluster is another user's, or there is no account.
 */
export function chooseAccount(dataDirectory: string): Account | null {
  const ownUid = process.getuid?.();
  if (ownUid === undefined) return null;
  const owner = statSync(dataDirectory, { throwIfNoEntry: false });
  if (ownUid !== 0) {
    if (owner === undefined || owner.uid === ownUid) return null;
    throw new AppError(
      "failed_precondition",
      `start the embedded database: ${dataDirectory} belongs to the user with id ${owner.uid}; run Hodei as that user or as root, or choose another directory with --data-dir`,
    );
  }
  if (owner !== undefined && owner.uid !== 0) return { uid: owner.uid, gid: owner.gid };
  const known = readAccounts();
  for (const name of ACCOUNT_NAMES) {
    const account = known.get(name);
    if (account) return account;
  }
  throw new AppError(
    "failed_precondition",
    `start the embedded database: PostgreSQL does not run as root, and none of the users ${ACCOUNT_NAMES.join(", ")} exists; run Hodei as a normal user, create a user named hodei, or give a database with --db`,
  );
}

function readAccounts(): Map<string, Account> {
  const accounts = new Map<string, Account>();
  for (const line of readFileSync("/etc/passwd", "utf8").split("\n")) {
    const [name = "", , uid, gid] = line.split(":");
    if (uid !== undefined && gid !== undefined && uid !== "0")
      accounts.set(name, { uid: Number(uid), gid: Number(gid) });
  }
  return accounts;
}

/**
 * Makes sure that the account can reach `directory` (a real path). Hodei's own directory is opened
 * for passing through; its parents are the user's, so about those we only tell.
 */
export function requireReachable(directory: string, account: Account): void {
  const own = statSync(directory);
  if (!mayPass(own, account) && own.uid === 0) chmodSync(directory, (own.mode & 0o777) | 0o011);
  for (let path = directory; ; path = dirname(path)) {
    if (!mayPass(statSync(path), account)) {
      throw new AppError(
        "failed_precondition",
        `start the embedded database: PostgreSQL does not run as root, and the user with id ${account.uid} that it runs as cannot pass through ${path}; choose another directory with --data-dir or HODEI_DATA_DIR (such as /var/lib/hodei), or run: chmod o+x ${path}`,
      );
    }
    if (path === dirname(path)) return;
  }
}

/** A process started with a uid and a gid has no other groups. */
function mayPass(directory: { uid: number; gid: number; mode: number }, account: Account): boolean {
  if (directory.uid === account.uid) return (directory.mode & 0o100) !== 0;
  if (directory.gid === account.gid) return (directory.mode & 0o010) !== 0;
  return (directory.mode & 0o001) !== 0;
}
