// Adds to package-lock.json the optional packages for other platforms that npm left out because
// the registry it was made with does not carry them. Without these entries `npm ci` calls the lock
// file out of step, on every platform. Run it after each `npm install` that changed the lock file.
//
// They have no integrity, since nobody could look; npm takes what the registry says where one of
// them is installed.
import { readFileSync, writeFileSync } from "node:fs";

const lock = JSON.parse(readFileSync("package-lock.json", "utf8"));
let added = 0;

for (const [path, entry] of Object.entries(lock.packages)) {
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
    if (isPresent(path, name)) continue;
    if (!/^\d+\.\d+\.\d+/.test(version)) throw new Error(`${path}: ${name} is asked for as ${version}`);
    lock.packages[`node_modules/${name}`] = {
      version,
      ...platformOf(name),
      ...(entry.dev && { dev: true }),
      optional: true,
    };
    added += 1;
  }
}

const root = lock.packages[""];
delete lock.packages[""];
const sorted = Object.entries(lock.packages).toSorted(([left], [right]) => left.localeCompare(right, "en"));
lock.packages = { "": root, ...Object.fromEntries(sorted) };
writeFileSync("package-lock.json", `${JSON.stringify(lock, null, 2)}\n`);
console.log(`${added} packages added`);

/** Whether one of the folders from the package upwards has it. */
function isPresent(path, name) {
  for (let folder = path; ; folder = folder.slice(0, Math.max(0, folder.lastIndexOf("/node_modules/")))) {
    if (lock.packages[folder === "" ? `node_modules/${name}` : `${folder}/node_modules/${name}`]) return true;
    if (folder === "") return false;
  }
}

/** The conditions of npm, from the name: without them npm would install it everywhere. */
function platformOf(name) {
  const words = name.split(/[/-]/);
  const os = [
    "aix",
    "android",
    "darwin",
    "freebsd",
    "linux",
    "netbsd",
    "openbsd",
    "openharmony",
    "sunos",
    "win32",
  ].find((word) => words.includes(word));
  const cpu = [
    ["arm64", "arm64"],
    ["aarch64", "arm64"],
    ["x64", "x64"],
    ["ia32", "ia32"],
    ["arm", "arm"],
    ["armv7", "arm"],
    ["ppc64", "ppc64"],
    ["riscv64", "riscv64"],
    ["s390x", "s390x"],
    ["loong64", "loong64"],
    ["mips64el", "mips64el"],
    ["wasm32", "wasm32"],
    ["wasi", "wasm32"],
  ].find(([word]) => words.includes(word))?.[1];
  if (cpu === undefined) throw new Error(`cannot tell for which machine ${name} is`);
  const libc =
    words.includes("musl") || words.includes("musleabihf")
      ? "musl"
      : words.includes("gnu") || words.includes("gnueabihf")
        ? "glibc"
        : undefined;
  return { cpu: [cpu], ...(libc && { libc: [libc] }), ...(os && { os: [os] }) };
}
