/** `hodei workers cordon` and `uncordon`: whether workers get new jobs. */

import { workerFromWire } from "../../protocol/convert-worker.ts";
import { call } from "../call.ts";
import type { CliCommand } from "../command.ts";
import { eachId } from "../each-id.ts";
import { checkIds, jsonOutput } from "../option-values.ts";

export const cordonCommand = cordon("cordon", "They keep the jobs that they have, and stay.");
export const uncordonCommand = cordon("uncordon", "They get jobs again.");

function cordon(name: "cordon" | "uncordon", explanation: string): CliCommand {
  return {
    configure(command) {
      command
        .argument("<worker...>", "ids of workers, or their beginnings")
        .option("-o, --output <format>", "json: an array of the workers")
        .addHelpText("after", `\n${explanation}\n\nExample:\n  hodei workers ${name} 0198f3a1`);
    },
    async run({ options, operands }, context) {
      checkIds(operands, "worker");
      const isJson = jsonOutput(options);
      const connection = await context.connect("running_server");
      const change = async (workerId: string) => {
        const { worker } = await call(`${name} worker ${workerId}`, () =>
          connection.workers.cordonWorker({ workerId, uncordon: name === "uncordon" }),
        );
        if (!worker) throw new Error("the server sent no worker");
        return workerFromWire(worker);
      };
      return await eachId(operands, change, { context, isJson });
    },
  };
}
