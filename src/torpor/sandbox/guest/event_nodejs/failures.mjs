// What a failure looks like to the caller of the function and in its log.

import { inspect, types } from 'node:util';

const OWN = new URL('.', import.meta.url).href;

// The handler cannot be had; `kind` is the error type told, the cause is what the code threw.
export class LoadFailure extends Error {
  constructor(kind, message, cause = undefined) {
    super(message);
    this.kind = kind;
    this.reason = cause;
  }
}

// The JSON that the caller receives. Anything at all may have been thrown.
export function failureBody(value, handled = false) {
  try {
    return JSON.stringify(told(value, handled));
  } catch {
    return JSON.stringify({ errorMessage: 'The error cannot be read', errorType: typeless(handled) });
  }
}

export function showFailure(value) {
  try {
    if (value instanceof LoadFailure) console.error([value.message, ...stack(value.reason)].join('\n'));
    else console.error(isError(value) ? stack(value).join('\n') : value);
  } catch {
    console.error('The error cannot be shown');
  }
}

function told(value, handled) {
  if (value instanceof LoadFailure) {
    return { errorMessage: value.message, errorType: value.kind, stackTrace: stack(value.reason) };
  }
  if (isError(value)) {
    return { errorMessage: String(value.message), errorType: String(value.name), stackTrace: stack(value) };
  }
  return { errorMessage: typeof value === 'string' ? value : inspect(value), errorType: typeless(handled) };
}

const typeless = (handled) => (handled ? 'FunctionHandledError' : 'FunctionUnhandledError');

const isError = (value) => types.isNativeError(value) || value instanceof Error;

// The lines of an error's stack, without the server's own.
function stack(error) {
  if (!isError(error)) return error === undefined ? [] : [inspect(error)];
  return String(error.stack)
    .split('\n')
    .filter((line) => !line.includes(OWN));
}
