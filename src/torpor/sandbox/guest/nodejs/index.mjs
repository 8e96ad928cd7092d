// The runtime for Node.js functions: loads the handler, then serves one invocation after another for ever. Where the
// environment is to serve several at a time, it only starts the threads that do.

import { RuntimeApi } from './api.mjs';
import { Connection } from './connection.mjs';
import { EXIT_EXCEPTION, onStrayErrors } from './errors.mjs';
import { Invocation } from './invocation.mjs';
import { loadHandler } from './loader.mjs';
import { logError, patchConsole } from './log.mjs';
import { installGlobal, isStreaming, StreamingInvocation } from './streaming.mjs';

const { env } = process;

const api = new RuntimeApi(new Connection(env.AWS_LAMBDA_RUNTIME_API));
let current = null;
let idle = null;

function crash(title, error, status) {
  logError(title, error);
  const spare = api.over(new Connection(env.AWS_LAMBDA_RUNTIME_API));
  const posted = current === null ? spare.failInit(error) : (current.abort?.(error) ?? spare.fail(current.id, error));
  posted.catch(() => {}).finally(() => process.exit(status));
}

async function serve(handler) {
  const Kind = isStreaming(handler) ? StreamingInvocation : Invocation;
  for (;;) {
    const { headers, body } = await api.next();
    current = new Kind(api, headers, (action) => (idle = action));
    await current.run(handler, body);
  }
}

function main() {
  patchConsole();
  installGlobal();
  onStrayErrors(crash);
  process.on('beforeExit', () => {
    const action = idle;
    idle = null;
    action?.();
  });
  loadHandler(env.LAMBDA_TASK_ROOT ?? '/var/task', env._HANDLER ?? '').then(
    (handler) => serve(handler).catch((error) => crash('Runtime Failure', error, 1)),
    (error) => crash('Uncaught Exception', error, EXIT_EXCEPTION),
  );
}

if ('AWS_LAMBDA_MAX_CONCURRENCY' in env) import('./workers.mjs');
else main();
