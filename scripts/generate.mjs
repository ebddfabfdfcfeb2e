// Regenerates src/protocol/gen from proto/.
import { execFileSync } from "node:child_process";
import { readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

execFileSync("node", ["scripts/print-validate-proto.mjs"], { stdio: "inherit" });
rmSync("src/protocol/gen", { recursive: true, force: true });
execFileSync("npx", ["--no-install", "buf", "generate"], { stdio: "inherit" });

// `import_extension=ts` is right for our own files, but the package ships JavaScript.
for (const name of readdirSync("src/protocol/gen", { recursive: true })) {
  if (!name.endsWith(".ts")) continue;
  const path = join("src/protocol/gen", name);
  const text = readFileSync(path, "utf8");
  writeFileSync(path, text.replace(/(@bufbuild\/protovalidate\/gen\/[^"]*)\.ts"/g, '$1.js"'));
}
