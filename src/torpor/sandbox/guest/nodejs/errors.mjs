// The errors of the runtime itself, and how any thrown value is told to the Runtime API, the log and X-Ray.

import { types } from 'node:util';

function named(name) {
  const type = { [name]: class extends Error {} }[name];
  type.prototype.name = `Runtime.${name}`;
  return type;
}

export const ImportModuleError = named('ImportModuleError');
export const HandlerNotFound = named('HandlerNotFound');
export const MalformedHandlerName = named('MalformedHandlerName');
export const UserCodeSyntaxError = named('UserCodeSyntaxError');
export const UnhandledPromiseRejection = named('UnhandledPromiseRejection');
export const NodeJsExit = named('NodeJsExit');
export const InvalidStreamingOperation = named('InvalidStreamingOperation');

export const CallbackHandlerDeprecated = named('CallbackHandlerDeprecated');

export const EXIT_EXCEPTION = 129;
const EXIT_REJECTION = 128;
const XRAY_CAUSE_MAX = 64 * 1024;

// Errors that no code waits for go to `crash(title, error, status)`.
export function onStrayErrors(crash) {
  process.on('uncaughtException', (error) => crash('Uncaught Exception', error, EXIT_EXCEPTION));
  process.on('unhandledRejection', (reason) => {
    const error = new UnhandledPromiseRejection(reason?.toString());
    error.reason = reason;
    crash('Unhandled Promise Rejection', error, EXIT_REJECTION);
  });
}

export const asError = (value) => (value instanceof Error ? value : new Error(value));

// The body of an error post: what the caller of the function receives.
export function errorBody(error) {
  try {
    if (isErrorLike(error)) {
      return { errorType: error.name, errorMessage: error.message, trace: error.stack.split('\n') };
    }
    return { errorType: typeof error, errorMessage: error.toString(), trace: [] };
  } catch {
    return {
      errorType: 'handled',
      errorMessage:
        'callback called with Error argument, but there was a problem while retrieving one or more of its ' +
        'message, name, and stack',
    };
  }
}

// One line of JSON for the text log, with the error's own properties.
export function errorLine(error) {
  try {
    return '\t' + JSON.stringify(error, (_, value) => withProperties(value));
  } catch {
    return '\t' + JSON.stringify(errorBody(error));
  }
}

// The X-Ray header of an error post, or undefined if it would be too large. ASCII only, as headers must be.
export function xrayCause(error) {
  if (!isErrorLike(error)) return undefined;
  const stack = [...String(error.stack).matchAll(/^ +at (?:(.*?) \()?(.*?):(\d+):\d+\)?$/gm)].map((frame) => ({
    path: frame[2],
    line: Number(frame[3]),
    label: frame[1] ?? 'anonymous',
  }));
  const cause = JSON.stringify({
    working_directory: process.cwd(),
    exceptions: [{ type: error.name, message: error.message, stack }],
    paths: [...new Set(stack.map((frame) => frame.path))],
  }).replace(/[\u007f-\uffff]/g, (letter) => '\\u' + letter.charCodeAt(0).toString(16).padStart(4, '0'));
  return cause.length <= XRAY_CAUSE_MAX ? cause : undefined;
}

function isErrorLike(value) {
  if (types.isNativeError(value)) return true;
  return ['name', 'message', 'stack'].every((key) => value?.[key] && typeof value[key] === 'string');
}

function withProperties(value) {
  if (!(value instanceof Error)) return value;
  const shown = { errorType: value.name, errorMessage: value.message, code: value.code, ...value };
  if (typeof value.stack === 'string') shown.stack = value.stack.split('\n');
  return shown;
}
