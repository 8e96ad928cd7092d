// Response streaming: handlers wrapped by `awslambda.streamifyResponse` get a stream whose bytes leave as written.

import { Writable } from 'node:stream';
import { contextData, setTrace } from './context.mjs';
import { errorBody, InvalidStreamingOperation } from './errors.mjs';
import { logError, setRequest } from './log.mjs';

const STREAMING = Symbol.for('aws.lambda.runtime.handler.streaming');
const HIGH_WATER_MARK = Symbol.for('aws.lambda.runtime.handler.streaming.highWaterMark');
const PRELUDE_TYPE = 'application/vnd.awslambda.http-integration-response';
const PRELUDE_END = Buffer.alloc(8);
const UNFINISHED = 'Response stream is not finished.';

export const isStreaming = (handler) => handler[STREAMING] === 'response';

export function installGlobal() {
  if (['1', 'true'].includes(process.env.AWS_LAMBDA_NODEJS_NO_GLOBAL_AWSLAMBDA)) return;
  globalThis.awslambda = { streamifyResponse, HttpResponseStream };
}

function streamifyResponse(handler, options) {
  handler[STREAMING] = 'response';
  if (typeof options?.highWaterMark === 'number') handler[HIGH_WATER_MARK] = Math.trunc(options.highWaterMark);
  return handler;
}

class HttpResponseStream {
  static from(stream, prelude) {
    stream.setContentType(PRELUDE_TYPE);
    stream._onBeforeFirstWrite = (write) => {
      write(JSON.stringify(prelude));
      write(PRELUDE_END);
    };
    return stream;
  }
}

class ResponseStream extends Writable {
  #open;
  #upload = null;
  #type = 'application/octet-stream';
  trailers = {};
  answered = null;

  constructor(open, highWaterMark) {
    super({ highWaterMark });
    this.#open = open;
  }

  get begun() {
    return this.#upload !== null;
  }

  setContentType(type) {
    if (this.#upload) throw new InvalidStreamingOperation('Cannot set content-type, too late.');
    this.#type = type;
  }

  write(chunk, ...rest) {
    const plain = typeof chunk === 'string' || chunk instanceof Uint8Array;
    return super.write(plain ? chunk : JSON.stringify(chunk), ...rest);
  }

  _write(chunk, _encoding, done) {
    this.#started().write(chunk, done);
  }

  _final(done) {
    this.answered = this.#started().end(this.trailers);
    this.answered.then(() => done(), done);
  }

  #started() {
    if (this.#upload === null) {
      this.#upload = this.#open(this.#type);
      this._onBeforeFirstWrite?.((bytes) => this.#upload.write(Buffer.from(bytes), () => {}));
    }
    return this.#upload;
  }
}

export class StreamingInvocation {
  #api;
  #headers;
  #whenIdle;
  #stream = null;
  #finished = null;
  #told = null;

  constructor(api, headers, whenIdle) {
    this.#api = api;
    this.#headers = headers;
    this.#whenIdle = whenIdle;
  }

  get id() {
    return this.#headers['lambda-runtime-aws-request-id'];
  }

  // Resolves when the last byte has been taken and, if the handler wants that, the event loop is empty.
  async run(handler, body) {
    setRequest(this.id, this.#headers['lambda-runtime-aws-tenant-id']);
    setTrace(this.#headers);
    const context = { callbackWaitsForEmptyEventLoop: true };
    await this.respond(handler, body, context);
    this.#whenIdle(null);
    if (context.callbackWaitsForEmptyEventLoop) await new Promise((resolve) => this.#whenIdle(resolve));
  }

  // Resolves when the last byte has been taken.
  async respond(handler, body, context) {
    const stream = new ResponseStream((type) => this.#api.stream(this.id, type), handler[HIGH_WATER_MARK]);
    this.#stream = stream;
    this.#finished = new Promise((resolve) => stream.once('close', resolve));
    stream.on('error', () => {});
    const idle = new Promise((_, reject) => this.#whenIdle(() => reject(new Error(UNFINISHED))));
    idle.catch(() => {});
    try {
      Object.assign(context, contextData(this.#headers));
      const result = handler(JSON.parse(body.toString()), stream, context);
      if (typeof result?.then !== 'function') throw new Error('Streaming does not support non-async handlers.');
      if ((await Promise.race([result, idle])) !== undefined) console.warn('Streaming handlers ignore return values.');
      if (!stream.writableEnded) throw new Error(UNFINISHED);
    } catch (error) {
      this.#fail(error);
    }
    await this.#finished;
    await this.#told;
  }

  // For a crash: ends a stream that has begun with the error behind it. Undefined if there is none to end.
  abort(error) {
    if (!this.#stream?.begun) return undefined;
    this.#endWith(error);
    return this.#finished;
  }

  // Once bytes are out, the failure travels in the trailers behind them.
  #fail(error) {
    logError('Invoke Error', error);
    if (this.#stream.begun) return this.#endWith(error);
    if (this.#stream.writableEnded) return undefined;
    this.#told = this.#api.fail(this.id, error);
    this.#told.catch(() => {});
    this.#stream.destroy();
  }

  #endWith(error) {
    if (this.#stream.writableEnded) return;
    const told = errorBody(error);
    this.#stream.trailers = {
      'Lambda-Runtime-Function-Error-Type': headerText(told.errorType),
      'Lambda-Runtime-Function-Error-Body': Buffer.from(JSON.stringify(told)).toString('base64'),
    };
    this.#stream.end();
  }
}

const headerText = (text) => String(text).replace(/[^\x20-\x7e]/g, '');
