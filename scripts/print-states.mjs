// Writes the diagram of job states into docs/states.md, from the compiled table.
import { readFileSync, writeFileSync } from "node:fs";
import { jobStateDiagram } from "../dist/src/core/job-state-diagram.js";

const path = "docs/states.md";
const text = readFileSync(path, "utf8");
writeFileSync(path, text.replace(/```mermaid\n[\s\S]*?```/, () => `\`\`\`mermaid\n${jobStateDiagram()}\`\`\``));
