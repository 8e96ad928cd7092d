// One kept-open HTTP/1.1 connection to the Runtime API, over a bare socket: a request is one write, an answer is parsed
// in place. It keeps the process alive only while an answer is awaited, so an idle connection never stops the event
// loop from becoming empty.

import net from 'node:net';

const HEAD_END = Buffer.from('\r\n\r\n');

export class Connection {
  #address;
  #socket = null;
  #pending = null;
  #chunks = [];
  #size = 0;
  #answer = null;

  constructor(address) {
    this.#address = address;
  }

  // One request at a time; resolves to {status, headers, body}, header names in lower case.
  request(method, path, headers = {}, body = undefined) {
    let head = `${method} ${path} HTTP/1.1\r\nHost: ${this.#address}\r\n`;
    for (const name in headers) head += `${name}: ${headers[name]}\r\n`;
    if (body !== undefined) head += `Content-Length: ${Buffer.byteLength(body)}\r\n`;
    return new Promise((resolve, reject) => {
      this.#pending = { resolve, reject };
      const socket = this.#open();
      socket.ref();
      socket.write(`${head}\r\n${body ?? ''}`);
    });
  }

  // Chunked upload: returns {write, end(trailers)}; `end` resolves to the answer.
  upload(path, headers) {
    let head = `POST ${path} HTTP/1.1\r\nHost: ${this.#address}\r\nTransfer-Encoding: chunked\r\n`;
    for (const name in headers) head += `${name}: ${headers[name]}\r\n`;
    const socket = this.#open();
    socket.ref();
    socket.write(`${head}\r\n`);
    const answer = new Promise((resolve, reject) => (this.#pending = { resolve, reject }));
    answer.catch(() => {});
    return {
      write(bytes, done) {
        if (bytes.length === 0) return done();
        socket.cork();
        socket.write(`${bytes.length.toString(16)}\r\n`);
        socket.write(bytes);
        socket.write('\r\n', done);
        socket.uncork();
      },
      end(trailers = {}) {
        let tail = '0\r\n';
        for (const name in trailers) tail += `${name}: ${trailers[name]}\r\n`;
        socket.write(`${tail}\r\n`);
        return answer;
      },
    };
  }

  #open() {
    if (this.#socket === null) {
      const [host, port] = this.#address.split(':');
      const socket = net.connect({ host, port: Number(port), noDelay: true });
      socket.on('data', (bytes) => this.#read(bytes));
      socket.on('error', (error) => this.#lost(socket, error));
      socket.on('close', () => this.#lost(socket, new Error('The Runtime API closed the connection')));
      this.#socket = socket;
    }
    return this.#socket;
  }

  #lost(socket, error) {
    if (socket !== this.#socket) return;
    const pending = this.#pending;
    this.#pending = this.#socket = this.#answer = null;
    this.#chunks = [];
    this.#size = 0;
    pending?.reject(error);
  }

  #read(bytes) {
    this.#chunks.push(bytes);
    this.#size += bytes.length;
    if (this.#answer !== null && this.#size < this.#answer.needed) return;
    const all = this.#chunks.length === 1 ? bytes : Buffer.concat(this.#chunks);
    this.#chunks = [all];
    this.#answer ??= parseHead(all);
    const body = this.#answer && takeBody(this.#answer, all);
    if (body) this.#done(body);
  }

  #done(body) {
    const { status, headers } = this.#answer;
    const { resolve } = this.#pending;
    this.#answer = this.#pending = null;
    this.#chunks = [];
    this.#size = 0;
    if (headers.connection?.toLowerCase() === 'close') {
      const socket = this.#socket;
      this.#socket = null;
      socket.destroy();
    } else {
      this.#socket.unref();
    }
    resolve({ status, headers, body });
  }
}

// Stands for a connection where requests overlap: each goes over one that is free, else over a new one.
export class Connections {
  #address;
  #free = [];

  constructor(address) {
    this.#address = address;
  }

  async request(...parts) {
    const connection = this.#take();
    const answer = await connection.request(...parts);
    this.#free.push(connection);
    return answer;
  }

  upload(...parts) {
    const connection = this.#take();
    const { write, end } = connection.upload(...parts);
    const ended = async (trailers) => {
      const answer = await end(trailers);
      this.#free.push(connection);
      return answer;
    };
    return { write, end: ended };
  }

  #take() {
    return this.#free.pop() ?? new Connection(this.#address);
  }
}

function parseHead(bytes) {
  const end = bytes.indexOf(HEAD_END);
  if (end < 0) return null;
  const lines = bytes.toString('utf8', 0, end).split('\r\n');
  const headers = {};
  for (let i = 1; i < lines.length; i++) {
    const colon = lines[i].indexOf(':');
    headers[lines[i].slice(0, colon).toLowerCase()] = lines[i].slice(colon + 1).trim();
  }
  const start = end + HEAD_END.length;
  const chunked = headers['transfer-encoding']?.toLowerCase() === 'chunked';
  const needed = chunked ? 0 : start + Number(headers['content-length'] ?? 0);
  return { status: Number(lines[0].split(' ')[1]), headers, start, chunked, needed };
}

function takeBody(answer, bytes) {
  if (answer.chunked) return joinChunks(bytes, answer.start);
  return bytes.length >= answer.needed ? bytes.subarray(answer.start, answer.needed) : null;
}

function joinChunks(bytes, at) {
  const parts = [];
  for (;;) {
    const line = bytes.indexOf('\r\n', at);
    if (line < 0) return null;
    const size = parseInt(bytes.toString('latin1', at, line), 16);
    if (bytes.length < line + 4 + size) return null;
    if (size === 0) return Buffer.concat(parts);
    parts.push(bytes.subarray(line + 2, line + 2 + size));
    at = line + 4 + size;
  }
}
