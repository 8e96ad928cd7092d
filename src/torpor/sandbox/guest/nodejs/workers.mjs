// Many invocations at a time: starts the threads that serve them, and ends when the last of them has ended.

import { cpus } from 'node:os';
import { Worker } from 'node:worker_threads';
import { readQuota, workerCount } from './worker-count.mjs';

const EXIT_NO_WORKER = 1;

const { env } = process;
let alive = workerCount(env, readQuota(), cpus().length);
for (let left = alive; left > 0; left--) {
  const worker = new Worker(new URL('./worker.mjs', import.meta.url));
  worker.on('error', (error) => process.stderr.write(`A worker has failed: ${error?.stack ?? error}\n`));
  worker.on('exit', () => --alive || process.exit(EXIT_NO_WORKER));
}
