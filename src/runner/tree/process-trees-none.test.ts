import { testResistance } from "./resistance-conformance.ts";
import { testTrees } from "./tree-conformance.ts";

await testTrees("none");
await testResistance("none");
