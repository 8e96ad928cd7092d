// The program of Function Compute's built-in Node.js runtimes: loads the function's module, then opens the port and
// calls its handler and hooks as the platform asks.

import { answer, crash, interrupted, loadEarly } from './runtime.mjs';
import { patchConsole } from './log.mjs';
import { listen } from './wire.mjs';

const USUAL_PORT = 9000;
const TERMINATED = 128 + 15;

patchConsole();
process.on('uncaughtException', crash);
process.on('exit', interrupted);
if (process.pid === 1) process.on('SIGTERM', () => process.exit(TERMINATED)); // without a handler, process 1 ignores it

loadEarly().then(() => listen(Number(process.env.FC_SERVER_PORT || USUAL_PORT), answer));
