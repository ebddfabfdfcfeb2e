/** `hodei pause`: freezes the processes of running jobs. */

import type { CliCommand } from "../command.ts";
import { addWishOptions, runWish } from "../job-wish.ts";

export const pauseCommand: CliCommand = {
  configure(command) {
    addWishOptions(command).addHelpText(
      "after",
      "\nThe processes stand still where they are, and so does the time-out of the job. What was asked for is kept:\na worker that is away now does it when it is back.",
    );
  },
  run: (given, context) =>
    runWish(given, context, {
      name: "pause",
      ask: (connection, jobId) => connection.jobs.pauseJob({ jobId }),
      outcome(job) {
        if (job.state === "paused") return { type: "done" };
        // The worker has said why not, and the wish is withdrawn.
        return job.pauseWanted ? null : { type: "refused", why: job.message || "the pause was called off" };
      },
    }),
};
