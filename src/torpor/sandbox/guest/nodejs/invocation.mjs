// One invocation of an ordinary handler: async, callback or context style, whichever ends it first.
//
// A callback's result is held back until the event loop is empty, unless the handler switched that off; so is the
// default answer null of a handler that neither called back nor returned a promise.

import { contextData, setTrace } from './context.mjs';
import { NodeJsExit } from './errors.mjs';
import { logError, setRequest } from './log.mjs';

export class Invocation {
  #api;
  #headers;
  #whenIdle;
  #finished = false;
  #waits = true;
  #settle;

  // `whenIdle(action)` arranges what happens when the event loop becomes empty.
  constructor(api, headers, whenIdle) {
    this.#api = api;
    this.#headers = headers;
    this.#whenIdle = whenIdle;
  }

  get id() {
    return this.#headers['lambda-runtime-aws-request-id'];
  }

  // Resolves when the outcome has been posted.
  run(handler, body) {
    return new Promise((resolve, reject) => {
      this.#settle = (posted) => posted.then(resolve, reject);
      this.#whenIdle(() => this.#abandoned(handler));
      try {
        const result = handler(JSON.parse(body.toString()), this.#context(), this.#once(this.#callback));
        if (typeof result?.then === 'function') this.#follow(result);
      } catch (error) {
        this.#once(this.#fail)(error);
      }
    });
  }

  #follow(promise) {
    const succeed = this.#once(this.#succeed);
    const fail = this.#once(this.#fail);
    promise.then(succeed).then(undefined, (error) => fail(error ?? 'handled'));
  }

  #context() {
    setRequest(this.id, this.#headers['lambda-runtime-aws-tenant-id']);
    setTrace(this.#headers);
    const invocation = this;
    const context = {
      get callbackWaitsForEmptyEventLoop() {
        return invocation.#waits;
      },
      set callbackWaitsForEmptyEventLoop(value) {
        invocation.#waits = value;
      },
      succeed: this.#once(this.#succeed),
      fail: this.#once((error) => this.#fail(error ?? 'handled')),
      done: this.#once((error, result) => (error == null ? this.#succeed(result) : this.#fail(error))),
    };
    return Object.assign(context, contextData(this.#headers));
  }

  // Only the first way of ending counts; one that throws has not ended anything.
  #once(action) {
    return (...parts) => {
      if (this.#finished) return;
      action.apply(this, parts);
      this.#finished = true;
    };
  }

  #callback(error, result) {
    if (error !== undefined && error !== null) this.#fail(error);
    else if (!this.#waits) this.#succeed(result);
    else this.#whenIdle(() => setImmediate(() => this.#succeed(result)));
  }

  #succeed(result) {
    this.#whenIdle(null);
    this.#settle(this.#api.answer(this.id, result));
  }

  #fail(error) {
    this.#whenIdle(null);
    logError('Invoke Error', error);
    this.#settle(this.#api.fail(this.id, error));
  }

  #abandoned(handler) {
    if (this.#finished) return;
    this.#finished = true;
    if (handler.constructor?.name !== 'AsyncFunction') return this.#succeed(null);
    this.#fail(
      new NodeJsExit(
        'The Lambda runtime client detected an unexpected Node.js exit code. This is most commonly caused by a ' +
          'Promise that was never settled. For more information, see ' +
          'https://nodejs.org/docs/latest/api/process.html#process_exit_codes',
      ),
    );
  }
}
