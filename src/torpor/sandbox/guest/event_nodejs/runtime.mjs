// What each kind of request does: find the function it names, call it, tell the outcome.

import { buildContext } from './context.mjs';
import { failureBody, showFailure } from './failures.mjs';
import { find } from './handlers.mjs';
import { markEnd, markStart } from './log.mjs';

const { env } = process;
const UNHANDLED = 'UnhandledInvocationError';
const HANDLED = 'HandledInvocationError';
const hook = (name) => `x-fc-instance-lifecycle-${name}-handler`;

// The name in the log, the header and variables that name the handler, and what a failure is called.
const INVOKE = { name: 'Invoke', header: 'x-fc-function-handler', variables: ['FC_FUNCTION_HANDLER', 'FC_HANDLER'] };
const INITIALIZE = {
  name: 'Initialize',
  header: 'x-fc-function-initializer',
  variables: ['FC_INITIALIZER_HANDLER'],
  failure: 'InitializationError',
};
const CALLS = {
  'POST /invoke': INVOKE,
  'POST /initialize': INITIALIZE,
  'GET /pre-freeze': { name: 'PreFreeze', header: hook('pre-freeze'), variables: [] },
  'GET /pre-stop': { name: 'PreStop', header: hook('pre-stop'), variables: [] },
};
const promisesCount = Number(process.versions.node.split('.')[0]) >= 18;

let running = null; // the request being served: {call, fail}

// Runs the code outside the handler. Its failure is the answer to every request there will be.
export async function loadEarly() {
  for (const call of [INVOKE, INITIALIZE]) {
    const name = handlerName(call, {});
    if (name) await find(name).catch(() => {});
  }
}

// Resolves to {status, headers, body, last}; `last` says that the process is to end when it is sent.
export async function answer({ method, path, headers, body }) {
  const call = CALLS[`${method} ${path}`];
  if (!call) return failed('PathNotSupported', '{"errorMessage":"Not a path of event functions"}');
  markStart(call.name, headers['x-fc-request-id'] || '');
  const { result, error, handled, fatal } = await outcome(call, headers, body);
  running = null;
  if (error === undefined) {
    markEnd(call.name, '');
    return { status: 200, headers: { 'Content-Type': 'application/octet-stream', 'x-fc-status': 200 }, body: result };
  }
  showFailure(error.value);
  markEnd(call.name, handled ? 'Handled' : 'Unhandled');
  const kind = call.failure || (handled ? HANDLED : UNHANDLED);
  return { ...failed(kind, failureBody(error.value, handled)), last: fatal };
}

// An error that no code of the function waits for: the request that runs fails, and the process, in a state that
// nobody knows, ends with it.
export function crash(error) {
  if (running) return running.fail({ error: { value: error }, fatal: true });
  showFailure(error);
  process.exit(1);
}

// The process ends while a request runs.
export function interrupted() {
  if (running) markEnd(running.call.name, 'Unhandled');
}

function failed(kind, body) {
  return {
    status: 404,
    headers: { 'Content-Type': 'application/json', 'x-fc-status': 404, 'x-fc-error-type': kind },
    body: Buffer.from(body),
  };
}

async function outcome(call, headers, body) {
  const crashed = new Promise((fail) => (running = { call, fail }));
  const finished = run(call, headers, body).catch((value) => ({ error: { value } }));
  return Promise.race([crashed, finished]);
}

async function run(call, headers, body) {
  const name = handlerName(call, headers);
  const nothing = { result: Buffer.alloc(0) };
  if (!name && call === INITIALIZE) await find(handlerName(INVOKE, headers));
  if (!name && call !== INVOKE) return nothing;
  const handler = await find(name);
  const parts = call === INVOKE ? [body] : [];
  const ended = await firstEnd(handler, [...parts, buildContext(headers)]);
  if (ended.error) return ended;
  return call === INVOKE ? { result: encode(ended.result) } : nothing;
}

function handlerName(call, headers) {
  const variable = call.variables.find((name) => env[name]);
  return variable ? env[variable] : headers[call.header] || '';
}

// The first of callback, promise and exception. The older runtimes know no promises.
function firstEnd(handler, parts) {
  return new Promise((resolve, reject) => {
    const callback = (value, result) => {
      if (value === undefined || value === null) resolve({ result });
      else resolve({ error: { value }, handled: true });
    };
    const returned = handler(...parts, callback);
    if (promisesCount && returned && typeof returned.then === 'function') {
      returned.then((result) => resolve({ result }), reject);
    }
  });
}

function encode(result) {
  if (result instanceof Uint8Array) return result;
  const text = typeof result === 'string' ? result : JSON.stringify(result);
  return Buffer.from(result === null || text === undefined ? '' : text);
}
