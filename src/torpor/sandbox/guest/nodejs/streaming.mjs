// Response streaming: handlers wrapped by `awslambda.streamifyResponse` get a stream whose bytes leave as written.

import { Writable } from 'node:stream';
import { contextData, setTrace } from './context.mjs';
import { errorBody, InvalidStreamingOperation } from './errors.mjs';
import { logError, setRequest } from './log.mjs';

const STREAMING = Symbol.for('aws.lambda.runtime.handler.streaming');
const HIGH_WATER_MARK = Symbol.for('aws.lambda.runtime.handler.streaming.highWaterMark');
const PRELUDE_TYPE = 'application/vnd.awslambda.http-integration-response';
const PRELUDE_END = Buffer.alloc(8);

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
    const finished = new Promise((resolve) => stream.once('close', resolve));
    stream.on('error', () => {});
    this.#whenIdle(() => this.#fail(stream, new Error('Response stream is not finished.')));
    try {
      Object.assign(context, contextData(this.#headers));
      const result = handler(JSON.parse(body.toString()), stream, context);
      if (typeof result?.then !== 'function') throw new Error('Streaming does not support non-async handlers.');
      if ((await result) !== undefined) console.warn('Streaming handlers ignore return values.');
      if (!stream.writableEnded) throw new Error('Response stream is not finished.');
    } catch (error) {
      this.#fail(stream, error);
    }
    await finished;
  }

  // Bytes may be out already, so the failure travels in the trailers.
  #fail(stream, error) {
    logError('Invoke Error', error);
    if (stream.writableEnded) return;
    const told = errorBody(error);
    stream.trailers = {
      'Lambda-Runtime-Function-Error-Type': told.errorType,
      'Lambda-Runtime-Function-Error-Body': Buffer.from(JSON.stringify(told)).toString('base64'),
    };
    stream.end();
  }
}
