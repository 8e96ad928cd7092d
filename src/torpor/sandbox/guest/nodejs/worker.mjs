// One thread of many: loads the handler for itself, then takes invocations as they come, without waiting for those that
// run already. It has connections, output and context of its own.

import net from 'node:net';
import { RuntimeApi } from './api.mjs';
import { Connection, Connections } from './connection.mjs';
import { contextData } from './context.mjs';
import { CallbackHandlerDeprecated, EXIT_EXCEPTION, onStrayErrors } from './errors.mjs';
import { loadHandler } from './loader.mjs';
import { followStore, logError, patchConsole } from './log.mjs';
import { InvokeStore } from './store.mjs';
import { installGlobal, isStreaming, StreamingInvocation } from './streaming.mjs';

const STDOUT = 1;
const CALLBACK_ARITY = 3;
const NEXT_ATTEMPTS = 20;
const FIRST_DELAY_MS = 100;
const LONGEST_DELAY_MS = 90_000;

const { env } = process;
const address = env.AWS_LAMBDA_RUNTIME_API;
const posts = new Connections(address);
const store = new InvokeStore();
const running = new Map(); // request id -> the API of that invocation
let loaded = false;
let fatal = null;

// This thread cannot go on: what it runs fails with the error, other threads do not notice.
async function crash(title, error, status) {
  logError(title, error);
  if (fatal !== null) return;
  fatal = error;
  await Promise.allSettled(loaded ? [...running].map(([id, api]) => api.fail(id, error)) : [failInit(error)]);
  process.exit(status);
}

async function serve(handler) {
  const api = ownApi();
  for (let coming = next(api); ; ) {
    const { headers, body } = await coming;
    const own = api.over(posts);
    coming = next(api);
    store.run(invocationStore(headers), () => run(handler, headers, body, own));
  }
}

async function run(handler, headers, body, api) {
  const id = headers['lambda-runtime-aws-request-id'];
  if (fatal !== null) return api.fail(id, fatal).catch(notTold);
  running.set(id, api);
  try {
    if (isStreaming(handler)) await new StreamingInvocation(api, headers, () => {}).respond(handler, body, {});
    else await invoke(handler, headers, body, api, id);
  } catch (error) {
    notTold(error);
  } finally {
    running.delete(id);
  }
}

async function invoke(handler, headers, body, api, id) {
  let posted;
  try {
    posted = api.answer(id, await handler(JSON.parse(body.toString()), contextData(headers)));
  } catch (error) {
    logError('Invoke Error', error);
    posted = api.fail(id, error ?? 'handled');
  }
  await posted;
}

// Waits longer and longer between attempts; all together take a quarter of an hour.
async function next(api) {
  for (let attempt = 1, delay = FIRST_DELAY_MS; ; attempt++, delay = Math.min(2 * delay, LONGEST_DELAY_MS)) {
    try {
      return await api.next();
    } catch (error) {
      if (attempt === NEXT_ATTEMPTS) throw error;
      console.warn(`No event could be had (attempt ${attempt} of ${NEXT_ATTEMPTS}): ${error.message}`);
      await new Promise((resolve) => setTimeout(resolve, delay));
    }
  }
}

// Another thread may have told already, so it does not matter whether this is taken.
function failInit(error) {
  return new RuntimeApi(posts, undefined, () => {}).failInit(error);
}

function ownApi() {
  const refused = (status) => console.warn(`The Runtime API did not take what was told: ${status}`);
  return new RuntimeApi(new Connection(address), undefined, refused);
}

function notTold(error) {
  console.warn(`The Runtime API could not be told: ${error.message}`);
}

function invocationStore(headers) {
  return InvokeStore.context(
    headers['lambda-runtime-aws-request-id'],
    headers['lambda-runtime-trace-id'],
    headers['lambda-runtime-aws-tenant-id'],
  );
}

function refuseCallbacks(handler) {
  if (handler.length < CALLBACK_ARITY || isStreaming(handler)) return;
  throw new CallbackHandlerDeprecated(
    'A handler with a callback cannot serve several invocations at a time; make it an async function.',
  );
}

// A stream to the platform that is this thread's alone, where the platform offers one. It is never read, so
// that its end cannot close the descriptor, whose number might then become something else's.
function logDescriptor() {
  const path = env._LAMBDA_TELEMETRY_LOG_FD_PROVIDER_SOCKET;
  if (!path) return env._LAMBDA_TELEMETRY_LOG_FD ? undefined : STDOUT;
  const socket = net.connect({ path, allowHalfOpen: true }).pause();
  return new Promise((resolve) => {
    socket.on('error', () => resolve(STDOUT));
    socket.on('connect', () => resolve(socket.unref()._handle.fd));
  });
}

patchConsole(await logDescriptor());
followStore(store);
installGlobal();
if (globalThis.awslambda) globalThis.awslambda.InvokeStore = store;
onStrayErrors(crash);
try {
  const handler = await loadHandler(env.LAMBDA_TASK_ROOT ?? '/var/task', env._HANDLER ?? '');
  refuseCallbacks(handler);
  loaded = true;
  serve(handler).catch((error) => crash('Runtime Failure', error, 1));
} catch (error) {
  await crash('Uncaught Exception', error, EXIT_EXCEPTION);
}
