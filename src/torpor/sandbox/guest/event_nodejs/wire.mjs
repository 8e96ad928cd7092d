// A small HTTP/1.1 server over bare sockets: connections stay open, and requests are answered one at a time.
//
// Its one client is the platform, so it knows no more of HTTP than that sends: bodies have a length.

import net from 'node:net';

const HEAD_END = Buffer.from('\r\n\r\n');
const HEAD_MAX = 65536;
const REASONS = { 200: 'OK', 404: 'Not Found' };

// Serves for ever. `answer` takes {method, path, headers, body} and resolves to {status, headers, body, last}.
export function listen(port, answer) {
  let turn = Promise.resolve();
  const inTurn = (request) => (turn = turn.then(() => answer(request)));
  net
    .createServer((socket) => {
      socket.setNoDelay(true);
      socket.on('error', () => socket.destroy());
      const reader = new Reader();
      socket.on('data', (bytes) => receive(socket, reader, bytes, inTurn));
    })
    .listen({ port, host: '0.0.0.0', backlog: 128 });
}

function receive(socket, reader, bytes, inTurn) {
  try {
    for (const request of reader.take(bytes)) inTurn(request).then((answered) => send(socket, request, answered));
  } catch {
    socket.end('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
  }
}

function send(socket, request, { status, headers, body, last }) {
  let head = `HTTP/1.1 ${status} ${REASONS[status]}\r\nContent-Length: ${body.length}\r\nConnection: keep-alive\r\n`;
  for (const name in headers) head += `${name}: ${headers[name]}\r\n`;
  socket.cork();
  socket.write(`${head}\r\n`, 'latin1');
  socket.write(body, () => last && process.exit(1));
  socket.uncork();
  if ((request.headers.connection || '').toLowerCase() === 'close') socket.end();
}

// Cuts what arrives into requests.
class Reader {
  #chunks = [];
  #size = 0;
  #head = null;

  // The requests that these bytes complete. Throws if they are none.
  *take(bytes) {
    this.#chunks.push(bytes);
    this.#size += bytes.length;
    while (this.#head === null || this.#size >= this.#head.needed) {
      const all = this.#chunks.length === 1 ? this.#chunks[0] : Buffer.concat(this.#chunks);
      this.#chunks = [all];
      if (this.#head === null) this.#head = parseHead(all);
      if (this.#head === null || this.#size < this.#head.needed) return;
      const { start, needed, ...request } = this.#head;
      this.#head = null;
      this.#chunks = [all.subarray(needed)];
      this.#size = all.length - needed;
      yield { ...request, body: all.subarray(start, needed) };
    }
  }
}

function parseHead(bytes) {
  const end = bytes.indexOf(HEAD_END);
  if (end < 0 && bytes.length > HEAD_MAX) throw new Error('The head of a request is too large');
  if (end < 0) return null;
  const lines = bytes.toString('latin1', 0, end).split('\r\n');
  const [method, path, version] = lines[0].split(' ');
  const headers = {};
  for (let i = 1; i < lines.length; i++) {
    const colon = lines[i].indexOf(':');
    headers[lines[i].slice(0, colon).toLowerCase()] = lines[i].slice(colon + 1).trim();
  }
  const start = end + HEAD_END.length;
  const needed = start + Number(headers['content-length'] || 0);
  if (!version || !(needed >= start) || 'transfer-encoding' in headers) throw new Error('Not a request');
  return { method, path, headers, start, needed };
}
