import { testResistance } from "./resistance-conformance.ts";
import { testTrees } from "./tree-conformance.ts";

await testTrees("v2");
await testResistance("v2");
