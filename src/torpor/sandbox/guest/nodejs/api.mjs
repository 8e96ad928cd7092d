// The Runtime API as calls: next, answer, fail, and failing the initialisation.

import { errorBody, xrayCause } from './errors.mjs';

const BASE = '/2018-06-01/runtime';

export class RuntimeApi {
  #connection;
  #attempt;
  #refused;

  // `refused(status)` is called when a post is not accepted.
  constructor(connection, attempt = undefined, refused = exitIfBroken) {
    this.#connection = connection;
    this.#attempt = attempt;
    this.#refused = refused;
  }

  // The same invocation over another connection, for a crash while this one is in use.
  over(connection) {
    return new RuntimeApi(connection, this.#attempt, this.#refused);
  }

  async next() {
    const answer = await this.#connection.request('GET', `${BASE}/invocation/next`);
    if (answer.status !== 200) throw new Error(`The Runtime API refused to give an event: ${answer.status}`);
    this.#attempt = answer.headers['lambda-runtime-invocation-id'];
    return answer;
  }

  // Throws before anything is sent if the result cannot be JSON.
  answer(requestId, result) {
    return this.#post(`${BASE}/invocation/${requestId}/response`, serialise(result), this.#echo());
  }

  stream(requestId, contentType) {
    return this.#connection.upload(`${BASE}/invocation/${requestId}/response`, {
      ...this.#echo(),
      'Content-Type': contentType,
      'Lambda-Runtime-Function-Response-Mode': 'streaming',
      Trailer: 'Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body',
    });
  }

  fail(requestId, error) {
    const headers = this.#echo();
    const cause = xrayCause(error);
    if (cause) headers['Lambda-Runtime-Function-XRay-Error-Cause'] = cause;
    return this.#post(`${BASE}/invocation/${requestId}/error`, JSON.stringify(errorBody(error)), headers);
  }

  failInit(error) {
    const body = errorBody(error);
    const type = String(body.errorType).replace(/[^\x20-\x7e]/g, '');
    return this.#post(`${BASE}/init/error`, JSON.stringify(body), { 'Lambda-Runtime-Function-Error-Type': type });
  }

  // The attempt's own id, so that a late answer cannot be taken for that of a retry.
  #echo() {
    return this.#attempt ? { 'Lambda-Runtime-Invocation-Id': this.#attempt } : {};
  }

  async #post(path, body, headers) {
    const answer = await this.#connection.request('POST', path, { 'Content-Type': 'application/json', ...headers }, body);
    if (answer.status >= 400) this.#refused(answer.status);
  }
}

function exitIfBroken(status) {
  if (status >= 500) process.exit(1);
}

function serialise(result) {
  try {
    return JSON.stringify(result) ?? 'null';
  } catch {
    throw new Error('Unable to stringify response body');
  }
}
