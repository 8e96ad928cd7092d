// Output: each console call is one line with time, request and level. Node writes to a pipe at once, so what was logged
// is out before a request is answered.

import { format } from 'node:util';

let requestId = '-'; // the request that is running, or the last one

const line = (level) => (...parts) => print(`${new Date().toISOString()} ${requestId} [${level}] ${format(...parts)}`);

export const logger = {
  log: line('verbose'),
  debug: line('debug'),
  info: line('info'),
  warn: line('warn'),
  error: line('error'),
};

export function patchConsole() {
  Object.assign(console, logger);
}

export function markStart(name, request) {
  requestId = request;
  print(`FC ${name} Start RequestId: ${request}`);
}

// `failure` is empty, Handled or Unhandled.
export function markEnd(name, failure) {
  print(`FC ${name} End RequestId: ${requestId}${failure && `, Error: ${failure} function error`}`);
}

function print(text) {
  process.stdout.write(`${text}\n`);
}
