// console.* in the platform's formats: text or JSON, on stdout or as frames on the log descriptor.

import { writeSync } from 'node:fs';
import { format } from 'node:util';
import { asError, errorLine } from './errors.mjs';

const LEVELS = { TRACE: 1, DEBUG: 2, INFO: 3, WARN: 4, ERROR: 5, FATAL: 6 };
const TEXT_FRAME = 0xa55a0003;
const JSON_FRAME = 0xa55a0002;
const FULL_MS = 1;
const REQUEST_ID = Symbol.for('aws.lambda.runtime.requestId');

const json = process.env.AWS_LAMBDA_LOG_FORMAT?.toUpperCase() === 'JSON';
let write = writeStdout;
let tenant;
let currentTenant = () => tenant;

export function setRequest(requestId, tenantId) {
  globalThis[REQUEST_ID] = requestId;
  tenant = tenantId;
}

// Where several invocations run at a time, the store of the code that logs knows which of them it belongs to.
export function followStore(store) {
  Object.defineProperty(globalThis, REQUEST_ID, { get: () => store.get(store.constructor.PROTECTED_KEYS.REQUEST_ID) });
  currentTenant = () => store.getTenantId();
}

export function logError(title, error) {
  if (json) console.error(asError(error));
  else console.error(title, errorLine(asError(error)));
}

// Plain lines go to the descriptor `lines` if there is one.
export function patchConsole(lines = undefined) {
  const descriptor = process.env._LAMBDA_TELEMETRY_LOG_FD;
  delete process.env._LAMBDA_TELEMETRY_LOG_FD;
  if (lines !== undefined) write = (_level, _time, line) => writeLine(lines, line);
  else if (descriptor) write = (level, time, line) => writeFrame(Number(descriptor), level, time, line);
  const least = LEVELS[process.env.AWS_LAMBDA_LOG_LEVEL?.toUpperCase()] ?? LEVELS.TRACE;
  for (const level in LEVELS) {
    const wanted = LEVELS[level] >= least || level === 'FATAL';
    console[level.toLowerCase()] = wanted ? (...parts) => record(level, parts) : () => {};
  }
  console.log = console.info;
}

function record(level, parts) {
  const time = new Date();
  write(level, time, json ? jsonLine(level, time, parts) : textLine(level, time, parts));
}

function textLine(level, time, parts) {
  return `${time.toISOString()}\t${globalThis[REQUEST_ID]}\t${level}\t${format(...parts)}`;
}

function jsonLine(level, time, parts) {
  const line = { timestamp: time.toISOString(), level, requestId: globalThis[REQUEST_ID] };
  const tenantId = currentTenant();
  if (tenantId) line.tenantId = tenantId;
  if (parts.length === 1) {
    try {
      return JSON.stringify({ ...line, message: parts[0] }, (_, value) => plainError(value));
    } catch {
      return JSON.stringify({ ...line, message: format(parts[0]) });
    }
  }
  const error = parts.find((part) => part instanceof Error);
  return JSON.stringify({ ...line, message: format(...parts), ...(error && errorFields(error)) });
}

function plainError(value) {
  return value instanceof Error ? { ...errorFields(value), ...value } : value;
}

function errorFields(error) {
  return {
    errorType: error.constructor?.name ?? 'UnknownError',
    errorMessage: error.message,
    stackTrace: typeof error.stack === 'string' ? error.stack.split('\n') : [],
  };
}

// A line feed would end the log event, so those inside become carriage returns.
const oneLine = (line) => line.replace(/\n/g, '\r') + '\n';

function writeStdout(_level, _time, line) {
  process.stdout.write(oneLine(line));
}

// Without a reader there is no log, but that is not the function's failure.
function writeLine(descriptor, line) {
  try {
    writeAll(descriptor, Buffer.from(oneLine(line)));
  } catch {
    return;
  }
}

function writeFrame(descriptor, level, time, line) {
  const message = Buffer.from(json ? line : line + '\n');
  const frame = Buffer.alloc(16 + message.length);
  frame.writeUInt32BE(((json ? JSON_FRAME : TEXT_FRAME) | (LEVELS[level] << 2)) >>> 0, 0);
  frame.writeUInt32BE(message.length, 4);
  frame.writeBigInt64BE(BigInt(time.getTime()) * 1000n, 8);
  message.copy(frame, 16);
  writeAll(descriptor, frame);
}

function writeAll(descriptor, bytes) {
  for (let sent = 0; sent < bytes.length; ) sent += writeSome(descriptor, bytes, sent);
}

// A socket's descriptor does not block; its reader is given a moment instead.
function writeSome(descriptor, bytes, sent) {
  try {
    return writeSync(descriptor, bytes, sent);
  } catch (error) {
    if (error.code !== 'EAGAIN') throw error;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, FULL_MS);
    return 0;
  }
}
