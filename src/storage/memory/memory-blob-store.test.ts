import { blobStoreConformance } from "../blob-store-conformance.ts";
import { createMemoryBlobStore } from "./memory-blob-store.ts";

blobStoreConformance("memory", createMemoryBlobStore);
