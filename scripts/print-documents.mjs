// Writes what documents show of the program into them, from the compiled tables: the diagram of
// docs/states.md and the chapters of docs/configuration.md.
import { readFileSync, writeFileSync } from "node:fs";
import { agentSettings } from "../dist/src/agent/settings.js";
import { settingsMarkdown } from "../dist/src/base/settings.js";
import { jobStateDiagram } from "../dist/src/core/job-state-diagram.js";
import { serverSettings } from "../dist/src/server/settings.js";

edit("docs/states.md", /```mermaid\n[\s\S]*?```/, `\`\`\`mermaid\n${jobStateDiagram()}\`\`\``);
writeChapter("`hodei server` and `hodei dev`", serverSettings);
writeChapter("`hodei agent`", agentSettings);

/** A chapter goes from its heading to the next one. */
function writeChapter(title, table) {
  const heading = `## ${title}\n`.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  edit(
    "docs/configuration.md",
    new RegExp(`${heading}[\\s\\S]*?(?=\\n## |$)`),
    settingsMarkdown(title, table),
  );
}

function edit(path, place, text) {
  const before = readFileSync(path, "utf8");
  if (!place.test(before)) throw new Error(`${path}: no place for ${place}`);
  writeFileSync(
    path,
    before.replace(place, () => text),
  );
}
